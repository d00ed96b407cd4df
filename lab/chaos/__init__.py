"""Random operations on a real tree, accidents of a running autosync, and an observer that detects broken promises.

From the ground up; a file imports only from those above it here:

    versions       contents that contain their version
    expected_keys  which keys files and links make
    book           the content of the tree, earlier contents, and keys that never left
    tree           the directory on the disk, and the steps that change it; each writes into the book before it acts
    operations     what is done to it
    world          a tree with the operations that were done
    running        the real command with its children
    observer       reads the bucket all the time
    quiet          the three together, and the quiet points
    accidents      what happens to the command, its children and the target

Only `running` imports from autosync, to start it and to ask whether it is idle: what is right is worked out here a second time.

The bucket is versioned, so nothing that was visible for a moment escapes. What is asked of it:

- at every quiet point it equals the tree;
- each object was, as a whole, the content of the file of that name at some moment;
- a key of a file that never left since the last quiet point was never missing, not even between two operations.

In `tests/fleet/test_machine.py` and `lab/soak.py` a seeded generator chooses.
"""

from .accidents import ACCIDENTS
from .book import Book
from .observer import Observer, versioned_bucket
from .operations import OPERATIONS
from .quiet import Chaos
from .running import Autosync, Broken
from .versions import content, digest
from .world import World

__all__ = [
    "ACCIDENTS", "OPERATIONS", "Autosync", "Book", "Broken", "Chaos", "Observer", "World", "content", "digest", "versioned_bucket",
]  # fmt: skip
