"""Tests that measure rates run with no other test beside them, whichever worker or run on this machine the others belong to.

A readers-writer lock of two files (flock(2)): each test holds the lock shared, one that measures holds it exclusively. A test
that waits for the exclusive lock holds the turnstile meanwhile, so that no further test gets the shared one. The kernel releases both when
a process ends. Runs of other users of the machine have a lock of their own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def machine_lock(*, alone: bool, directory: Path | None = None) -> Iterator[None]:
    """Hold the lock for the length of a with-block, which waits until the others have released it.

    Args:
        alone: hold it exclusively.
        directory: where the lock files are; by default one of this user and machine.
    """
    path = directory or Path(f"/tmp/autosync-tests-{os.getuid()}")  # whatever TMPDIR is: the same for all
    path.mkdir(exist_ok=True)
    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with open(path / "turnstile", "ab") as turnstile, open(path / "lock", "ab") as lock:
        try:
            fcntl.flock(turnstile, how)
            fcntl.flock(lock, how)
            if not alone:
                fcntl.flock(turnstile, fcntl.LOCK_UN)
            yield
        finally:
            for file in (lock, turnstile):
                fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough where a fork has the file too
