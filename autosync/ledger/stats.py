"""The figures of a mirror: numbers of dirty, claimed and failed keys, and totals since the mirror exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..model.mirror import LONGEST_WATCHER_LEASE
from .entries import MirrorStats
from .store import LedgerPart, MirrorStore


class Stats(LedgerPart):
    """The figures of one mirror, read without taking part in it. Every method raises `BrokerError`: see `LedgerPart`."""

    def read(self) -> MirrorStats:
        """The figures by now. `holder` is "" if there is no watcher."""
        return run_heartbeat(self._store, "", {}, LONGEST_WATCHER_LEASE)

    def counters(self) -> dict[str, int]:
        """Numbers that are counted since the mirror exists, by the names in mark_dirty.lua."""
        with self._store.errors():
            found = cast(dict[bytes, bytes], self._client.hgetall(self._names.counters))
        return {name.decode(): int(count) for name, count in found.items()}


def run_heartbeat(store: MirrorStore, holder: str, counters: Mapping[str, int], lease: float) -> MirrorStats:
    """Run watcher_heartbeat.lua.

    Args:
        store: the mirror's data in Redis.
        holder: acquires or renews the watcher's lock; "" to read only the figures.
        counters: written if `holder` has the lock.
        lease: how long the lock lasts without a renewal, in seconds.
    """
    names = store.names
    args = [holder, int(lease * 1000), *(word for pair in counters.items() for word in pair)]
    found = store.run("watcher_heartbeat", args, [names.watcher, *names.script_keys, names.requests, names.denied])
    holder_now, generation, dirty, waiting, failed, files, size, deleted, lag, paused, requests, disputed, unresolved, denied = found
    return MirrorStats(
        holder_now.decode(),
        generation.decode(),
        dirty,
        waiting,
        failed,
        files,
        size,
        deleted,
        lag / 1000,
        paused=bool(paused),
        requests=requests,
        disputed=disputed,
        unresolved=unresolved,
        denied=denied,
    )
