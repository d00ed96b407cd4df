"""Roots and mount points that are not what they were, in scans and watchers of this process, with real mounts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from autosync.compare.delete_limit import DeleteLimit
from autosync.compare.deletions import Permission
from autosync.compare.diff import MARGIN
from autosync.compare.scan import Comparison, Policy, ScanReport
from autosync.model.change import Change, Kind
from autosync.model.keys import Keys, Source
from autosync.model.mirror import IN_DOUBT
from autosync.model.withheld import AcceptedDeletions
from autosync.source import roots as roots_module
from autosync.source.deferred_scans import DeferredScans
from autosync.source.mounts import MountTable
from autosync.source.name_reader import NameReader
from autosync.source.roots import RootRegister
from autosync.source.walk_level import Level
from autosync.watch.watcher import Watcher
from lab.comparing import FixedTarget, fill, keys_of, scan
from lab.mounting import Mounts, mounts_of_test
from lab.servers import wait_until

KEYS = [f"share/{number:04}" for number in range(40)]
#: Whatever the limit is.
ALL = DeleteLimit(percent=100.0)


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    with mounts_of_test() as made:
        yield made


@pytest.fixture
def start_roots(tree: Path) -> Iterator[Callable[..., RootRegister]]:
    """The roots of a process that has just started; the argument has what was stored."""
    tables: list[MountTable] = []

    def start(before: RootRegister | None = None) -> RootRegister:
        tables.append(MountTable())
        roots = RootRegister(keys_of(tree), tables[-1])
        roots.load(before.remembered.identities() if before else {}, before.remembered.doubts() if before else {})
        return roots

    yield start
    for table in tables:
        table.close()


def differing(tree: Path, target: FixedTarget, roots: RootRegister) -> list[str]:
    """The keys that a scan of everything has to send or to check."""
    comparison = Comparison(keys_of(tree), target, Policy(True, ALL), roots=roots)
    return [one.key for one in comparison.differences("", ScanReport()) if one.found is not None]


def test_a_mount_point_is_believed_again_when_its_file_system_is_back(
    tree: Path, tmp_path: Path, mounts: Mounts, start_roots: Callable[..., RootRegister]
) -> None:
    share = tree / "share"
    fill(tmp_path / "bound", *(key.removeprefix("share/") for key in KEYS))
    mounts.bind(tmp_path / "bound", share)
    fill(tree, "outside")
    target = FixedTarget("outside", *KEYS, "share/gone")
    roots = start_roots()
    assert scan(tree, target, limit=ALL, roots=roots)[0] == ["share/gone"]
    assert roots.identities()[str(share)] != IN_DOUBT

    mounts.unmount(share)
    assert os.listdir(share) == []
    deleted, report = scan(tree, target, limit=ALL, roots=roots)
    assert (deleted, report.kept_in_doubt, report.complete) == ([], 41, False)
    assert roots.identities()[str(share)] == IN_DOUBT
    assert {path: (doubt.keys, doubt.text) for path, doubt in roots.remembered.pending().items()} == {str(share): (41, "is empty")}
    roots = start_roots(roots)
    assert scan(tree, target, limit=ALL, roots=roots)[0] == []
    assert scan(tree, target, str(share), limit=ALL, roots=roots, has_left=True)[0] == []
    assert scan(tree, target, f"{share}/d", limit=ALL, roots=roots, has_left=True)[0] == []

    mounts.bind(tmp_path / "bound", share)
    assert scan(tree, target, limit=ALL, roots=roots)[0] == ["share/gone"]
    assert roots.remembered.pending() == {}
    assert scan(tree, target, limit=ALL, roots=start_roots(roots))[0] == ["share/gone"]


@pytest.mark.parametrize("what", ["an empty directory", "nothing", "a file", "a link", "another file system"])
def test_an_accepted_mount_point_is_what_the_next_scan_finds(
    tree: Path, tmp_path: Path, mounts: Mounts, start_roots: Callable[..., RootRegister], what: str
) -> None:
    share = tree / "share"
    mounts.mount(share)
    fill(tree, "outside", *KEYS)
    roots = start_roots()
    target = FixedTarget("outside", *KEYS)
    assert scan(tree, target, limit=ALL, roots=roots)[0] == []
    mounts.unmount(share)
    if what in ("nothing", "a file", "a link"):
        share.rmdir()
    if what == "a file":
        share.touch()
    elif what == "a link":
        (tree / "elsewhere").mkdir()
        share.symlink_to(tree / "elsewhere")
    elif what == "another file system":
        mounts.mount(share)
        fill(tree, "share/new")
    assert scan(tree, target, limit=ALL, roots=roots)[0] == []

    assert not roots.remembered.accept(str(tree))
    assert roots.remembered.accept(str(share))
    roots = start_roots(roots)
    assert roots.remembered.pending() == {}
    assert scan(tree, target, limit=ALL, roots=roots)[0] == KEYS
    assert scan(tree, target, limit=ALL, roots=start_roots(roots))[0] == KEYS, "for good"
    assert (str(share) in roots.remembered.identities()) == (what == "another file system")


@pytest.mark.parametrize("is_new", [False, True], ids=["the same process", "after a restart"])
def test_of_a_mount_point_that_is_accepted_only_the_keys_that_were_listed_are_deleted(
    tree: Path, mounts: Mounts, start_roots: Callable[..., RootRegister], is_new: bool
) -> None:
    """Files were saved in the bare mount point, sent, and moved away again before it was accepted."""
    share = str(tree / "share")
    mounts.mount(tree / "share")
    fill(tree, "outside", *KEYS[:3])
    roots, target = start_roots(), FixedTarget("outside", *KEYS[:3])
    comparison = Comparison(keys_of(tree), target, Policy(limit=DeleteLimit(count=10)), roots=roots)

    def deleted(*accepted: str) -> tuple[list[str], ScanReport]:
        report = ScanReport()
        permission = Permission(acceptances=AcceptedDeletions(frozenset(accepted)))
        found = list(comparison.differences("", report, permission=permission))
        return [one.key for one in found if one.found is None], report

    assert deleted()[0] == []
    mounts.unmount(tree / "share")
    assert deleted()[1].kept_in_doubt == 3
    listed = roots.remembered.pending()[share]
    assert listed.kept == 3
    target.keys = ("outside", *KEYS)
    if is_new:
        comparison.close()
        roots = start_roots(roots)
        comparison = Comparison(keys_of(tree), target, Policy(limit=DeleteLimit(count=10)), roots=roots)
    assert deleted()[1].kept_in_doubt == 40
    now = roots.remembered.pending()[share]
    assert (now.kept, now.digest == listed.digest) == (40, False), "what is listed is what is kept now"

    assert roots.remembered.accept(share)
    found, report = deleted(listed.digest)

    assert (found, report.withheld.count) == ([], 40)
    assert deleted(now.digest)[0] == KEYS
    comparison.close()


def test_a_mount_point_is_remembered_before_the_first_scan_has_ended(
    tree: Path, mounts: Mounts, start_roots: Callable[..., RootRegister]
) -> None:
    """The first process sends all of it, and is killed."""
    mounts.mount(tree / "share")
    fill(tree, "outside", *KEYS)
    roots = start_roots()
    mounts.unmount(tree / "share")

    assert scan(tree, FixedTarget("outside", *KEYS), limit=ALL, roots=start_roots(roots))[0] == []


@pytest.mark.parametrize("is_part", [True, False])
def test_a_scan_finds_out_that_a_mount_point_has_moved_with_the_directory_around_it(
    tree: Path, mounts: Mounts, start_roots: Callable[..., RootRegister], is_part: bool
) -> None:
    """A rename is no event of the mount table."""
    mounts.mount(tree / "a/share")
    fill(tree, "outside", *(f"a/{key}" for key in KEYS))
    roots = start_roots()
    target = FixedTarget("outside", *(f"a/{key}" for key in KEYS))
    assert scan(tree, target, limit=ALL, roots=roots)[0] == []

    mounts.move(tree / "a", tree / "b")
    deleted, report = scan(tree, target, str(tree / "a") if is_part else "", limit=ALL, roots=roots, has_left=is_part)

    assert (deleted, report.kept_in_doubt) == ([f"a/{key}" for key in KEYS], 0)
    assert roots.remembered.doubts() == {}


@pytest.mark.parametrize("holds", [True, False], ids=["what the target holds", "nothing"])
def test_what_is_mounted_during_a_scan_is_not_compared_by_it(
    tree: Path, mounts: Mounts, start_roots: Callable[..., RootRegister], monkeypatch: pytest.MonkeyPatch, holds: bool
) -> None:
    """The walk has read the directory before."""
    share = tree / "share"
    share.mkdir()
    fill(tree, "outside")
    target, roots = FixedTarget("outside", *KEYS), start_roots()
    mounts.mount(tree.parent / "other")  # as another test may at the same time: then the roots are read once more
    read_names = NameReader.read

    def read_and_mount(reader: NameReader, level: Level) -> int:
        count = read_names(reader, level)
        # The walk before, which finds out whether there is any file, reads the names in the order of the disk.
        if reader._in_order and level.path == f"{share}/":
            mounts.mount(share)
            fill(tree, *KEYS[: 40 * holds])
        return count

    with monkeypatch.context() as patch:
        patch.setattr(NameReader, "read", read_and_mount)
        deleted, report = scan(tree, target, limit=ALL, roots=roots)

    assert os.path.ismount(share)
    assert (deleted, report.kept_in_doubt, report.needs_whole_scan) == ([], 40, True)
    deleted, report = scan(tree, target, limit=ALL, roots=roots)
    assert (deleted, report.kept_in_doubt, report.needs_whole_scan) == ([], 40 * (not holds), False)
    assert [*roots.remembered.pending()] == [str(share)] * (not holds)


def test_what_a_file_system_has_just_covered_is_not_gone(tree: Path, mounts: Mounts, start_roots: Callable[..., RootRegister]) -> None:
    """An event of a file may be worked off right after something was mounted over it, before the main loop reads the mounts again."""
    fill(tree, "d/a", "d/b")
    roots = start_roots()
    deferred = DeferredScans(roots)
    (tree / "d/b").unlink()
    assert deferred.is_certain(f"{tree}/d/b")

    mounts.mount(tree / "d")

    assert not os.path.lexists(tree / "d/a"), "or nothing is covered"
    assert not deferred.is_certain(f"{tree}/d/a")
    assert [path for path, _ in roots.pop_mount_changes()] == [str(tree / "d")], "the main loop requests a scan as before"
    assert deferred.pop() == []


@pytest.mark.parametrize("what", ["files", "a share"])
def test_a_directory_that_is_removed_right_after_it_was_uncovered_waits_for_acceptance(
    tree: Path, mounts: Mounts, start_roots: Callable[..., RootRegister], what: str
) -> None:
    """Files that are removed after the unmount look like those of a share that was mounted for the first time and never identified."""
    roots, share = start_roots(), tree / "share"
    fill(tree, "outside")
    if what == "files":
        fill(tree, *KEYS)
        mounts.mount(share)
    else:
        mounts.mount(share)
        fill(tree, *KEYS)
        roots.poll_mounts()  # its files are sent, and no scan has ended
        mounts.unmount(share)
        mounts.mount(share)
    target = FixedTarget("outside", *KEYS)
    assert scan(tree, target, limit=ALL, roots=roots)[0] == []
    fill(tree, "share/other")
    target.keys += ("share/other",)

    mounts.unmount(share)
    shutil.rmtree(share)

    deleted, report = scan(tree, target, str(share), limit=ALL, roots=roots, has_left=True)
    assert (deleted, report.kept_in_doubt) == ([], 41)
    assert [doubt.text for doubt in roots.remembered.pending().values()] == ["is gone"]
    assert roots.remembered.accept(str(share))
    assert scan(tree, target, limit=ALL, roots=roots)[0] == [*KEYS, "share/other"]
    assert roots.remembered.identities().keys() == {str(tree)}, "it is no mount point any more"


@pytest.mark.parametrize("what", ["mounted", "unmounted", "an ordinary directory"])
def test_a_path_that_was_one_of_its_own_is_protected_within_the_path_around_it(tree: Path, mounts: Mounts, what: str) -> None:
    """`autosync src src/disk`, and later `autosync src`."""
    disk, table = tree / "disk", MountTable()
    if what != "an ordinary directory":
        mounts.mount(disk)
    keys = [key.replace("share", "disk") for key in KEYS]
    fill(tree, "outside", *keys)
    before = RootRegister(Keys([Source(str(tree)), Source(str(disk))]), table)
    before.load({}, {})
    if what == "unmounted":
        mounts.unmount(disk)

    roots = RootRegister(keys_of(tree), table)
    roots.load(before.remembered.identities(), {}, former_roots=[str(disk)])

    if what == "an ordinary directory":
        shutil.rmtree(disk)
        assert scan(tree, FixedTarget("outside", *keys), limit=ALL, roots=roots)[0] == keys
    else:
        assert scan(tree, FixedTarget("outside", *keys), limit=ALL, roots=roots)[0] == []
        assert [*roots.remembered.pending()] == [str(disk)] * (what == "unmounted")
    table.close()


def test_a_removed_subvolume_is_a_mount_point_that_is_gone_for_good(
    tree: Path, mounts: Mounts, start_roots: Callable[..., RootRegister]
) -> None:
    """A device that differs is all that is known of a subvolume: it is not in the table of mounts."""
    mounts.mount(tree / "share")
    fill(tree, "outside", *KEYS)
    roots = RootRegister(keys_of(tree))
    roots.load({}, {})
    target = FixedTarget("outside", *KEYS)
    assert scan(tree, target, limit=ALL, roots=roots)[0] == []
    assert str(tree / "share") in roots.remembered.identities()

    mounts.unmount(tree / "share")
    (tree / "share").rmdir()
    assert scan(tree, target, str(tree / "share"), limit=ALL, roots=roots, has_left=True)[0] == []
    assert roots.remembered.accept(str(tree / "share"))
    assert scan(tree, target, limit=ALL, roots=roots)[0] == KEYS


def test_a_share_with_other_inodes_after_each_mount_is_recognized_by_its_names(
    tree: Path, tmp_path: Path, bindfs: Callable, start_roots: Callable[..., RootRegister], mounts: Mounts
) -> None:
    share = tree / "share"
    share.mkdir()
    fill(tmp_path, "behind/a/1", "behind/b/2", "behind/c")
    fill(tmp_path, "other/x/1", "other/y/2")
    server = bindfs(tmp_path / "behind", share)
    target = FixedTarget("share/a/1", "share/b/2", "share/c", "share/gone")
    roots = start_roots()
    assert scan(tree, target, limit=ALL, roots=roots)[0] == ["share/gone"]
    before = roots.remembered.identities()[str(share)]
    mounts.unmount(share)
    server.wait()

    server = bindfs(tmp_path / "other", share)
    roots = start_roots(roots)
    assert scan(tree, target, limit=ALL, roots=roots)[0] == []
    mounts.unmount(share)
    server.wait()

    shutil.copytree(tmp_path / "behind", tmp_path / "copied")  # FUSE gives the inodes of the directory behind it
    server = bindfs(tmp_path / "copied", share)
    assert os.stat(share).st_ino != before.inode
    assert before.filesystem == os.statvfs(share).f_fsid == 0
    assert scan(tree, target, limit=ALL, roots=start_roots(roots))[0] == ["share/gone"]


def test_a_mount_point_with_half_of_its_keys_is_remembered_from_then_on(
    tree: Path, mounts: Mounts, start_roots: Callable[..., RootRegister]
) -> None:
    mounts.mount(tree / "share")
    fill(tree, *KEYS)
    roots = start_roots()
    target = FixedTarget(*KEYS)
    assert scan(tree, target, limit=ALL, roots=roots)[0] == []
    mounts.unmount(tree / "share")

    mounts.mount(tree / "share")
    fill(tree, *KEYS[:19])
    assert scan(tree, target, limit=ALL, roots=roots)[0] == []
    fill(tree, *(f"share/new/{number}" for number in range(50)))
    more = FixedTarget(*KEYS, *(f"share/new/{number}" for number in range(50)))
    assert scan(tree, more, limit=ALL, roots=roots)[0] == [], "what was sent since does not count"
    fill(tree, KEYS[19])
    assert scan(tree, more, str(tree / "share"), limit=ALL, roots=roots)[0] == KEYS[20:]
    assert scan(tree, more, limit=ALL, roots=start_roots(roots))[0] == KEYS[20:]


def test_files_of_another_file_system_count_as_changed(
    tree: Path, tmp_path: Path, mounts: Mounts, start_roots: Callable[..., RootRegister]
) -> None:
    """They may be as large as what was sent from the one before, and older than its objects."""
    share = tree / "share"
    for disk in (tmp_path / "one", tmp_path / "another"):
        mounts.mount(disk)
        fill(disk, *(key.removeprefix("share/") for key in KEYS))
    mounts.bind(tmp_path / "one", share)
    fill(tree, "outside")
    sent = time.time() + 0.1
    target, roots = FixedTarget("outside", *KEYS, created=sent + MARGIN), start_roots()
    wait_until(lambda: time.time() > sent)
    assert differing(tree, target, roots) == [], "the objects are newer"

    mounts.unmount(share)
    mounts.bind(tmp_path / "another", share)
    assert differing(tree, target, roots) == KEYS
    assert differing(tree, target, roots) == [], "it is the remembered one from then on"


def test_a_mount_point_in_a_mirror_that_is_not_accepted_is_remembered_as_it_is(
    tree: Path, mounts: Mounts, start_roots: Callable[..., RootRegister]
) -> None:
    mounts.mount(tree / "share")
    fill(tree, "share/ours")
    roots = start_roots()

    _, report = scan(tree, FixedTarget(*KEYS), limit=ALL, roots=roots, accepted=False)

    assert (report.withheld.count, report.kept_in_doubt, roots.remembered.pending()) == (40, 0, {})
    assert roots.identities()[str(tree / "share")] != IN_DOUBT


@pytest.mark.parametrize("what", ["nothing", "a marker file"])
def test_a_path_inside_another_one_that_was_accepted_as_gone_is_protected_when_it_is_back(
    tree: Path, tmp_path: Path, mounts: Mounts, what: str
) -> None:
    """A scan may walk it before the main loop polls the roots."""
    inner, disk = tree / "disk", tmp_path / "tmpfs"
    mounts.mount(disk)
    fill(disk, "d/b")
    mounts.bind(disk / "d", inner)
    fill(tree, "a")
    keys = Keys([Source(str(tree)), Source(str(inner))], source_prefix=f"{tree}/")
    target, table = FixedTarget("a", "disk/b"), MountTable()
    roots = RootRegister(keys, table)
    roots.load({}, {})

    def deleted() -> list[str]:
        return [one.key for one in Comparison(keys, target, roots=roots).differences("", ScanReport()) if one.found is None]

    def poll() -> None:
        roots.poll_roots()
        roots.pop_mount_changes()

    assert deleted() == []
    mounts.unmount(inner)
    inner.rmdir()
    poll()
    assert deleted() == []
    assert roots.remembered.accept(str(inner))
    assert deleted() == ["disk/b"]
    target.keys = ("a",)

    mounts.bind(disk / "d", inner)
    assert deleted() == []
    target.keys = ("a", "disk/b")
    poll()
    mounts.unmount(inner)
    inner.rmdir() if what == "nothing" else fill(inner, "NOT-MOUNTED")
    poll()

    assert deleted() == []
    assert roots.identities()[str(inner)] == IN_DOUBT
    table.close()


def test_more_mount_points_than_are_remembered(
    tree: Path, mounts: Mounts, start_roots: Callable[..., RootRegister], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roots_module, "MOST_MOUNTS", 3)
    for number in range(5):
        mounts.mount(tree / f"share/{number}")
        fill(tree, f"share/{number}/f")
    roots = start_roots()

    scan(tree, FixedTarget(*(f"share/{number}/f" for number in range(5))), roots=roots)

    assert len(roots.remembered.identities()) == 4
    assert roots.has_more


class Recorder:
    def __init__(self) -> None:
        self.changes: list[Change] = []

    def __call__(self, changes: Iterable[Change]) -> None:
        self.changes += changes


def test_what_was_unmounted_has_not_left_and_what_was_removed_has(tree: Path, mounts: Mounts) -> None:
    mounts.mount(tree / "media/disk")
    fill(tree, "media/disk/d/f", "media/beside/f", "renamed/f")
    recorder = Recorder()
    watcher = Watcher(keys_of(tree), recorder)
    watcher.start()
    try:
        wait_until(lambda: recorder.changes, 20, "the watches are placed")
        mounts.unmount(tree / "media/disk")
        (tree / "media/disk").rmdir()
        (tree / "media/beside/f").unlink()
        (tree / "media/beside").rmdir()
        (tree / "media").rmdir()
        (tree / "renamed").rename(tree.parent / "elsewhere")

        wait_until(lambda: Change(Kind.LEFT, f"{tree}/renamed") in recorder.changes, 20, "all was seen")
        seen = [change for change in recorder.changes if change.kind in (Kind.LEFT, Kind.SCAN) and change.path]
        assert seen == [
            Change(Kind.SCAN, f"{tree}/media/disk"),
            Change(Kind.LEFT, f"{tree}/media/beside"),
            Change(Kind.SCAN, f"{tree}/media"),
            Change(Kind.LEFT, f"{tree}/renamed"),
        ]
    finally:
        watcher.close()


def test_what_links_lead_to_below_a_mount_point_is_scanned_and_watched_when_it_is_uncovered(tree: Path, mounts: Mounts) -> None:
    """What changed behind them while something else was mounted there is found, and nothing counts as gone."""
    covered, source = tree / "covered", keys_of(tree).sources[0]
    fill(tree, "covered/a/f", "plain/f")
    (covered / "a/inner").symlink_to(tree / "plain")
    (tree / "outer").symlink_to(covered / "a")
    (tree / "file").symlink_to(covered / "a/f")
    recorder = Recorder()
    watcher = Watcher(keys_of(tree), recorder)
    watcher.start()
    try:
        wait_until(lambda: recorder.changes, 20, "the watches are placed")
        mounts.mount(covered)
        watcher.replace_tree(source, str(covered), is_mounted=True)
        wait_until(lambda: Change(Kind.SCAN, str(covered)) in recorder.changes, 20, "what is mounted is watched")
        fill(tree, "plain/meanwhile")
        mounts.unmount(covered)
        recorder.changes.clear()
        watcher.replace_tree(source, str(covered), is_mounted=False)

        wait_until(lambda: Change(Kind.SCAN, f"{tree}/outer") in recorder.changes, 20, "what the link leads to is scanned")
        wait_until(lambda: Change(Kind.SAVED, f"{tree}/file") in recorder.changes, 20, "the file behind a link is checked")
        fill(tree, "covered/a/later", "plain/later")
        for path in ("outer/later", "outer/inner/later"):
            wait_until(lambda path=path: Change(Kind.SAVED, f"{tree}/{path}") in recorder.changes, 20, f"{path} is watched")
        assert [change for change in recorder.changes if change.kind in (Kind.LEFT, Kind.DELETED)] == []
    finally:
        watcher.close()


def test_a_mount_point_is_scanned_and_watched_by_its_paths_through_links_above_it_too(tree: Path, mounts: Mounts) -> None:
    covered, source = tree / "a/covered", keys_of(tree).sources[0]
    fill(covered, "f")
    (tree / "link").symlink_to("a")
    recorder = Recorder()
    watcher = Watcher(keys_of(tree), recorder)
    watcher.start()
    try:
        wait_until(lambda: recorder.changes, 20, "the watches are placed")
        mounts.mount(covered)
        watcher.replace_tree(source, str(covered), is_mounted=True)
        for path in ("a", "link"):
            wait_until(lambda path=path: Change(Kind.SCAN, f"{tree}/{path}/covered") in recorder.changes, 20, f"{path} is scanned")
        fill(covered, "meanwhile")
        wait_until(lambda: Change(Kind.SAVED, f"{tree}/link/covered/meanwhile") in recorder.changes, 20, "what is mounted is watched")
        mounts.unmount(covered)
        recorder.changes.clear()
        watcher.replace_tree(source, str(covered), is_mounted=False)

        for path in ("a", "link"):
            wait_until(lambda path=path: Change(Kind.SCAN, f"{tree}/{path}/covered") in recorder.changes, 20, f"{path} is scanned again")
        fill(covered, "later")
        for path in ("a", "link"):
            wait_until(lambda path=path: Change(Kind.SAVED, f"{tree}/{path}/covered/later") in recorder.changes, 20, f"{path} is watched")
        assert [change for change in recorder.changes if change.kind in (Kind.LEFT, Kind.DELETED)] == []
    finally:
        watcher.close()
