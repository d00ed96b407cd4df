"""The paths below a source that are not mirrored, with the reasons."""

from __future__ import annotations

import logging

from ..compare.scan import MOST_SKIPPED
from ..ledger.sync_state import SyncState
from ..model.text import printable
from .broker_retry import BrokerRetry

log = logging.getLogger(__name__)

#: So many paths are logged at once.
_LOGGED_AT_ONCE = 10


class SkippedPaths:
    """Logs each skipped path once, and keeps the list in the ledger for `autosync-ctl`.

    Args:
        sync_state: of the mirror; stores the list.
        retry: waits for the broker.
    """

    def __init__(self, sync_state: SyncState, retry: BrokerRetry) -> None:
        self._sync_state = sync_state
        self._retry = retry
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, reasons: dict[str, str]) -> None:
        """Add what an event or a scan of a part of the source has found.

        Args:
            reasons: by path.

        Raises:
            Stopped: the mirror was closed before the broker answered.
        """
        fresh = self._fresh(reasons)
        is_changed = bool(fresh) and len(self._reasons) < MOST_SKIPPED
        if is_changed:
            self._reasons = {**self._reasons, **fresh}
        self._publish(fresh, is_changed=is_changed)

    def replace(self, reasons: dict[str, str]) -> None:
        """Put what a scan of the whole source has found in the place of all before.

        Args:
            reasons: by path.

        Raises:
            Stopped: the mirror was closed before the broker answered.
        """
        fresh = self._fresh(reasons)
        is_changed = reasons != self._reasons
        self._reasons = reasons
        self._publish(fresh, is_changed=is_changed)

    def _fresh(self, reasons: dict[str, str]) -> dict[str, str]:
        return {path: reason for path, reason in reasons.items() if self._reasons.get(path) != reason}

    def _publish(self, fresh: dict[str, str], *, is_changed: bool) -> None:
        for path, reason in list(fresh.items())[:_LOGGED_AT_ONCE]:
            log.warning("skipped: %s %s", printable(path), reason)
        if len(fresh) > _LOGGED_AT_ONCE:
            log.warning("and %d more are skipped", len(fresh) - _LOGGED_AT_ONCE)
        if is_changed:
            self._retry.retry_until_success(lambda: self._sync_state.set_skipped(self._reasons))
