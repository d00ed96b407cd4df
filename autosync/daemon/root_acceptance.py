"""The roots and mount points that are pending, and what happens when an operator accepts them."""

from __future__ import annotations

import logging

from ..feed.scanner import Scanner
from ..source.roots import RootRegister
from ..state import pending
from ..state.pending import AcceptedItems, PendingItem, PendingStore
from ..watch.debounce import Debouncer

log = logging.getLogger(__name__)

_KINDS = (pending.ItemKind.ROOT, pending.ItemKind.MOUNT)


class RootAcceptance:
    """Accepts roots and mount points of one mirror that are not the remembered ones. Not safe to use from many threads.

    Args:
        roots: the roots and mount points.
        scanner: may delete what an operator has seen.
        debouncer: has the requests for scans.
        store: has the pending items, for operators.
        accepted: has what is accepted until it is carried out.
        about: prefix of log lines, where there are several mirrors.
    """

    def __init__(
        self, roots: RootRegister, scanner: Scanner, debouncer: Debouncer, store: PendingStore, accepted: AcceptedItems, *, about: str = ""
    ) -> None:
        self._roots = roots
        self._scanner = scanner
        self._debouncer = debouncer
        self._store = store
        self._accepted = accepted
        self._about = about
        #: What an operator has accepted, as it was listed, and is not pending yet.
        self._waiting: list[PendingItem] = []

    def add(self, item: PendingItem) -> None:
        """Note that an operator has accepted a root or a mount point.

        Args:
            item: the item as it was listed for the operator.
        """
        if self._is_accepted(item):  # in a process before this one, maybe
            self._scanner.accept_deletions(item.digest)
        elif item not in self._waiting:  # a request that could not be removed is handled again
            self._wait_for([*self._waiting, item])

    @property
    def has_requests(self) -> bool:
        """Whether something that an operator has accepted waits for a scan to end."""
        return bool(self._waiting)

    def accept(self) -> None:
        """Accept the roots and mount points that an operator has accepted, and scan them. The first scan finds out what is in doubt, and
        each scan notes anew what it keeps. So a request waits for the first scan, for the end of a running one, and for scans that are
        requested if what it names is not pending."""
        if not self._waiting:
            return
        # A running scan has begun without the permission: it would end the doubt, withhold the keys, and forget which were listed.
        if not self._scanner.hold():
            return
        try:
            self._accept_waiting()
        finally:
            self._scanner.resume()

    def _accept_waiting(self) -> None:
        """Accept what is pending. No scan is running."""
        is_settled = not self._debouncer.has_scans()
        report = self._scanner.state.last_report
        if report is None or report.error is not None:
            return
        pending_now = self._pending()
        still: list[PendingItem] = []
        for item in self._waiting:
            is_covered = any(now.is_covered_by(item) for now in pending_now) and self._roots.remembered.accept(item.path)
            if is_covered or self._is_accepted(item):
                self._scanner.accept_deletions(item.digest)
            elif not is_settled:
                still.append(item)
            else:
                self._accepted.remove([item])
                log.warning("%s%s is not as it was accepted any more; what was accepted does not count", self._about, item.name)
        self._wait_for(still)

    def forget_carried_out(self) -> None:
        """Remove what is accepted and carried out. Call it after the roots were stored: an accepted doubt is stored with them."""
        scanned = self._scanner.state.scanned_digests
        self._accepted.remove([item for item in self._accepted if item not in self._waiting and item.digest in scanned])

    def write_pending(self) -> None:
        """Write which roots and mount points are pending.

        Raises:
            BrokerError: the broker does not respond.
        """
        self._store.replace(_KINDS, self._pending())
        self._store.write()

    def _wait_for(self, items: list[PendingItem]) -> None:
        self._waiting = items
        self._roots.remembered.waiting = frozenset(item.path for item in items)

    def _is_accepted(self, item: PendingItem) -> bool:
        """Whether a root or a mount point is accepted already, with these keys."""
        doubt = self._roots.remembered.doubts().get(item.path)
        return doubt is not None and doubt.accepted and doubt.digest == item.digest

    def _pending(self) -> list[PendingItem]:
        """The roots and mount points that are not the remembered ones, and below which keys are kept for that."""
        return [
            PendingItem(pending.ItemKind(self._roots.kind(path)), path, doubt.kept, (doubt.text,), doubt.digest)
            for path, doubt in self._roots.remembered.pending().items()
            if doubt.digest  # else a scan is about to note which keys it keeps
        ]  # fmt: skip
