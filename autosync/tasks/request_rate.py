"""Measures how many requests this process makes, and how many a second."""

from __future__ import annotations

import time

#: A rate is not measured over less than this, in seconds.
_SHORTEST_MEASUREMENT = 0.1


class RequestRate:
    """Counts the requests of this process, and measures their rate."""

    def __init__(self) -> None:
        # Number of requests that were made, and the number of them that the fleet has counted.
        self._made = self._reported = 0
        # Number of requests until the last measurement, its time, the time of the first request since, and the measured rate.
        self._made_before, self._measured_at, self._first, self._rate = 0, time.monotonic(), 0.0, 0.0

    def add(self, requests: int) -> None:
        """Add requests to the count."""
        if self._made == self._made_before:
            self._first = time.monotonic()
        self._made += requests

    def subtract(self, requests: int) -> None:
        """Remove requests from the count: they were not made."""
        self._made -= requests

    def pop_unreported(self) -> int:
        """The number of requests that were counted since the last call."""
        made, self._reported = self._made - self._reported, self._made
        return max(made, 0)

    def measure(self) -> float:
        """The number of requests a second that this process has made lately."""
        now, made = time.monotonic(), self._made
        rate = (made - self._made_before) / max(now - self._first, _SHORTEST_MEASUREMENT)
        if now - self._measured_at < 1.0:
            return max(self._rate, rate)
        self._rate = rate
        self._made_before, self._measured_at = made, now
        return rate
