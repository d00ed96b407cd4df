"""When both sides were in sync last: what scans and figures of the ledger prove together."""

from __future__ import annotations

from ..feed.scanner import FinishedScan, Scanner
from ..ledger import Ledger, MirrorStats
from .registration import Registration

#: The resolution of `MirrorStats.lag`, in seconds.
_LAG_UNIT = 0.001


class InSyncRecorder:
    """Records for one mirror that source and target were equal when a scan began. Not safe to use from many threads.

    Args:
        ledger: the mirror's ledger.
        registration: identifies the definition.
        scanner: finds the differences.
    """

    def __init__(self, ledger: Ledger, registration: Registration, scanner: Scanner) -> None:
        self._ledger = ledger
        self._registration = registration
        self._scanner = scanner

    def record(self, finished_scan: FinishedScan | None, stats: MirrorStats, requested: float) -> None:
        """Record that source and target were equal when a scan began, if all differences that it found have been synced.

        They have been synced once no key is dirty that was dirty when the scan ended. This proves nothing if the broker has lost dirty keys
        since the scan began, or if a source has become another directory.

        Args:
            finished_scan: the last scan that had ended when the figures were requested; None: none had.
            stats: the figures.
            requested: when they were requested, on the monotonic clock, in seconds.

        Raises:
            BrokerError: the broker does not respond.
        """
        state = self._scanner.state
        if finished_scan is None or finished_scan.generation != state.scan_generation or finished_scan.began <= state.last_in_sync_at:
            return
        if stats.dirty == 0 or requested - stats.lag - _LAG_UNIT > finished_scan.ended:
            version = self._registration.version_in_sync
            self._ledger.sync_state.set_last_in_sync(version, finished_scan.began, accepted=state.accepted)
            self._scanner.set_last_in_sync(finished_scan.began)
