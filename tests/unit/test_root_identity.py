"""What counts as the same directory after a restart."""

from __future__ import annotations

import os

import pytest

from autosync.model.root_identity import RootIdentity
from autosync.source.mounts import Mount, mounts_of
from autosync.watch.unmounted import UnmountedTrees

EXT4, XFS, FUSE = 0x1234567890, (8 << 8) | 1, 0
DISK, OTHER = os.makedev(8, 1), os.makedev(8, 17)
NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("known", "now", "names_found", "is_same"),
    [
        (RootIdentity(DISK, 4711, EXT4, NAMES), RootIdentity(OTHER, 4711, EXT4), 0, True),  # after a reboot, in a container
        (RootIdentity(DISK, 4711, EXT4, NAMES), RootIdentity(DISK, 4712, EXT4), 4, False),  # another directory of the same disk
        (RootIdentity(DISK, 2, EXT4, NAMES), RootIdentity(DISK, 2, EXT4 + 1), 4, False),  # another disk in the same slot
        (RootIdentity(DISK, 128, XFS, NAMES), RootIdentity(OTHER, 128, XFS + 16), 2, True),  # the number of an XFS is that of its device
        (RootIdentity(DISK, 128, XFS, NAMES), RootIdentity(DISK, 128, XFS), 1, False),  # another XFS in the same slot
        (RootIdentity(DISK, 4711, XFS, NAMES), RootIdentity(OTHER, 4711, XFS + 16), 0, True),
        (RootIdentity(DISK, 4711, XFS, NAMES), RootIdentity(DISK, 4712, XFS), 4, False),
        (RootIdentity(50, 7, FUSE, NAMES), RootIdentity(51, 8, FUSE), 2, True),  # FUSE: other inodes at each mount
        (RootIdentity(50, 7, FUSE, NAMES), RootIdentity(51, 8, FUSE), 1, False),
        (RootIdentity(50, 7, FUSE, NAMES), RootIdentity(DISK, 4711, EXT4), 4, False),  # the mount point
        (RootIdentity(50, 7, FUSE, ()), RootIdentity(51, 8, FUSE), 0, False),
        (RootIdentity(50, 1, FUSE, NAMES), RootIdentity(51, 1, FUSE), 1, False),
        (RootIdentity(50, 99999, FUSE, NAMES), RootIdentity(51, 99999, FUSE), 0, True),  # NFS: the number of the server
        (RootIdentity(DISK, 4711), RootIdentity(OTHER, 4711, EXT4), 0, True),  # what an older version has stored
        (RootIdentity(DISK, 2), RootIdentity(OTHER, 2, EXT4), 0, True),
        (RootIdentity(DISK, 4711), RootIdentity(DISK, 4712, EXT4), 0, False),
    ],
)
def test_a_directory_is_the_same_if_only_a_new_mount_can_explain_what_differs(
    known: RootIdentity, now: RootIdentity, names_found: int, is_same: bool
) -> None:
    assert known.is_same(now, names_found) == is_same


def test_the_mounts_are_read_with_any_name_and_the_topmost_one_counts() -> None:
    text = (
        b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        b"30 22 0:40 / /srv/a\\040b\\134c\\012d rw - tmpfs tmpfs rw\n"
        b"31 22 0:41 / /srv/\xff rw shared:3 master:2 - nfs4 server:/x rw\n"
        b"32 22 0:42 / /srv/auto rw - autofs /etc/auto rw\n"
        b"33 32 0:43 / /srv/auto rw - cifs //server/x rw\n"
        b"damaged\n"
    )

    assert mounts_of(text) == {
        "/": Mount(22, "ext4", "8:1 /"),
        "/srv/a b\\c\nd": Mount(30, "tmpfs", "0:40 /"),
        os.fsdecode(b"/srv/\xff"): Mount(31, "nfs4", "0:41 /"),
        "/srv/auto": Mount(33, "cifs", "0:43 /"),
    }


def test_what_may_have_been_part_of_an_unmounted_file_system_is_found_also_if_there_are_many() -> None:
    trees = UnmountedTrees()
    assert not trees.touches("/s/d")

    for number in range(500):
        trees.add(f"/s/disk/{number}/x")
        trees.add(f"/s/disk/{number}")
    trees.add("/s/disk")
    trees.add("/s/disk2")
    assert all(trees.touches(path) for path in ("/s", "/s/disk", "/s/disk/7", "/s/disk/other"))
    assert not any(trees.touches(path) for path in ("/s/dis", "/s/disk3"))
    trees.discard("/s/disk")
    assert [trees.touches(path) for path in ("/s", "/s/disk", "/s/disk/7/x", "/s/disk2")] == [True, False, False, True]
    for number in range(2000):
        trees.add(f"/t/{number}")
    assert trees.touches("/t/1999")
    assert trees.touches("/u"), "more than can be distinguished"
