"""Tests that measure rates run with no other test beside them, whichever worker or run on this machine the others belong to.

A readers-writer lock of two files (flock(2)): any test holds the room shared, one that measures holds it exclusively. Who waits for it
exclusively holds the turnstile meanwhile, so that others cannot keep coming in. The kernel gives both back when a process ends. Runs of
other users of the machine have a room of their own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def room(*, alone: bool, directory: Path | None = None) -> Iterator[None]:
    """Be in the room for the length of a with-block, which waits for as long as the others need.

    Args:
        alone: nobody else is in it meanwhile.
        directory: where the lock files are; by default one of this user and machine.
    """
    path = directory or Path(f"/tmp/autosync-tests-{os.getuid()}")  # whatever TMPDIR is: the same for all
    path.mkdir(exist_ok=True)
    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with open(path / "turnstile", "ab") as turnstile, open(path / "room", "ab") as inside:
        try:
            fcntl.flock(turnstile, how)
            fcntl.flock(inside, how)
            if not alone:
                fcntl.flock(turnstile, fcntl.LOCK_UN)
            yield
        finally:
            for file in (inside, turnstile):
                fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough where a fork has the file too
