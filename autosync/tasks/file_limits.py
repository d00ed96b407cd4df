"""The limits of a target for the files of one task: a chunk of small files, or one large file."""

from __future__ import annotations

from .throttle import Throttle
from .waiting import StopCheck


class Reservation:
    """Acquires the requests and bytes for the few files of a chunk all at once: a thread that queued up for each file would leave the share
    of the first unused while it waits for the share of the last.

    Args:
        throttle: the throttle of the target.
        files: how many files there are.
    """

    __slots__ = ("_bytes", "_left", "_requests", "_throttle")

    def __init__(self, throttle: Throttle, files: int) -> None:
        self._throttle = throttle
        self._left = files
        self._requests = self._bytes = 0

    def next(self) -> None:
        """Go on to the next file."""
        self._left -= 1

    def acquire(self, size: int, check: StopCheck) -> None:
        """Wait until one request with `size` bytes may be sent. The files that are still left are assumed to be alike."""
        alike = max(self._left, 0) + 1
        requests = 0 if self._requests else alike
        more = max(size - self._bytes, 0) * (alike if requests else 1)
        if requests or more:
            self._throttle.acquire(requests, more, check)
        self._requests += requests - 1
        self._bytes += more - size

    def release(self, size: int) -> None:
        """Return the last request and its bytes."""
        self._requests += 1
        self._bytes += size

    def close(self) -> None:
        """Return all requests and bytes that are left."""
        if self._requests or self._bytes:
            self._throttle.release(self._requests, self._bytes)
            self._requests = self._bytes = 0


class BandwidthLimiter:
    """The limits of one large file: see `autosync.source.source_file.Limiter`."""

    def __init__(self, throttle: Throttle, check: StopCheck) -> None:
        self._throttle = throttle
        self._check = check

    def block_size(self, most: int) -> int:
        """How many bytes to send next."""
        return self._throttle.block_size(most)

    def wait_for_bytes(self, size: int) -> None:
        """Wait until a number of bytes may be sent."""
        if self._throttle.limits.bandwidth:
            self._throttle.acquire(0, size, self._check)

    def wait_for_request(self) -> None:
        """Wait until one more request may be sent."""
        self._throttle.acquire(1, 0, self._check)

    def slow_down(self) -> None:
        """The target demands fewer requests."""
        self._throttle.slow_down()

    def max_parts(self, most: int) -> int:
        """How many parts may be in flight at once."""
        return self._throttle.max_parts(most)
