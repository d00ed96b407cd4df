"""The failure of the last scan in the ledger, for operators."""

from __future__ import annotations

from ..feed.scanner import Scanner
from ..ledger.sync_state import SyncState
from .registration import Registration


class FailedScanRecorder:
    """Records for one mirror why the last scan has failed. Not safe to use from many threads.

    Args:
        sync_state: the mirror's state in the ledger.
        registration: knows when the broker has lost its memory.
        scanner: carries out the scans.
    """

    def __init__(self, sync_state: SyncState, registration: Registration, scanner: Scanner) -> None:
        self._sync_state = sync_state
        self._registration = registration
        self._scanner = scanner
        #: What was recorded last, and the generation of the broker that has it.
        self._recorded: tuple[str, str] | None = None

    def record(self) -> None:
        """Record the failure if it has changed. Until a scan has ended, the failure of an earlier process counts.

        Raises:
            BrokerError: the broker does not respond. The next call tries again.
        """
        state = self._scanner.state
        if state.failed_scan is None and state.last_report is None:
            return
        now = (state.failed_scan.text() if state.failed_scan else "", self._registration.broker_generation)
        if now != self._recorded:
            self._sync_state.set_scan_error(now[0])
            self._recorded = now
