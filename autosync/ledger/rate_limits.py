"""Limits of one target that hold over the whole fleet: requests and bytes a second, and transfers in flight.

The scripts rate_limit.lua and inflight_slots.lua decide, on the server's own clock; this module calls them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..model.limits import Limits
from ..model.mirror import LEASE
from .store import LedgerPart, MirrorStore


class RateGrant(NamedTuple):
    """What `FleetLimits.reserve` returns: the limits, how many requests a second are allowed now (0: any number), and how many seconds to
    wait before what was reserved may be used."""

    limits: Limits
    requests: float
    wait: float


class FleetLimits(LedgerPart):
    """The limits of one target, shared by all worker processes of the fleet. Safe to use from many threads.

    Every method raises `BrokerError`: see `LedgerPart`.

    Args:
        store: the mirror's data in Redis.
    """

    def __init__(self, store: MirrorStore) -> None:
        super().__init__(store)
        names = store.names
        self._slot_keys = [names.definition, names.slots, names.slot_queue, names.slot_requests, names.wakeup_prefix]

    def read(self) -> Limits:
        """The limits that are set."""
        with self._store.errors():
            text: Any = self._client.hget(self._names.definition, "limits")
        return Limits.loads(text.decode()) if text else Limits()

    def set(self, limits: Limits, *, if_lost: bool = False) -> None:
        """Set the limits for the fleet; every worker has them within a second. Debts under the limits before are dropped.

        Args:
            limits: the limits that apply from now on.
            if_lost: only if Redis holds no limits, not even those of a mirror without any.
        """
        with self._store.errors():
            if if_lost:
                self._client.hsetnx(self._names.definition, "limits", limits.dumps())
                return
            pipe = self._client.pipeline()
            pipe.hset(self._names.definition, "limits", limits.dumps())
            pipe.hdel(self._names.rates, "requests", "bytes")
            pipe.execute()

    def reserve(self, requests: int = 0, size: int = 0, *, made: int = 0, slow: float | None = None) -> RateGrant:
        """Reserve requests and bytes of the fleet's share. Shares are granted in the order of the calls. The caller waits for
        `RateGrant.wait` before it uses its share.

        Args:
            requests: how many requests; less than 0 returns unused ones.
            size: how many bytes; less than 0 returns unused ones.
            made: how many requests were made since the last call.
            slow: the target demands fewer requests; how many a second this process has made lately. None: it demands nothing.
        """
        args = [made, requests, size, "" if slow is None else repr(slow)]
        limits, allowed, wait = self._store.run("rate_limit", args, [self._names.definition, self._names.rates])
        return RateGrant(Limits.loads(limits.decode()), float(allowed), wait / 1e6)

    def acquire_slots(self, process: str, slots: Sequence[str], lease: float = LEASE) -> int:
        """Acquire in-flight slots.

        Args:
            process: name of the process, with which the names of its slots begin. If no slot is free, the process waits in the queue until
                it gets one or calls `leave_queue`; one that does not call again for two seconds is passed over.
            slots: names for the slots.
            lease: how long the slots last without a renewal, in seconds.

        Returns:
            How many of the slots were acquired, the first ones; 0: call `wait_for_turn`, then try again.
        """
        return int(self._run_slots("acquire", process, slots, lease))

    def release_slots(self, process: str, slots: Sequence[str]) -> None:
        """Release slots."""
        self._run_slots("release", process, slots)

    def renew_slots(self, process: str, slots: Sequence[str], lease: float = LEASE) -> None:
        """Renew slots for another lease, in seconds. Those whose lease has run out stay lost."""
        self._run_slots("renew", process, slots, lease)

    def leave_queue(self, process: str) -> None:
        """Wait for a slot no more."""
        self._run_slots("leave_queue", process, ())

    def release_slots_of_dead(self, processes: str) -> None:
        """Release the slots of processes that are known to be dead: all whose names begin like this."""
        self._run_slots("release_of_dead", processes, ())

    def wait_for_turn(self, process: str, seconds: float) -> None:
        """Sleep until it is this process' turn to acquire slots, or until the seconds are over."""
        with self._store.errors():
            self._client.blpop([self._names.wakeup_prefix + process], timeout=seconds)

    def _run_slots(self, command: str, process: str, slots: Sequence[str], lease: float = 0.0) -> Any:
        return self._store.run("inflight_slots", [command, process, int(lease * 1000), *slots], self._slot_keys)
