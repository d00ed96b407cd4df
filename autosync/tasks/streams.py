"""Limits the streams of this process: the large files, or parts of them, that are sent at once under a bandwidth limit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .waiting import CHECK_INTERVAL, StopCheck

#: The bandwidth limit divided by this, in bytes a second, is the number of streams, at least one. With more streams, each would pause for
#: so long that servers hang up.
_STREAM_RATE = 1 << 20
_MAX_STREAMS = 16
_UNLIMITED = 1 << 30


class Streams:
    """Counts the streams that are open. Safe to use from many threads.

    Args:
        bandwidth: gives the current limit in bytes a second; 0: there is none.
    """

    def __init__(self, bandwidth: Callable[[], float]) -> None:
        self._bandwidth = bandwidth
        self._open = 0
        self._fewer = threading.Condition()

    def max_open(self) -> int:
        """How many streams there may be now."""
        bandwidth = self._bandwidth()
        return max(1, min(int(bandwidth / _STREAM_RATE), _MAX_STREAMS)) if bandwidth else _UNLIMITED

    @contextmanager
    def opened(self, count: int, check: StopCheck) -> Iterator[None]:
        """Hold streams open inside a with-block. The block begins when one more stream is allowed.

        Args:
            count: how many; 0: there is nothing to wait for.
            check: called at least once a second while this waits; an error that it raises ends the waiting.
        """
        with self._fewer:
            while count and self._open >= self.max_open():
                check()
                self._fewer.wait(CHECK_INTERVAL)
            self._open += count
        try:
            yield
        finally:
            with self._fewer:
                self._open -= count
                self._fewer.notify()
