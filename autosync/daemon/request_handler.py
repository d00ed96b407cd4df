"""The requests of operators by `autosync-ctl`: scans, flush points, acceptance and pauses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from ..ledger import ACCEPT, SCAN, MirrorStats
from ..ledger.operator_requests import OperatorRequests
from ..ledger.watcher_lock import WatcherLock
from ..model.change import SCAN_ALL, Change, Kind
from ..state import pending
from ..state.state_file import StateFile
from ..watch.debounce import Debouncer
from ..watch.flush import FlushPoints
from ..watch.hard_link_scans import HardLinkScans
from ..watch.watcher import Watcher

log = logging.getLogger(__name__)


class RequestHandler:
    """Handles the requests for one mirror. Not safe to use from many threads.

    Args:
        mirror: the mirror's name.
        requests: those in the ledger.
        file: those of operators whose broker did not respond.
        watcher_lock: publishes for how many files a flush point lacks names.
        debouncer: receives requested scans.
        hard_link_scans: request the scan that a flush point needs.
        accept_deletions: accepts the deletion of a set of keys, by its digest.
        accept_root: accepts a root or a mount point.
        accepted: stores what is accepted until it is carried out.
        about: prefix of log lines, where there are several mirrors.
    """

    def __init__(
        self,
        mirror: str,
        requests: OperatorRequests,
        file: StateFile,
        watcher_lock: WatcherLock,
        debouncer: Debouncer,
        hard_link_scans: HardLinkScans,
        accept_deletions: Callable[[str], None],
        accept_root: Callable[[pending.PendingItem], None],
        accepted: pending.AcceptedItems,
        *,
        about: str = "",
    ) -> None:
        self._mirror = mirror
        self._requests = requests
        self._file = file
        self._watcher_lock = watcher_lock
        self._debouncer = debouncer
        self._hard_link_scans = hard_link_scans
        self._accept_deletions = accept_deletions
        self._accept_root = accept_root
        self._accepted = accepted
        self._about = about
        self._flush_points = FlushPoints(debouncer, hard_link_scans.request_before_flush)
        self._watcher: Watcher | None = None
        self._is_paused = False

    def start(self, watcher: Watcher | None) -> None:
        """Use a watcher from now on: it pushes what has happened before a flush point. None: there is none."""
        self._watcher = watcher

    def handle(self, stats: MirrorStats) -> None:
        """Handle the requests in the ledger, and remove them then. One that could not be removed is handled again, which does no harm.

        Args:
            stats: the mirror's figures of now.

        Raises:
            BrokerError: the broker does not respond.
        """
        if stats.paused != self._is_paused:
            self._is_paused = stats.paused
            log.warning("%s is %s", self._mirror, "paused: nothing is sent until it is resumed" if stats.paused else "resumed")
        if stats.requests:
            requests = self._requests.all()
            for what, about in requests:
                self._handle(what, about)
            self._requests.remove_first(len(requests))
        reached = self._flush_points.pop_reached()
        if reached:
            self._watcher_lock.renew({"unsure_names": self._hard_link_scans.unsure_at_flush()})
        for name in reached:
            self._requests.confirm_flush_point(name)

    def handle_file(self) -> None:
        """Handle the requests in the file."""
        with pending.consume_requests(self._file) as items:
            self._accept(items)

    def handle_unfinished(self) -> None:
        """Handle once more what was accepted in a process before this one, and is not carried out."""
        self._accepted.load()
        for item in self._accepted:
            self._accept_item(item)

    def _handle(self, what: str, about: str) -> None:
        """Handle one request of `OperatorRequests.all`."""
        if what == SCAN:
            log.info("a scan of %s was requested", about or "everything")
            self._debouncer.push((Change(Kind.SCAN, about),) if about else (SCAN_ALL,))
        elif what == ACCEPT:
            item = pending.parse(about)
            self._accept([] if item is None else [item])
        elif self._watcher:
            self._watcher.flush(partial(self._flush_points.add, about))
        else:
            self._flush_points.add(about)

    def _accept(self, items: list[pending.PendingItem]) -> None:
        """Accept what an operator has seen by `autosync-ctl accept`. It is stored before the request is removed, so that it is not lost if
        this process is killed."""
        self._accepted.add(items)
        for item in items:
            self._accept_item(item)

    def _accept_item(self, item: pending.PendingItem) -> None:
        log.warning("%san operator has accepted %s", self._about, item.text())
        if item.kind in (pending.ItemKind.EXISTING, pending.ItemKind.DELETIONS):
            self._accept_deletions(item.digest)
        else:
            self._accept_root(item)
