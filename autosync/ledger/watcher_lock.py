"""One watcher for each mirror: its lock in Redis, and how a process acquires that, also from a watcher that has died."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..errors import BrokerError, StartError
from ..model.mirror import LONGEST_WATCHER_LEASE
from ..process.process_state import is_running, namespaces, stat_of
from .entries import MirrorStats
from .redis_connection import server_run_id
from .stats import run_heartbeat
from .store import LedgerPart

_PAUSE = 0.5


class WatcherLockEntry(LedgerPart):
    """The watcher's lock in Redis; `WatcherLock` decides when to acquire it. Every method raises `BrokerError`: see `LedgerPart`."""

    def heartbeat(self, holder: str, counters: Mapping[str, int] | None = None, lease: float = LONGEST_WATCHER_LEASE) -> MirrorStats:
        """Acquire or renew the lock, and read the mirror's figures. Their `holder` differs if another process has the lock.

        Args:
            holder: identifies the process that acquires it.
            counters: numbers for `Stats.counters`, written if `holder` has the lock.
            lease: how long the lock lasts without a renewal, in seconds.
        """
        stats = run_heartbeat(self._store, holder, counters or {}, lease)
        with self._store.errors():
            run_id = server_run_id(self._client)
        return replace(stats, broker_generation=f"{stats.broker_generation} {run_id}")

    def holder(self) -> tuple[str, float] | None:
        """The holder of the lock, and for how many seconds its lease still lasts; None if there is none."""
        with self._store.errors():
            pipe = self._client.pipeline()
            pipe.get(self._names.watcher)
            pipe.pttl(self._names.watcher)
            holder, left = pipe.execute()
        return (holder.decode(), max(left, 0) / 1000) if holder else None

    def release(self, holder: str) -> None:
        """Release the lock, if `holder` has it."""
        with self._store.errors():
            if self._client.get(self._names.watcher) == holder.encode():
                self._client.delete(self._names.watcher)


class WatcherLock:
    """The lock that this process holds as the only watcher of a mirror.

    Args:
        entry: the mirror's entry in Redis.
        mirror: the mirror's name, for messages.
        boot: the boot id of this host.
        lease: how long the lock lasts without a renewal, in seconds.
        has_broker_alone: whether the broker serves only this process and its children. Then every other holder is dead.
    """

    def __init__(self, entry: WatcherLockEntry, mirror: str, boot: str, lease: float, *, has_broker_alone: bool = False) -> None:
        self._entry = entry
        self._mirror = mirror
        self._boot = boot
        self._lease = lease
        self._has_broker_alone = has_broker_alone
        self._namespaces = namespaces()
        own = stat_of(os.getpid())
        fields = {
            "host": socket.gethostname(), "pid": os.getpid(), "boot": boot, "started": time.time(),
            "start_time": own.start_time if own else None, "namespaces": self._namespaces,
        }  # fmt: skip
        self._holder = json.dumps(fields)

    def acquire(self, stop: threading.Event) -> bool:
        """Acquire the lock. If its holder is a dead process of this host and PID namespace, the lock is free; otherwise it is free
        when its lease has expired.

        Args:
            stop: ends the waiting.

        Returns:
            Whether the lock was acquired; False if `stop` was set first.

        Raises:
            StartError: another process holds it.
            BrokerError: the broker does not respond.
        """
        until = time.monotonic() + LONGEST_WATCHER_LEASE + 1  # the holder's lease may be longer than this one's
        left_before = None
        while True:
            owner = self.heartbeat().holder
            if owner == self._holder:
                return True
            holder = _parse(owner)
            running = self._is_running(holder)
            if running is False:
                self._entry.release(owner)
                continue
            found = self._entry.holder()
            renewed = found is not None and left_before is not None and found[1] > left_before
            if renewed or running or time.monotonic() > until:
                raise StartError(
                    f"mirror {self._mirror} is already watched by process {holder.get('pid')} on {holder.get('host')}",
                    "stop that one, or give this one another --name",
                )
            left_before = found[1] if found else None
            if stop.wait(_PAUSE):
                return False

    def renew(self, counters: Mapping[str, int] | None = None) -> MirrorStats:
        """Renew the lock, and read the mirror's figures.

        Args:
            counters: numbers for operators; see `WatcherLockEntry.heartbeat`.

        Raises:
            StartError: another process has acquired it.
            BrokerError: the broker does not respond.
        """
        stats = self._entry.heartbeat(self._holder, counters, self._lease)
        holder = _parse(stats.holder)
        if stats.holder != self._holder and self._is_running(holder) is False:
            # A broker that was killed has come back with older memory.
            self._entry.release(stats.holder)
            stats = self._entry.heartbeat(self._holder, counters, self._lease)
            holder = _parse(stats.holder)
        if stats.holder != self._holder:
            raise StartError(f"mirror {self._mirror} was taken over by process {holder.get('pid')} on {holder.get('host')}")
        return stats

    def heartbeat(self) -> MirrorStats:
        """The mirror's figures. Acquires the lock if it is free, and renews it if this process holds it. Else `holder` is another one.

        Raises:
            BrokerError: the broker does not respond.
        """
        return self._entry.heartbeat(self._holder, lease=self._lease)

    def release(self) -> None:
        """Release the lock. If the broker does not respond, the lease runs out by itself."""
        with suppress(BrokerError):
            self._entry.release(self._holder)

    def _is_running(self, holder: dict[str, Any]) -> bool | None:
        """Whether the holder is a running process other than this one. None if this cannot be found out here; then the lease decides."""
        pid, start_time = holder.get("pid"), holder.get("start_time")
        if self._has_broker_alone:
            return False
        if not self._sees_process_of(holder) or type(pid) is not int or pid <= 0:
            return None
        if pid == os.getpid():
            return False  # it had the process id that this process has now
        return is_running(pid, start_time if type(start_time) is int else None)

    def _sees_process_of(self, holder: dict[str, Any]) -> bool:
        """Whether the process id of a holder is valid here. Older versions wrote no namespaces; then another host name on the same boot is
        a container with process ids of its own."""
        if holder.get("boot") != self._boot:
            return False
        theirs: object = holder.get("namespaces")
        if theirs is not None:
            return theirs == self._namespaces and self._namespaces != ""
        return holder.get("host") == socket.gethostname()


def _parse(holder: str) -> dict[str, Any]:
    """The fields of a holder; none if another program wrote it."""
    try:
        found = json.loads(holder)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}
