"""Reports the results of one batch: to the ledger, in the log, and as a line for people."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from ..errors import BrokerError
from ..ledger import UNKNOWN, Action, Claim, Result
from ..model.text import human_size, printable
from .claimed_batch import ClaimedBatch
from .moved_files import moved_keys

log = logging.getLogger("autosync.transfer")

#: Results are reported together: the longest time until then in seconds, and the most results of one report.
_REPORT_AFTER = 0.1
_REPORT_MOST = 250
#: Number of tries of a report, and the seconds between two tries.
_TRIES, _PAUSE = 40, 0.5


class Reporter:
    """Reports the results of one batch. Safe to use from many threads.

    Args:
        batch: the batch.
    """

    def __init__(self, batch: ClaimedBatch) -> None:
        self._batch = batch
        self._mirror = batch.mirror
        #: The fields of every line in the JSON log.
        self._log_fields = {"mirror": batch.mirror.definition.name, "worker": batch.worker.name}
        self._results: list[Result] = []
        self._last_report = time.monotonic()
        self._lock = threading.Lock()
        self._files = self._bytes = self._deleted = self._failed = 0

    def add(self, results: Sequence[Result]) -> None:
        """Add results to the next report. Those of lost claims are left out: the claims are another worker's."""
        actions = [result.action for result in results]
        if Action.LOST in actions:
            results = [result for result in results if result.action is not Action.LOST]
        if log.isEnabledFor(logging.INFO):
            for result in results:
                self._log(result)
        with self._lock:
            self._results += results
            self._files += actions.count(Action.UPLOADED)
            self._deleted += actions.count(Action.DELETED)
            self._failed += actions.count(Action.FAILED)
            self._bytes += sum([result.size for result in results])

    def flush(self, *, only_if_due: bool = False) -> list[Claim]:
        """Report the results to the ledger. Returns new claims of keys that have changed meanwhile."""
        with self._lock:
            is_due = len(self._results) >= _REPORT_MOST or time.monotonic() - self._last_report >= _REPORT_AFTER
            if not self._results or (only_if_due and not is_due):
                return []
            results, self._results = self._results, []
            self._last_report = time.monotonic()
        reply = self._report(results)
        self._mirror.unseen.publish(self._mirror.ledger.disputes.unseen, self._batch.worker.name, self._log_fields)
        claim_table, claimed_at = self._mirror.claim_table, self._batch.claimed_at
        if reply is None:
            log.warning("the broker did not accept the results of %d keys; they will be done again", len(results), extra=self._log_fields)
            claim_table.remove([result.key for result in results], claimed_at)
            return []  # their leases expire, and the file host requeues them
        again, lost = reply
        claim_table.remove({result.key for result in results} - {claim.key for claim in again}, claimed_at)
        if lost:
            log.warning("%d keys were taken over by another worker; they are checked once more", len(lost), extra=self._log_fields)
            self._mark(lost)
        return again

    def summary(self) -> str:
        """A line for people: what was done."""
        parts = []
        if self._files:
            parts.append(f"{self._files} file{'s'[: self._files != 1]}, {human_size(self._bytes)}")
        if self._deleted:
            parts.append(f"{self._deleted} deleted")
        if self._failed:
            parts.append(f"{self._failed} failed")
        return ", ".join(parts) or "nothing to send"

    def _log(self, result: Result) -> None:
        if result.action in (Action.UPLOADED, Action.DELETED):
            claim = result.claim
            log.info(
                "%s %s", result.action.value, printable(claim.key),
                extra={**self._log_fields, "key": claim.key, "bytes": result.size, "attempt": claim.attempts + 1,
                       "seconds": round(result.seconds, 4)},
            )  # fmt: skip

    def _report(self, results: list[Result]) -> tuple[list[Claim], list[str]] | None:
        """Report results. Returns what `Claims.done` returns; None: the broker has not responded for long."""
        moved = moved_keys(self._batch, [result.key for result in results if result.action in (Action.UPLOADED, Action.DELETED)])
        for _ in range(_TRIES):
            try:
                if moved:
                    self._mirror.ledger.claims.mark(moved)
                return self._mirror.ledger.claims.done(self._batch.worker.owner, results)
            except BrokerError as error:
                log.debug("not reported yet: %s", error, extra=self._log_fields)
                time.sleep(_PAUSE)
        return None

    def _mark(self, keys: list[str]) -> None:
        try:
            self._mirror.ledger.claims.mark([(key, UNKNOWN) for key in keys])
        except BrokerError as error:
            log.warning("%d keys could not be marked again: %s", len(keys), error, extra=self._log_fields)
