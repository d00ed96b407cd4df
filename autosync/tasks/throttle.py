"""How this process keeps to the limits of a target, together with all other processes of the fleet.

Without limits, no request to the broker is made. With limits, the threads of a process queue up. The first of them reserves its next share
at the broker and waits until the share is due. So each process waits for one small share at any moment, all processes get as much as each
other, and a process that is killed loses one share at most.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import BrokerError
from ..ledger import FleetLimits, RateGrant
from ..model.limits import Limits
from ..model.mirror import LEASE
from .inflight_slots import InflightSlots
from .request_rate import RequestRate
from .streams import Streams
from .waiting import BROKER_PAUSE, CHECK_INTERVAL, FairLock, StopCheck

log = logging.getLogger("autosync.transfer")

#: A share lasts for so long, in seconds: at 10,000 requests a second, one reservation for each request would be the bottleneck.
_SHARE_SECONDS = 0.02
#: A thread works on as many small files in a row as may be sent in this time, in seconds.
_CHUNK_SECONDS = 0.05
#: No small file is larger than this, in bytes.
_SMALL = 64 << 10
#: Content of large files is sent in blocks that may be sent in this time, in seconds; and between these sizes, in bytes.
_BLOCK_SECONDS, _SMALLEST_BLOCK, _LARGEST_BLOCK = 0.05, 4 << 10, 256 << 10


class Throttle:
    """The limits of one target, for one process.

    Args:
        fleet_limits: the limits, as the fleet shares them.
        process: a name that no other process has.
        draining: set when the process is to end.
        lease: how long a slot in flight lasts without a renewal, in seconds.
    """

    def __init__(self, fleet_limits: FleetLimits, process: str, draining: threading.Event, lease: float = LEASE) -> None:
        self._fleet_limits = fleet_limits
        self._draining = draining
        self.limits = Limits()
        #: Whether there are limits.
        self.is_on = False
        self._allowed = 0.0
        self._rate = RequestRate()
        self._slowed_at = float("-inf")
        self._share_lock = FairLock()
        # Shares that are reserved and not used yet.
        self._requests = self._bytes = 0
        self._unused: deque[tuple[int, int]] = deque()
        #: The slots for transfers in flight.
        self.slots = InflightSlots(fleet_limits, process, draining, lease, lambda: bool(self.limits.inflight))
        self._streams = Streams(lambda: self.limits.bandwidth)

    def refresh(self) -> None:
        """Read the current limits from the broker.

        Raises:
            BrokerError: the broker does not respond.
        """
        self._rate.measure()
        self._reserve()

    def slow_down(self) -> None:
        """Slow the whole fleet down, once a second at most: the target demands fewer requests."""
        now = time.monotonic()
        if now - self._slowed_at < 1.0:
            return
        self._slowed_at = now
        with suppress(BrokerError):  # the next request that is refused tries again
            was_on = self.is_on
            self._reserve(slow=self._rate.measure())
            if not was_on:
                log.warning("the target demands fewer requests: the fleet goes on with %.3g a second, and then with more", self._allowed)

    # Requests and bytes

    def acquire(self, requests: int, size: int, check: StopCheck) -> None:
        """Wait until requests may be sent.

        Args:
            requests: how many.
            size: how many bytes.
            check: called at least once a second; an error that it raises ends the waiting.
        """
        if self.is_on:
            with self._share_lock:
                self._reserve_missing(requests, size, check)
                self._requests = max(self._requests - requests, 0)
                self._bytes = max(self._bytes - size, 0)
        self.count(requests)

    def count(self, requests: int) -> None:
        """Count requests that are made."""
        self._rate.add(requests)

    def release(self, requests: int, size: int) -> None:
        """Return requests and bytes that were acquired and are not needed."""
        self._rate.subtract(requests)
        if self.is_on:
            self._unused.append((requests, size))

    def chunk_size(self, most: int) -> int:
        """How many small files a thread works on at a time, at most `most`."""
        if self.limits.inflight:
            most = min(most, self.limits.inflight)
        if self._allowed:
            most = min(most, int(self._allowed * _CHUNK_SECONDS))
        if self.limits.bandwidth:
            most = min(most, int(self.limits.bandwidth * _CHUNK_SECONDS / _SMALL))
        return max(1, most)

    def block_size(self, most: int) -> int:
        """How many bytes of a large file are sent at a time, at most `most`."""
        if not self.limits.bandwidth:
            return most
        return min(most, max(_SMALLEST_BLOCK, min(int(self.limits.bandwidth * _BLOCK_SECONDS), _LARGEST_BLOCK)))

    def max_parts(self, most: int) -> int:
        """How many parts of a large file may be in flight at once, at most `most`. A file is one transfer, so it is one part where
        transfers are limited."""
        return 1 if self.limits.inflight else min(most, self._streams.max_open())

    # Transfers

    @contextmanager
    def in_flight(self, count: int, check: StopCheck, *, large: bool) -> Iterator[int]:
        """Have transfers in flight.

        Args:
            count: how many.
            check: called at least once a second while this waits; an error that it raises ends the waiting.
            large: whether they are of a large file.

        Returns:
            How many there may be: one at least.
        """
        with self._streams.opened(count if large else 0, check), self.slots.acquired(count, check) as allowed:
            yield allowed

    # The broker

    def _reserve_missing(self, requests: int, size: int, check: StopCheck) -> None:
        """Reserve until as much is at hand as is needed. The thread that has the lock calls this."""
        while True:
            while self._unused:
                unused = self._unused.popleft()
                self._requests, self._bytes = self._requests + unused[0], self._bytes + unused[1]
            limits = self.limits
            missing = _missing(requests, self._requests, self._allowed), _missing(size, self._bytes, limits.bandwidth)
            if not any(missing):
                return
            try:
                wait = self._reserve(*missing).wait
            except BrokerError as error:
                log.debug("no share yet: %s", error)
                check()
                self._draining.wait(BROKER_PAUSE)
                continue
            if self._wait(wait, missing, check):
                self._requests, self._bytes = self._requests + missing[0], self._bytes + missing[1]

    def _wait(self, seconds: float, share: tuple[int, int], check: StopCheck) -> bool:
        """Wait until a share is due. False: the limits have changed meanwhile, so the share is void."""
        limits, until = self.limits, time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                check()
                self._draining.wait(min(left, CHECK_INTERVAL))
                if self.limits != limits:
                    return False
        except BaseException:
            with suppress(BrokerError):
                self._reserve(-share[0], -share[1])
            raise
        return True

    def _reserve(self, requests: int = 0, size: int = 0, *, slow: float | None = None) -> RateGrant:
        grant = self._fleet_limits.reserve(requests, size, made=self._rate.pop_unreported(), slow=slow)
        if grant.limits != self.limits:
            self._requests = self._bytes = 0
        self.limits, self._allowed = grant.limits, grant.requests
        self.is_on = self.limits != Limits() or self._allowed > 0
        return grant


def _missing(wanted: int, at_hand: int, a_second: float) -> int:
    """How much to reserve."""
    return 0 if not a_second or wanted <= at_hand else max(wanted - at_hand, int(a_second * _SHARE_SECONDS))
