"""The log lines about failed keys and about the work of a run, and the exit code of a run."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from ..errors import BrokerError, Exit
from ..feed.scanner import ScanState
from ..feed.skipped_paths import SkippedPaths
from ..ledger import MirrorStats
from ..ledger.failures import Failures
from ..model.text import printable
from .status_line import summary

log = logging.getLogger(__name__)

_FAILURES_LOGGED = 20


class RunSummary:
    """Logs what one mirror's run has done, and what it could not do. Not safe to use from many threads.

    Args:
        failures: the failed list.
        skipped: the skipped paths.
        once: whether the run ends when source and target are equal.
        new_state: the state directory, if it had nothing of a mirror; else None.
        about: prefix of log lines, where there are several mirrors.
    """

    def __init__(self, failures: Failures, skipped: SkippedPaths, *, once: bool, new_state: Path | None, about: str = "") -> None:
        self._failures = failures
        self._skipped = skipped
        self._once = once
        self._new_state = new_state
        self._about = about
        self._failures_logged = 0
        self._began = time.monotonic()
        self._before: MirrorStats | None = None
        self._after: MirrorStats | None = None
        self._has_unseen = False

    def begin(self, stats: MirrorStats) -> None:
        """Set the figures from before the run."""
        self._before = stats

    def log_failures(self, count: int) -> None:
        """Log the number of failures each time that it has grown by half. With `once`, they are listed at the end instead.

        Args:
            count: the number of failed keys now.

        Raises:
            BrokerError: the broker does not respond.
        """
        if count > self._failures_logged * 1.5 and not self._once:
            first = next(iter(self._failures.all()), None)
            if first is not None:
                log.error("%s%d keys are in the failed list; one is %s: %s", self._about, count, printable(first.key), first.reason)
            self._failures_logged = count
        self._failures_logged = min(self._failures_logged, count)

    def finish(self, stats: MirrorStats | None, *, has_unseen: bool = False) -> None:
        """Set what is known after the run.

        Args:
            stats: the figures; None: there are none.
            has_unseen: whether keys wait since a worker does not see what the file host confirmed minutes ago.
        """
        self._after = stats
        self._has_unseen = has_unseen

    def log(self, scans: ScanState, *, has_doubts: bool, unwatched: int, finished: bool) -> Exit:
        """Log the summary. Returns the exit code of the run.

        Args:
            scans: what is known from scans.
            has_doubts: whether a root or a mount point is in doubt, or keys below it are left as they are.
            unwatched: number of directories without a watch.
            finished: whether `once` has reached its end.
        """
        before, after = self._before, self._after
        if before is not None and after is not None:
            seconds = time.monotonic() - self._began
            log.info("%s%s", self._about, summary(before, after, seconds, skipped=self._skipped.listed()))
        if after is not None and after.failed:
            self._log_failed_keys(after.failed)
            return Exit.INCOMPLETE
        if scans.withheld_deletions and not scans.accepted and self._once and self._new_state is not None:
            log.warning("%sstate directory %s was empty: if it lies on a volume, that may be missing", self._about, self._new_state)
        report = scans.last_report
        is_partial = finished and report is not None and (report.beyond_links > 0 or not report.complete)
        has_failed = scans.failed_scan is not None
        is_incomplete = scans.withheld_deletions or has_doubts or has_failed or unwatched or self._has_unseen or is_partial
        return Exit.INCOMPLETE if is_incomplete else Exit.DONE

    def _log_failed_keys(self, count: int) -> None:
        with suppress(BrokerError):
            for number, failure in enumerate(self._failures.all()):
                if number == _FAILURES_LOGGED:
                    break
                log.error("%sfailed: %s: %s", self._about, printable(failure.key), failure.reason)
        if count > _FAILURES_LOGGED:
            log.error("and %d more failed", count - _FAILURES_LOGGED)
