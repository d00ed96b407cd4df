"""How much of the content of files may be in memory at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Files up to this size are so small that nobody counts what of them is in memory.
TINY = 64 << 10
#: Content of other files held in memory by one process, in bytes.
_MOST = 64 << 20


class Memory:
    """So many bytes at a time. One taker may exceed the whole only when it is alone.

    Args:
        most: in bytes.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, count: int) -> Iterator[None]:
        """Hold the content of a file of `count` bytes, waiting until there is room for it."""
        if count <= TINY:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + count <= self._most)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()
