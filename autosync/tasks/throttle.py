"""How this process keeps to the limits of a target, together with all others of the fleet.

Nothing is asked of anybody as long as there are no limits. Where there are, the threads of a process stand in line, and the first of them
takes what they need next from the broker and waits for its time. So each process waits for one small share at any moment, and all get as
much as each other. One share is all that is lost with a process that is killed.
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

#: Many small shares are taken at once, for so long, in seconds: at 10,000 requests a second, asking for each would be the limit.
_SHARE = 0.02
#: A thread takes so many small files in a row as may be sent in this time, in seconds.
_PIECE = 0.05
#: No small file is larger than this, in bytes.
_SMALL = 64 << 10
#: Content of large files is given out in blocks that may be sent in this time, in seconds; and between these sizes, in bytes.
_BLOCK, _SMALLEST_BLOCK, _LARGEST_BLOCK = 0.05, 4 << 10, 256 << 10
#: A stream for each so many bytes a second, and one at least: more at once would each stand still for so long that servers hang up.
_STREAM = 1 << 20
_MOST_STREAMS = 16
#: A rate is not measured over less than this, in seconds.
_SHORTEST = 0.1
#: So often a thread that waits sees whether it still has to, in seconds.
_GLANCE = 1.0
_BROKER_PAUSE = 0.5

#: Raises what stops a transfer.
GoOn = Callable[[], None]


class _Line:
    """A lock that threads get in the order in which they came. (One of threading's may go to the same thread again and again.)"""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
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
                self._taken = False


class Throttle:
    """The limits of one target, for one process.

    Args:
        fleet_limits: the limits, as the fleet shares them.
        process: its name, which no other has.
        draining: set when the process is to end.
        lease: how long a place in flight holds without being kept, in seconds.
    """

    def __init__(self, fleet_limits: FleetLimits, process: str, draining: threading.Event, lease: float = LEASE) -> None:
        self._fleet_limits = fleet_limits
        self._process = process
        self._draining = draining
        #: Of places that are taken or kept from now on.
        self.lease = lease
        self.limits = Limits()
        #: Whether there is anything to keep to.
        self.is_on = False
        self._allowed = 0.0
        # Requests that were made, and how many of them the fleet was told of.
        self._made = self._told = 0
        # For the rate of this process: what was made until the last look, when that was, and when the first was made since.
        self._made_before, self._looked, self._first, self._rate = 0, time.monotonic(), 0.0, 0.0
        self._slowed = float("-inf")
        self._line = _Line()
        # What was taken and is not used yet.
        self._requests = self._bytes = 0
        self._unused: deque[tuple[int, int]] = deque()
        self._door = _Line()
        self._numbers = itertools.count(1)
        self._places: set[str] = set()
        self._streams = 0
        self._fewer_streams = threading.Condition()

    def look(self) -> None:
        """See what the limits are by now.

        Raises:
            BrokerError: that cannot be known.
        """
        self._measure()
        self._ask()

    def slow_down(self) -> None:
        """The target has asked for fewer requests: the fleet is told, once a second at most."""
        now = time.monotonic()
        if now - self._slowed < 1.0:
            return
        self._slowed = now
        with suppress(BrokerError):  # the next one that is refused tells of it
            was_on = self.is_on
            self._ask(slow=self._measure())
            if not was_on:
                log.warning("the target asks for fewer requests: the fleet goes on with %.3g a second, and then with more", self._allowed)

    # Requests and bytes

    def take(self, requests: int, size: int, go_on: GoOn) -> None:
        """Wait until so many requests and bytes may be sent.

        Args:
            requests: so many.
            size: so many bytes.
            go_on: asked at least once a second; may raise to end the waiting.
        """
        if self.is_on:
            with self._line:
                self._fill(requests, size, go_on)
                self._requests = max(self._requests - requests, 0)
                self._bytes = max(self._bytes - size, 0)
        self.count(requests)

    def count(self, requests: int) -> None:
        """So many requests are made."""
        if self._made == self._made_before:
            self._first = time.monotonic()
        self._made += requests

    def put_back(self, requests: int, size: int) -> None:
        """What was taken was not needed."""
        self._made -= requests
        if self.is_on:
            self._unused.append((requests, size))

    def piece(self, most: int) -> int:
        """How many small files a thread takes at a time."""
        if self.limits.inflight:
            most = min(most, self.limits.inflight)
        if self._allowed:
            most = min(most, int(self._allowed * _PIECE))
        if self.limits.bandwidth:
            most = min(most, int(self.limits.bandwidth * _PIECE / _SMALL))
        return max(1, most)

    def block(self, most: int) -> int:
        """How many bytes of a large file are given out at a time."""
        if not self.limits.bandwidth:
            return most
        return min(most, max(_SMALLEST_BLOCK, min(int(self.limits.bandwidth * _BLOCK), _LARGEST_BLOCK)))

    def at_once(self, most: int) -> int:
        """How many parts of a large file may be on their way at once. A file is one transfer, so where these are counted it is one."""
        return 1 if self.limits.inflight else min(most, self._most_streams())

    # Transfers

    @contextmanager
    def transfers(self, count: int, go_on: GoOn, *, large: bool) -> Iterator[int]:
        """Have transfers in flight.

        Args:
            count: as many as this.
            go_on: asked at least once a second while this waits; may raise to end the waiting.
            large: of a large file.

        Returns:
            How many it may be: one at least.
        """
        streams = count if large else 0
        with self._stream(streams, go_on):
            places = self._take_places(count, go_on) if self.limits.inflight else []
            try:
                yield len(places) or count
            finally:
                self._give(places)

    def keep(self) -> None:
        """Keep the places that this process has.

        Raises:
            BrokerError: they may be lost.
        """
        places = list(self._places)
        if places:
            self._fleet_limits.renew_slots(self._process, places, self.lease)

    @contextmanager
    def _stream(self, count: int, go_on: GoOn) -> Iterator[None]:
        with self._fewer_streams:
            while count and self._streams >= self._most_streams():
                go_on()
                self._fewer_streams.wait(_GLANCE)
            self._streams += count
        try:
            yield
        finally:
            with self._fewer_streams:
                self._streams -= count
                self._fewer_streams.notify()

    def _most_streams(self) -> int:
        bandwidth = self.limits.bandwidth
        return max(1, min(int(bandwidth / _STREAM), _MOST_STREAMS)) if bandwidth else 1 << 30

    def _take_places(self, count: int, go_on: GoOn) -> list[str]:
        """Empty: there is no limit any more."""
        places = [f"{self._process} {next(self._numbers)}" for _ in range(count)]
        with self._door:
            try:
                while self.limits.inflight:
                    go_on()
                    try:
                        taken = self._fleet_limits.acquire_slots(self._process, places, self.lease)
                        if taken:
                            self._places.update(places[:taken])
                            return places[:taken]
                        self._fleet_limits.wait_for_turn(self._process, _GLANCE)
                    except BrokerError as error:
                        log.debug("no place yet: %s", error)
                        self._draining.wait(_BROKER_PAUSE)
            except BaseException:
                with suppress(BrokerError):  # then this process is passed over soon
                    self._fleet_limits.leave_queue(self._process)
                raise
        return []

    def _give(self, places: list[str]) -> None:
        if places:
            self._places.difference_update(places)
            with suppress(BrokerError):  # then they run out
                self._fleet_limits.release_slots(self._process, places)

    # What the fleet says

    def _fill(self, requests: int, size: int, go_on: GoOn) -> None:
        """Have so much at hand. Who is first in line does this."""
        while True:
            while self._unused:
                some = self._unused.popleft()
                self._requests, self._bytes = self._requests + some[0], self._bytes + some[1]
            limits = self.limits
            short = _short(requests, self._requests, self._allowed), _short(size, self._bytes, limits.bandwidth)
            if not any(short):
                return
            try:
                wait = self._ask(*short).wait
            except BrokerError as error:
                log.debug("no leave yet: %s", error)
                go_on()
                self._draining.wait(_BROKER_PAUSE)
                continue
            if self._wait(wait, short, go_on):
                self._requests, self._bytes = self._requests + short[0], self._bytes + short[1]

    def _wait(self, seconds: float, short: tuple[int, int], go_on: GoOn) -> bool:
        """Wait for a share. False: the limits are others by now, and so it is nothing any more."""
        limits, until = self.limits, time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                go_on()
                self._draining.wait(min(left, _GLANCE))
                if self.limits != limits:
                    return False
        except BaseException:
            with suppress(BrokerError):
                self._ask(-short[0], -short[1])
            raise
        return True

    def _ask(self, requests: int = 0, size: int = 0, *, slow: float | None = None) -> RateGrant:
        made, self._told = self._made - self._told, self._made
        answer = self._fleet_limits.reserve(requests, size, made=max(made, 0), slow=slow)
        if answer.limits != self.limits:
            self._requests = self._bytes = 0
        self.limits, self._allowed = answer.limits, answer.requests
        self.is_on = self.limits != Limits() or self._allowed > 0
        return answer

    def _measure(self) -> float:
        """How many requests a second this process has made lately."""
        now, made = time.monotonic(), self._made
        rate = (made - self._made_before) / max(now - self._first, _SHORTEST)
        if now - self._looked < 1.0:
            return max(self._rate, rate)
        self._rate = rate
        self._made_before, self._looked = made, now
        return rate


class Reservation:
    """What is taken for the few files that a thread looks at in a row: all at once, since whoever stood in line for each of them would
    hold back the shares of the first while it waits for the last.

    Args:
        pace: of the target.
        files: how many there are.
    """

    __slots__ = ("_bytes", "_left", "_pace", "_requests")

    def __init__(self, pace: Throttle, files: int) -> None:
        self._pace = pace
        self._left = files
        self._requests = self._bytes = 0

    def next(self) -> None:
        """The next file is looked at."""
        self._left -= 1

    def pay(self, size: int, go_on: GoOn) -> None:
        """Wait until one request may be sent, with so many bytes. Those that are yet to be looked at are taken to be alike."""
        alike = max(self._left, 0) + 1
        requests = 0 if self._requests else alike
        more = max(size - self._bytes, 0) * (alike if requests else 1)
        if requests or more:
            self._pace.take(requests, more, go_on)
        self._requests += requests - 1
        self._bytes += more - size

    def put_back(self, size: int) -> None:
        """The last was not needed."""
        self._requests += 1
        self._bytes += size

    def close(self) -> None:
        """Nobody needs the rest."""
        if self._requests or self._bytes:
            self._pace.put_back(self._requests, self._bytes)
            self._requests = self._bytes = 0


class BandwidthLimiter:
    """The pace of one large file: see `autosync.source.source_file.BandwidthLimiter`."""

    def __init__(self, pace: Throttle, go_on: GoOn) -> None:
        self._pace = pace
        self._go_on = go_on

    def block(self, most: int) -> int:
        """How many bytes to give out next."""
        return self._pace.block(most)

    def give(self, size: int) -> None:
        """Wait until so many bytes may go."""
        if self._pace.limits.bandwidth:
            self._pace.take(0, size, self._go_on)

    def ask(self) -> None:
        """Wait until one more request may be sent."""
        self._pace.take(1, 0, self._go_on)

    def refused(self) -> None:
        """The target has asked for fewer requests."""
        self._pace.slow_down()

    def at_once(self, most: int) -> int:
        """How many parts may be on their way at once."""
        return self._pace.at_once(most)


def _short(wanted: int, at_hand: int, a_second: float) -> int:
    """How much to take."""
    return 0 if not a_second or wanted <= at_hand else max(wanted - at_hand, int(a_second * _SHARE))
