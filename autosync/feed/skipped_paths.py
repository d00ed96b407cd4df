"""The paths below a source that are not mirrored, with the reasons."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from ..ledger.sync_state import SyncState
from ..model.paths import is_at_or_below
from ..model.skipped import MOST_SKIPPED, SkippedList
from ..model.text import printable
from .broker_retry import BrokerRetry

log = logging.getLogger(__name__)

#: The most paths that are logged at once.
_LOGGED_AT_ONCE = 10


class SkippedPaths:
    """Logs each skipped path once, and keeps the list in the ledger for `autosync-ctl`. Safe to use from many threads.

    Args:
        sync_state: the mirror's state in the ledger, which stores the list.
        retry: waits for the broker.
        about: prefix of log lines, where there are several mirrors.

    Attributes:
        reasons: why each listed path is skipped, by path; at most `MOST_SKIPPED`. Only for reading.
    """

    def __init__(self, sync_state: SyncState, retry: BrokerRetry, *, about: str = "") -> None:
        self._sync_state = sync_state
        self._retry = retry
        self._about = about
        self.reasons: dict[str, str] = {}
        self._unlisted = 0
        #: Whether a line says that further paths are not listed. A full scan that leaves room in the list ends that.
        self._is_full_logged = False
        #: Changes of the list by events that are not in the ledger yet: the reason by path, or None for a path that left the list.
        self._unpublished: dict[str, str | None] = {}
        #: Changes of the list by events since the scan began that runs now. They are newer than what the scan finds.
        self._since_scan_began: dict[str, str | None] = {}
        # Also covers writing to the ledger, so that no older list is stored over a newer one.
        self._lock = threading.Lock()

    def listed(self) -> SkippedList:
        """The list as it is now."""
        return SkippedList(self.reasons, self._unlisted)

    def add(self, path: str, reason: str) -> None:
        """Add a path that an event has found. The ledger gets it with `publish`."""
        if self.reasons.get(path) == reason:
            return
        with self._lock:
            if path not in self.reasons and len(self.reasons) >= MOST_SKIPPED:
                self._log_unlisted(path, reason)
                return
            self.reasons[path] = reason
            self._note_change(path, reason)
        log.warning("%sskipped: %s %s", self._about, printable(path), reason)

    def discard(self, path: str) -> None:
        """Remove a path that an event has found to be sent, or gone. The ledger gets it with `publish`."""
        if path not in self.reasons:
            return
        with self._lock:
            if self.reasons.pop(path, None) is not None:
                self._note_change(path, None)

    def publish(self) -> None:
        """Store in the ledger what events have changed.

        Raises:
            Stopped: the mirror was closed before the broker responded.
        """
        if not self._unpublished:
            return
        with self._lock:
            changes, self._unpublished = self._unpublished, {}
            self._retry.retry_until_success(lambda: self._sync_state.change_skipped(changes))

    def begin_scan(self) -> None:
        """A scan begins, which will end with `replace` unless it fails."""
        with self._lock:
            self._since_scan_began = {}

    def replace(self, reasons: Mapping[str, str], unlisted: int = 0, *, path: str = "", is_complete: bool = True) -> None:
        """Put what a scan has found in the place of what was listed for the same part of the source, also in the ledger.

        Args:
            reasons: the reasons, by path.
            unlisted: how many more paths the scan has found.
            path: the path of the part; "" is the whole source.
            is_complete: whether the scan could read the whole part. If not, what was listed for a part stays.

        Raises:
            Stopped: the mirror was closed before the broker responded.
        """
        with self._lock:
            before, unlisted_before, has_unpublished = self.reasons, self._unlisted, bool(self._unpublished)
            if path:
                reasons, unlisted = self._merged(reasons, unlisted, path, is_complete=is_complete)
            self.reasons, self._unlisted, self._unpublished = self._with_later_changes(reasons), unlisted, {}
            self._log_fresh(before, max(unlisted - unlisted_before, 0))
            if not path or has_unpublished or self.reasons != before or unlisted != unlisted_before:
                # Each full scan stores the list: the ledger may have one of another process, or have lost it.
                self._retry.retry_until_success(lambda: self._sync_state.set_skipped(self.listed()))

    def _note_change(self, path: str, reason: str | None) -> None:
        self._unpublished[path] = reason
        if len(self._since_scan_began) < MOST_SKIPPED:
            self._since_scan_began[path] = reason

    def _with_later_changes(self, found: Mapping[str, str]) -> dict[str, str]:
        """What a scan has found, with the changes since it began."""
        reasons = dict(found)
        for path, reason in self._since_scan_began.items():
            if reason is None:
                reasons.pop(path, None)
            elif path in reasons or len(reasons) < MOST_SKIPPED:
                reasons[path] = reason
        self._since_scan_began = {}
        return reasons

    def _merged(self, found: Mapping[str, str], unlisted: int, path: str, *, is_complete: bool) -> tuple[dict[str, str], int]:
        """The list after a scan of a part, and how many paths it does not list."""
        reasons = {one: why for one, why in self.reasons.items() if not is_complete or not is_at_or_below(one, path)}
        for one, why in found.items():
            if one in reasons or len(reasons) < MOST_SKIPPED:
                reasons[one] = why
            else:
                unlisted += 1
        return reasons, max(self._unlisted, unlisted)

    def _log_fresh(self, before: Mapping[str, str], unlisted: int) -> None:
        """Log what a scan has found.

        Args:
            before: the list before the scan.
            unlisted: how many paths more than before are not listed.
        """
        fresh = [(path, reason) for path, reason in self.reasons.items() if before.get(path) != reason]
        for path, reason in fresh[:_LOGGED_AT_ONCE]:
            log.warning("%sskipped: %s %s", self._about, printable(path), reason)
        more = max(len(fresh) - _LOGGED_AT_ONCE, 0) + unlisted
        if more:
            log.warning("%sand %d more are skipped", self._about, more)
        self._is_full_logged = self._is_full_logged and len(self.reasons) >= MOST_SKIPPED

    def _log_unlisted(self, path: str, reason: str) -> None:
        if not self._is_full_logged:
            self._is_full_logged = True
            log.warning("%s%d skipped paths are listed; further ones are neither listed nor logged", self._about, MOST_SKIPPED)
        log.debug("%sskipped: %s %s", self._about, printable(path), reason)
