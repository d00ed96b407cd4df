"""The renewal of the watcher's lock, and what a broker gets back that has lost its memory."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..feed.scanner import Scanner
from ..ledger import Ledger, MirrorStats
from ..ledger.watcher_lock import WatcherLock
from ..model.change import SCAN_ALL, Push
from ..model.limits import Limits
from ..state.root_memory import RootMemory
from ..watch.watcher import Watcher
from .registration import Registration
from .resend_orphans import OrphanResender

log = logging.getLogger(__name__)


class Heartbeat:
    """Renews the watcher's lock of one mirror. Not safe to use from many threads.

    Args:
        watcher_lock: the lock.
        ledger: the mirror's ledger.
        limits: those of the options, for a broker that has lost its own.
        registration: publishes the definition again.
        root_memory: writes the roots into the ledger again.
        orphans: sends the keys again whose messages are lost.
        scanner: counts the scans.
        push: receives requests for scans.
        begin_workers: called if there is work from before.
    """

    def __init__(
        self,
        watcher_lock: WatcherLock,
        ledger: Ledger,
        limits: Limits,
        registration: Registration,
        root_memory: RootMemory,
        orphans: OrphanResender,
        scanner: Scanner,
        push: Push,
        begin_workers: Callable[[], None],
    ) -> None:
        self._watcher_lock = watcher_lock
        self._ledger = ledger
        self._limits = limits
        self._registration = registration
        self._root_memory = root_memory
        self._orphans = orphans
        self._scanner = scanner
        self._push = push
        self._begin_workers = begin_workers
        self._watcher: Watcher | None = None
        self._sent_counters: dict[str, int] = {}
        #: Open multipart uploads, as of the last tick. They are put back into a broker that has lost its memory.
        self._uploads: dict[str, list[str]] = {}

    def start(self, watcher: Watcher | None) -> None:
        """Count the watches of a watcher from now on."""
        self._watcher = watcher

    def tick(self) -> MirrorStats:
        """As `renew`, and read the open uploads.

        Raises:
            BrokerError: the broker does not respond.
        """
        uploads = self._ledger.uploads.all()
        stats = self.renew()  # needs the open uploads of the tick before
        self._uploads = uploads
        return stats

    def renew(self) -> MirrorStats:
        """Renew the lock. If the broker has lost its memory, publish everything again and scan the whole source.

        Returns:
            The figures of the mirror, as they were before that.

        Raises:
            BrokerError: the broker does not respond.
        """
        stats = self._watcher_lock.renew(self._changed_counters())
        if stats.dirty:
            self._begin_workers()  # there may be messages from before, for which no new one would be sent soon
        before = self._registration.broker_generation
        if stats.broker_generation != before:
            lost = stats.broker_generation.partition(" ")[0] != before.partition(" ")[0]
            what = "has lost its memory" if lost else "was started again, and may have lost its last writes"
            log.warning("the broker %s: everything is scanned again", what)
            self._restore()
        return stats

    def _restore(self) -> None:
        for key, token in [(key, token) for key, tokens in self._uploads.items() for token in tokens]:
            self._ledger.uploads.add(key, token)
        self._orphans.requeue_unfinished()
        self._ledger.limits.set(self._limits, if_lost=True)  # others may have been set since
        self._registration.publish(self._registration.mirror)
        self._root_memory.lose_ledger()
        self._orphans.note_loss()  # workers did not find the definition, or their messages are gone
        self._push((SCAN_ALL,))

    def _changed_counters(self) -> dict[str, int]:
        """Figures for operators that have changed since the last tick, by their names in the ledger."""
        now = {"looks": self._scanner.state.scans}
        if self._watcher:
            now |= {"watches": self._watcher.watches(), "unwatched": self._watcher.unwatched}
        changed = {name: count for name, count in now.items() if self._sent_counters.get(name) != count}
        self._sent_counters = now
        return changed
