"""What this process has open, so that a test can find what was left open.

Tests of one process share it: garbage of an earlier one, such as a client with its connections, may be closed at any moment. So what has
been opened since is asked for, each with what it is (proc_pid_fd(5)), and not whether all is as before.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple


class Descriptor(NamedTuple):
    """A file descriptor, and what it is: a path, `socket:[number]`, `pipe:[number]`, ..."""

    number: int
    what: str


def descriptors() -> set[Descriptor]:
    """All that are open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that this listing needs, or one that another thread closes
            found.add(Descriptor(int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


def opened_since(before: set[Descriptor]) -> set[Descriptor]:
    """Those that are open now and were not before."""
    return descriptors() - before
