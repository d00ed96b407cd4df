"""How this process keeps to the limits of a target, together with all other processes of the fleet.

Without limits, no request to the broker is made. With limits, the threads of a process queue up. The first of them reserves its next share
at the broker and waits until the share is due. So each process waits for one small share at any moment, all processes get as much as each
other, and a process that is killed loses one share at most.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from ..errors import BrokerError
from ..ledger import FleetLimits, RateGrant
from ..model.limits import Limits
from ..model.mirror import LEASE

log = logging.getLogger("autosync.transfer")

#: A share lasts for so long, in seconds: at 10,000 requests a second, one reservation for each request would be the bottleneck.
_SHARE_SECONDS = 0.02
#: A thread works on as many small files in a row as may be sent in this time, in seconds.
_CHUNK_SECONDS = 0.05
#: No small file is larger than this, in bytes.
_SMALL = 64 << 10
#: Content of large files is sent in blocks that may be sent in this time, in seconds; and between these sizes, in bytes.
_BLOCK_SECONDS, _SMALLEST_BLOCK, _LARGEST_BLOCK = 0.05, 4 << 10, 256 << 10
#: One stream for each so many bytes a second, and one at least: each of more streams would pause for so long that servers hang up.
_STREAM_RATE = 1 << 20
_MAX_STREAMS = 16
#: A rate is not measured over less than this, in seconds.
_SHORTEST_MEASUREMENT = 0.1
#: So often a waiting thread checks whether it still has to wait, in seconds.
_CHECK_INTERVAL = 1.0
_BROKER_PAUSE = 0.5

#: Raises an error that ends a transfer: the worker is being stopped, or the claim is lost.
StopCheck = Callable[[], None]


class _FairLock:
    """A lock that threads get in the order in which they came. (One of threading's may go to the same thread again and again.)"""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._is_locked = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._is_locked:
                self._is_locked = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_locked = False


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
        self._process = process
        self._draining = draining
        #: Of slots that are acquired or renewed from now on.
        self.lease = lease
        self.limits = Limits()
        #: Whether there are limits.
        self.is_on = False
        self._allowed = 0.0
        # Requests that were made, and how many of them the fleet has counted.
        self._made = self._reported = 0
        # For the rate of this process: requests until the last measurement, its time, and the time of the first request since.
        self._made_before, self._measured_at, self._first, self._rate = 0, time.monotonic(), 0.0, 0.0
        self._slowed_at = float("-inf")
        self._share_lock = _FairLock()
        # Shares that are reserved and not used yet.
        self._requests = self._bytes = 0
        self._unused: deque[tuple[int, int]] = deque()
        self._slot_lock = _FairLock()
        self._slot_numbers = itertools.count(1)
        self._slots: set[str] = set()
        self._streams = 0
        self._fewer_streams = threading.Condition()

    def refresh(self) -> None:
        """Read the current limits from the broker.

        Raises:
            BrokerError: the broker did not answer.
        """
        self._measure_rate()
        self._reserve()

    def slow_down(self) -> None:
        """Slow the whole fleet down, once a second at most: the target demands fewer requests."""
        now = time.monotonic()
        if now - self._slowed_at < 1.0:
            return
        self._slowed_at = now
        with suppress(BrokerError):  # the next request that is refused tries again
            was_on = self.is_on
            self._reserve(slow=self._measure_rate())
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
        if self._made == self._made_before:
            self._first = time.monotonic()
        self._made += requests

    def release(self, requests: int, size: int) -> None:
        """Return requests and bytes that were acquired and are not needed."""
        self._made -= requests
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
        return 1 if self.limits.inflight else min(most, self._max_streams())

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
        streams = count if large else 0
        with self._stream(streams, check):
            slots = self._acquire_slots(count, check) if self.limits.inflight else []
            try:
                yield len(slots) or count
            finally:
                self._release_slots(slots)

    def renew_slots(self) -> None:
        """Renew the slots of this process.

        Raises:
            BrokerError: they may be lost.
        """
        slots = list(self._slots)
        if slots:
            self._fleet_limits.renew_slots(self._process, slots, self.lease)

    @contextmanager
    def _stream(self, count: int, check: StopCheck) -> Iterator[None]:
        with self._fewer_streams:
            while count and self._streams >= self._max_streams():
                check()
                self._fewer_streams.wait(_CHECK_INTERVAL)
            self._streams += count
        try:
            yield
        finally:
            with self._fewer_streams:
                self._streams -= count
                self._fewer_streams.notify()

    def _max_streams(self) -> int:
        bandwidth = self.limits.bandwidth
        return max(1, min(int(bandwidth / _STREAM_RATE), _MAX_STREAMS)) if bandwidth else 1 << 30

    def _acquire_slots(self, count: int, check: StopCheck) -> list[str]:
        """Empty: there is no limit any more."""
        slots = [f"{self._process} {next(self._slot_numbers)}" for _ in range(count)]
        with self._slot_lock:
            try:
                while self.limits.inflight:
                    check()
                    try:
                        acquired = self._fleet_limits.acquire_slots(self._process, slots, self.lease)
                        if acquired:
                            self._slots.update(slots[:acquired])
                            return slots[:acquired]
                        self._fleet_limits.wait_for_turn(self._process, _CHECK_INTERVAL)
                    except BrokerError as error:
                        log.debug("no slot yet: %s", error)
                        self._draining.wait(_BROKER_PAUSE)
            except BaseException:
                with suppress(BrokerError):  # then this process is passed over soon
                    self._fleet_limits.leave_queue(self._process)
                raise
        return []

    def _release_slots(self, slots: list[str]) -> None:
        if slots:
            self._slots.difference_update(slots)
            with suppress(BrokerError):  # then they expire
                self._fleet_limits.release_slots(self._process, slots)

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
                self._draining.wait(_BROKER_PAUSE)
                continue
            if self._wait(wait, missing, check):
                self._requests, self._bytes = self._requests + missing[0], self._bytes + missing[1]

    def _wait(self, seconds: float, share: tuple[int, int], check: StopCheck) -> bool:
        """Wait until a share is due. False: the limits have changed meanwhile, so the share is void."""
        limits, until = self.limits, time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                check()
                self._draining.wait(min(left, _CHECK_INTERVAL))
                if self.limits != limits:
                    return False
        except BaseException:
            with suppress(BrokerError):
                self._reserve(-share[0], -share[1])
            raise
        return True

    def _reserve(self, requests: int = 0, size: int = 0, *, slow: float | None = None) -> RateGrant:
        made, self._reported = self._made - self._reported, self._made
        grant = self._fleet_limits.reserve(requests, size, made=max(made, 0), slow=slow)
        if grant.limits != self.limits:
            self._requests = self._bytes = 0
        self.limits, self._allowed = grant.limits, grant.requests
        self.is_on = self.limits != Limits() or self._allowed > 0
        return grant

    def _measure_rate(self) -> float:
        """How many requests a second this process has made lately."""
        now, made = time.monotonic(), self._made
        rate = (made - self._made_before) / max(now - self._first, _SHORTEST_MEASUREMENT)
        if now - self._measured_at < 1.0:
            return max(self._rate, rate)
        self._rate = rate
        self._made_before, self._measured_at = made, now
        return rate


class Reservation:
    """Requests and bytes for the few files of a chunk, acquired all at once: a thread that queued up for each file would keep the share of
    the first unused while it waits for that of the last.

    Args:
        throttle: of the target.
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
        """Return all that is left."""
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
        """Wait until so many bytes may be sent."""
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


def _missing(wanted: int, at_hand: int, a_second: float) -> int:
    """How much to reserve."""
    return 0 if not a_second or wanted <= at_hand else max(wanted - at_hand, int(a_second * _SHARE_SECONDS))
