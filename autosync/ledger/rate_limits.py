"""Limits of one target that hold over the whole fleet: how fast requests and bytes may go, and how many transfers at once.

The scripts pace.lua and places.lua decide, on the server's own clock; here is how they are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from ..model.limits import Limits
from ..model.mirror import LEASE
from .connection import broker_errors
from .scripts import Scripts


class Paced(NamedTuple):
    """What `FleetLimits.pace` returns: the limits, how many requests a second are allowed now (0: any number), and how many seconds to wait
    before what was taken may be used."""

    limits: Limits
    requests: float
    wait: float


class FleetLimits:
    """What the worker processes of the fleet pass through on their way to one target. Safe to use from many threads.

    Every method raises `BrokerError` when Redis does not answer or answers with an error.

    Args:
        client: a connection to the broker.
        scripts: of the ledger.
        base: how the names of the mirror's keys in Redis begin.
    """

    def __init__(self, client: redis.Redis, scripts: Scripts, base: str) -> None:
        self._client = client
        self._scripts = scripts
        self._pace = [base + "mirror", base + "pace"]
        self._bell = base + "bell:"
        self._places = [base + part for part in ("mirror", "places", "queue", "asking")] + [self._bell]

    @property
    def keys(self) -> list[str]:
        """The keys in Redis that are its own, but for those that vanish by themselves."""
        return [self._pace[1], *self._places[1:4]]

    def limits(self) -> Limits:
        """The limits that are set."""
        with broker_errors(self._client):
            text: Any = self._client.hget(self._pace[0], "limits")
        return Limits.loads(text.decode()) if text else Limits()

    def set_limits(self, limits: Limits, *, if_lost: bool = False) -> None:
        """Set the limits for everybody. Debts under the ones before are forgotten.

        Args:
            limits: from now on.
            if_lost: only if Redis knows of none, not even that there are to be none.
        """
        with broker_errors(self._client):
            if if_lost:
                self._client.hsetnx(self._pace[0], "limits", limits.dumps())
                return
            pipe = self._client.pipeline()
            pipe.hset(self._pace[0], "limits", limits.dumps())
            pipe.hdel(self._pace[1], "requests", "bytes")
            pipe.execute()

    def pace(self, requests: int = 0, size: int = 0, *, made: int = 0, slow: float | None = None) -> Paced:
        """Take a share of what the fleet may do. It is given in the order of asking; whoever gets it waits until its time has come.

        Args:
            requests: so many; less than 0 gives back what was not used.
            size: so many bytes, likewise.
            made: so many requests were made since this was said last.
            slow: the target asks for fewer requests; this process has made so many a second lately.
        """
        with broker_errors(self._client):
            limits, allowed, wait = self._scripts.run("pace", self._pace, [made, requests, size, "" if slow is None else repr(slow)])
        return Paced(Limits.loads(limits.decode()), float(allowed), wait / 1e6)

    def take(self, process: str, places: Sequence[str], lease: float = LEASE) -> int:
        """Take places for transfers.

        Args:
            process: its name, with which all names of its places begin. If there are none it stands in the queue until it gets some or
                `leave`s; who does not ask for two seconds is passed over.
            places: names for them.
            lease: how long they hold without being kept, in seconds.

        Returns:
            How many were taken, the first ones; 0: `wait`, and ask again.
        """
        return int(self._ask("take", process, places, lease))

    def give(self, process: str, places: Sequence[str]) -> None:
        """Give places up."""
        self._ask("give", process, places)

    def keep(self, process: str, places: Sequence[str], lease: float = LEASE) -> None:
        """Keep places for another lease, in seconds. Those that have run out already stay lost."""
        self._ask("keep", process, places, lease)

    def leave(self, process: str) -> None:
        """Wait no more."""
        self._ask("leave", process, ())

    def forfeit(self, processes: str) -> None:
        """Free the places of processes that are known to be dead: all whose names begin like this."""
        self._ask("forfeit", processes, ())

    def wait(self, process: str, seconds: float) -> None:
        """Sleep until it is this process' turn to take places, or for so many seconds."""
        with broker_errors(self._client):
            self._client.blpop([self._bell + process], timeout=seconds)

    def _ask(self, what: str, process: str, places: Sequence[str], lease: float = 0.0) -> Any:
        with broker_errors(self._client):
            return self._scripts.run("places", self._places, [what, process, int(lease * 1000), *places])
