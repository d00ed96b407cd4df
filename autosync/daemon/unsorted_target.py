"""Whether the listings of a target are not in order, although its actor has promised that. It is stored for the next start."""

from __future__ import annotations

from contextlib import suppress

from ..compare.scan import Comparison
from ..errors import BrokerError
from ..ledger.sync_state import SyncState


class UnsortedTarget:
    """Stores that the target of one mirror lists its keys out of order.

    Args:
        sync_state: the mirror's state in the ledger.
        target: identifies the target, see `Mirror.target_hash`.
    """

    def __init__(self, sync_state: SyncState, target: str) -> None:
        self._sync_state = sync_state
        self._target = target

    def store(self) -> None:
        """Store for the next start that listings are not in order. Without a broker, the next start finds that again."""
        with suppress(BrokerError):
            self._sync_state.set_unsorted_target(self._target)

    def restore(self, comparison: Comparison) -> None:
        """Sort listings from the start if they were not in order before. If the broker may have lost that, store it again.

        Args:
            comparison: sorts them.

        Raises:
            BrokerError: the broker does not respond.
        """
        if comparison.sorts_listings:
            self._sync_state.set_unsorted_target(self._target)
        elif self._sync_state.unsorted_target() == self._target:
            comparison.sort_listings()
