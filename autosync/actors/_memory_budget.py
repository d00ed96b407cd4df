"""Bounds the content of files that is in memory at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Files up to this size, in bytes, are not counted.
TINY = 64 << 10
#: The most content of larger files that one process has in memory, in bytes.
_MOST = 64 << 20


class Memory:
    """A semaphore for bytes. A file that is larger than the whole budget waits until it is alone.

    Args:
        most: the budget, in bytes.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, count: int) -> Iterator[None]:
        """Reserve `count` bytes for the with-block, and wait until they are free."""
        if count <= TINY:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + count <= self._most)
            self._used += count
        try:
            yield
        finally:
            with self._changed:
                self._used -= count
                self._changed.notify_all()
