"""The roots and mount points that are pending, and what happens when an operator accepts them."""

from __future__ import annotations

from ..feed.scanner import Scanner
from ..source.roots import RootRegister
from ..state import pending
from ..state.pending import PendingItem, PendingStore


class RootAcceptance:
    """Accepts roots and mount points of one mirror that are not the remembered ones. Not safe to use from many threads.

    Args:
        roots: the roots and mount points.
        scanner: may delete what an operator has seen.
        store: has the pending items, for operators.
    """

    def __init__(self, roots: RootRegister, scanner: Scanner, store: PendingStore) -> None:
        self._roots = roots
        self._scanner = scanner
        self._store = store
        #: What an operator has accepted, as it was listed.
        self._accepted: list[PendingItem] = []

    def add(self, item: PendingItem) -> None:
        """Note that an operator has accepted a root or a mount point.

        Args:
            item: the item as it was listed for the operator.
        """
        self._accepted.append(item)

    @property
    def has_requests(self) -> bool:
        """Whether something that an operator has accepted waits for the first scan."""
        return bool(self._accepted)

    def accept(self) -> None:
        """Accept the roots and mount points that an operator has accepted, and scan them. A request from before the start waits for the
        first scan, which finds out what is in doubt."""
        pending_now = self._pending()
        for item in self._accepted:
            if not any(now.is_covered_by(item) for now in pending_now) or not self._roots.remembered.accept(item.path):
                continue
            self._scanner.accept_deletions(item.digest)
        if pending_now or self._scanner.state.last_report is not None:
            self._accepted.clear()

    def write_pending(self) -> None:
        """Write which roots and mount points are pending.

        Raises:
            BrokerError: the broker does not respond.
        """
        self._store.replace((pending.ItemKind.ROOT, pending.ItemKind.MOUNT), self._pending())
        self._store.write()

    def _pending(self) -> list[PendingItem]:
        """The roots and mount points that are not the remembered ones, and below which keys are kept for that."""
        return [
            PendingItem(pending.ItemKind(self._roots.kind(path)), path, doubt.kept, (doubt.text,), doubt.digest)
            for path, doubt in self._roots.remembered.pending().items()
            if doubt.digest  # else a scan is about to note which keys it keeps
        ]  # fmt: skip
