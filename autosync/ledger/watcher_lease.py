"""The lease that the one watcher of a mirror holds in Redis, and renews with each heartbeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..model.mirror import LONGEST_LOCK
from .connection import server_run_id
from .entries import MirrorStats
from .stats import run_heartbeat
from .store import MirrorStore


class WatcherLease:
    """The watcher's lease of one mirror; `WatcherLock` decides when to acquire it.

    Every method raises `BrokerError` when Redis does not answer or answers with an error.

    Args:
        store: the mirror's data in Redis.
    """

    def __init__(self, store: MirrorStore) -> None:
        self._store = store
        self._client = store.client
        self._name = store.names.watcher

    def heartbeat(self, holder: str, counters: Mapping[str, int] | None = None, lock: float = LONGEST_LOCK) -> MirrorStats:
        """Acquire or renew the lease, and read the mirror's figures. Their `holder` differs if another process has the lease.

        Args:
            holder: identifies the process that acquires it.
            counters: numbers for `Stats.counters`, written if `holder` has the lease.
            lock: how long the lease lasts without a renewal, in seconds.
        """
        stats = run_heartbeat(self._store, holder, counters or {}, lock)
        with self._store.errors():
            run_id = server_run_id(self._client)
        return replace(stats, broker_generation=f"{stats.broker_generation} {run_id}")

    def holder(self) -> tuple[str, float] | None:
        """The owner of the lease, and for how many seconds the lease still lasts; None if there is none."""
        with self._store.errors():
            pipe = self._client.pipeline()
            pipe.get(self._name)
            pipe.pttl(self._name)
            holder, left = pipe.execute()
        return (holder.decode(), max(left, 0) / 1000) if holder else None

    def release(self, holder: str) -> None:
        """End the lease, if `holder` has it."""
        with self._store.errors():
            if self._client.get(self._name) == holder.encode():
                self._client.delete(self._name)
