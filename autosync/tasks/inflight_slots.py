"""The slots of this process. Each transfer in flight needs one, if the number of the fleet's transfers in flight at a target is limited."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..errors import BrokerError
from ..ledger import FleetLimits
from .waiting import BROKER_PAUSE, CHECK_INTERVAL, FairLock, StopCheck

log = logging.getLogger("autosync.transfer")


class InflightSlots:
    """The slots that this process has acquired. Safe to use from many threads; they queue up.

    Args:
        fleet_limits: the limits, as the fleet shares them.
        process: a name that no other process has.
        draining: set when the process is to end.
        lease: how long a slot lasts without a renewal, in seconds.
        is_limited: whether transfers in flight are limited now.
    """

    def __init__(
        self, fleet_limits: FleetLimits, process: str, draining: threading.Event, lease: float, is_limited: Callable[[], bool]
    ) -> None:
        self._fleet_limits = fleet_limits
        self._process = process
        self._draining = draining
        #: The lease of slots that are acquired or renewed from now on.
        self.lease = lease
        self._is_limited = is_limited
        self._lock = FairLock()
        self._numbers = itertools.count(1)
        self._slots: set[str] = set()

    @contextmanager
    def acquired(self, count: int, check: StopCheck) -> Iterator[int]:
        """Hold slots for transfers inside a with-block.

        Args:
            count: how many.
            check: called at least once a second while this waits; an error that it raises ends the waiting.

        Returns:
            The number of slots, at least one; `count` if there is no limit.
        """
        slots = self._acquire(count, check) if self._is_limited() else []
        try:
            yield len(slots) or count
        finally:
            self._release(slots)

    def renew(self) -> None:
        """Renew all slots.

        Raises:
            BrokerError: they may be lost.
        """
        slots = list(self._slots)
        if slots:
            self._fleet_limits.renew_slots(self._process, slots, self.lease)

    def _acquire(self, count: int, check: StopCheck) -> list[str]:
        """Wait for slots. Returns them; none if there is no limit any more."""
        slots = [f"{self._process} {next(self._numbers)}" for _ in range(count)]
        with self._lock:
            try:
                while self._is_limited():
                    check()
                    try:
                        acquired = self._fleet_limits.acquire_slots(self._process, slots, self.lease)
                        if acquired:
                            self._slots.update(slots[:acquired])
                            return slots[:acquired]
                        self._fleet_limits.wait_for_turn(self._process, CHECK_INTERVAL)
                    except BrokerError as error:
                        log.debug("no slot yet: %s", error)
                        self._draining.wait(BROKER_PAUSE)
            except BaseException:
                with suppress(BrokerError):  # then this process is passed over soon
                    self._fleet_limits.leave_queue(self._process)
                raise
        return []

    def _release(self, slots: list[str]) -> None:
        if slots:
            self._slots.difference_update(slots)
            with suppress(BrokerError):  # then they expire
                self._fleet_limits.release_slots(self._process, slots)
