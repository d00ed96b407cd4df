"""Random operations on a real tree, accidents of a running autosync, and an observer that detects broken promises.

From the ground up; a file imports only from those above it here:

    versions       contents that contain their version
    expected_keys  which keys files and links make
    book           the content of the tree, earlier contents, and keys that never left
    tree           the directory on the disk, and the steps that change it; each writes into the book before it acts
    operations     what is done to it
    world          a tree with the operations that were done
    mount_table    mounting and unmounting
    file_systems   the disk of the source, and what is mounted below it
    releases       a source that is a link to one of several trees
    running        the real command with its children
    box            an upload box with mounts of its own
    observer       reads the bucket all the time
    quiet          all of these together, and the quiet points
    accidents      what happens to the command, its children and the target
    mounts         what happens to the file systems
    switches       what happens to a source that is a link

Only `running` imports from autosync, to start it and to ask whether it is idle: what is right is worked out here a second time.

The bucket is versioned, so nothing that was visible for a moment escapes. What is asked of it:

- at every quiet point it equals the tree;
- each object was, as a whole, the content of the file of that name at some moment;
- a key of a file that never left since the last quiet point was never missing, not even between two operations. A file that is hidden
  since something was unmounted, or mounted over it, has not left.

Where autosync may withhold deletions, more may be in the bucket at a quiet point, but no more than `autosync-ctl accept` lists.

In `tests/fleet/test_machine.py` and `lab/soak.py` a seeded generator chooses.
"""

from .accidents import ACCIDENTS
from .book import Book
from .box import Box
from .file_systems import SourceDisk
from .mounts import MOUNT_ACCIDENTS, unmount_all
from .observer import Observer, versioned_bucket
from .operations import OPERATIONS
from .quiet import Chaos
from .releases import Releases
from .running import Autosync, Broken
from .switches import LINK_ACCIDENTS
from .versions import content, digest
from .world import World

__all__ = [
    "ACCIDENTS", "LINK_ACCIDENTS", "MOUNT_ACCIDENTS", "OPERATIONS", "Autosync", "Book", "Box", "Broken", "Chaos", "Observer", "Releases",
    "SourceDisk", "World", "content", "digest", "unmount_all", "versioned_bucket",
]  # fmt: skip
