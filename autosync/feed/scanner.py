"""The thread of scans: differences between source and target become batches.

    timer, watcher -> debouncer -> scanner -> ledger + queue

It is a thread of its own, so that a long scan never delays an event.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..compare.deletions import Permission
from ..compare.diff import Difference
from ..compare.scan import Comparison, ScanReport
from ..errors import SourceUnsure, StartError, TargetError
from ..ledger import GONE, Hint
from ..model.change import SCAN_ALL, Change, Kind
from ..model.withheld import AcceptedDeletions
from ..state.deletion_state import DeletionState
from ..watch.debounce import Debouncer
from ..watch.hard_links import HardLinks
from ..watch.scan_requests import ScanRequest
from .batches import Batch, BatchBuilder, BatchSender
from .broker_retry import BrokerRetry, FeedThread, Stopped
from .publisher import Priority
from .scan_failures import FailedScan, failures_after
from .settled_files import MOST_WAITING, RestQueue
from .skipped_paths import SkippedPaths

log = logging.getLogger(__name__)

#: How long the target is left alone after the first, second, ... failed scan in a row, in seconds.
_FAILURE_PAUSES = (1.0, 5.0, 30.0, 60.0)


class FinishedScan(NamedTuple):
    """A complete scan of the whole source.

    Attributes:
        began: when it began, in seconds since the epoch.
        ended: on the monotonic clock, in seconds.
        generation: the scan generation when it began.
    """

    began: float
    ended: float
    generation: int


@dataclass(frozen=True)
class ScanState:
    """What is known from the scans of a mirror, at one moment.

    Attributes:
        is_scanning: whether a scan is running.
        scans: number of scans that were begun.
        failed_scans: number of scans that have failed since the last one that succeeded.
        failures: the scans that have failed, by path, until one of the same part, or of more, succeeds; in the order in which they
            failed first.
        last_report: the report of the last scan of the whole source that has ended; None before the first.
        finished_scan: the last scan of the whole source, if it was complete; else None.
        scan_generation: grows whenever scans that have begun prove nothing any more: the broker may have lost what they found, or a source
            is another directory.
        last_in_sync_at: when the last scan began whose differences are all synced, in seconds since the epoch; 0.0: none yet.
        withheld_deletions: number of deletions that the last scan of the whole source withheld. As long as there are some, no scan deletes.
        accepted: whether the mirror is accepted. As long as it is not, no scan deletes what the target held before the mirror.
        accepted_deletions: the deletions that an operator has accepted, until source and target are in sync.
        scanned_digests: those of their digests for which a scan of the whole source has ended: the ledger has what it found.
    """

    is_scanning: bool = False
    scans: int = 0
    failed_scans: int = 0
    failures: Mapping[str, FailedScan] = field(default_factory=dict)
    last_report: ScanReport | None = None
    finished_scan: FinishedScan | None = None
    scan_generation: int = 0
    last_in_sync_at: float = 0.0
    withheld_deletions: int = 0
    accepted: bool = False
    accepted_deletions: AcceptedDeletions = field(default_factory=AcceptedDeletions)
    scanned_digests: frozenset[str] = frozenset()

    @property
    def failed_scan(self) -> FailedScan | None:
        """The first of the scans that have failed; None: there is none."""
        return next(iter(self.failures.values()), None)


class Scanner(FeedThread):
    """Compares parts of the source with the target as the debouncer requests it, and sends the differences.

    Args:
        comparison: finds the differences.
        deletion_state: stores what scans of the mirror find out.
        debouncer: where requests come from. Files that are still changing go back there.
        sender: where batches go.
        skipped: receives paths that are not mirrored.
        retry: waits for the broker.
        stop: set when the mirror is closed; `retry` has the same.
        about: prefix of log lines, where there are several mirrors.
        hard_links: receives the names of files with more than one; None: not needed.
        prepare: called before each scan. It returns whether the target may hold keys again that this mirror has not made; then the mirror
            is not accepted any more.
    """

    def __init__(
        self,
        comparison: Comparison,
        deletion_state: DeletionState,
        debouncer: Debouncer,
        sender: BatchSender,
        skipped: SkippedPaths,
        retry: BrokerRetry,
        stop: threading.Event,
        *,
        about: str = "",
        hard_links: HardLinks | None = None,
        prepare: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__("autosync-scans")
        self._prepare = prepare
        self._hard_links = hard_links
        self._comparison = comparison
        self._deletion_state = deletion_state
        self._debouncer = debouncer
        self._sender = sender
        self._skipped = skipped
        self._retry = retry
        self._stop = stop
        self._about = about
        #: Whether a scan of a part of the source has withheld deletions since the last scan of all.
        self._has_withheld = False
        #: Whether a scan of the whole source has stored what it has withheld.
        self._has_recorded = False
        self._state = ScanState()
        self._state_lock = threading.Lock()
        #: Whether no further scan may begin, see `hold`; and the condition that wakes a scan which waits for that.
        self._is_held = False
        self._resumed = threading.Condition(self._state_lock)

    @property
    def state(self) -> ScanState:
        """What is known now. From any thread."""
        return self._state

    def close(self, patience: float = 10.0) -> None:
        """End a running scan, and the thread. Ends waiting for the broker also in the thread of events, so that one is closed first.

        Args:
            patience: how long to wait for the thread, in seconds.
        """
        self._stop.set()
        with self._resumed:
            self._resumed.notify_all()
        self._thread.join(patience)
        if not self._thread.is_alive():
            self._comparison.close()

    def hold(self) -> bool:
        """Let no further scan begin until `resume` is called. A running one goes on.

        Returns:
            Whether no scan is running.
        """
        with self._state_lock:
            self._is_held = True
            return not self._state.is_scanning

    def resume(self) -> None:
        """Let scans begin again."""
        with self._resumed:
            self._is_held = False
            self._resumed.notify_all()

    def begin_generation(self) -> None:
        """Declare that scans which have begun until now prove nothing."""
        with self._state_lock:  # read and written in one step: other fields are set by the thread of scans
            self._state = replace(self._state, scan_generation=self._state.scan_generation + 1)

    def restore(self, *, accepted: bool, last_in_sync_at: float, withheld_deletions: int) -> None:
        """Adopt what the ledger holds about scans before this process; see `ScanState`.

        Args:
            accepted: whether the mirror is accepted.
            last_in_sync_at: when the mirror was last in sync, in seconds since the epoch; 0.0: never, or with another definition.
            withheld_deletions: 0 does not count: a broker that lost its memory must not cause deletions that a scan has withheld. Nor does
                any number if a scan of this process has stored another one since it was read.
        """
        with self._state_lock:
            before = self._state
            is_newer = self._has_recorded or before.withheld_deletions
            self._state = replace(
                before,
                accepted=accepted or before.accepted,
                last_in_sync_at=last_in_sync_at,
                withheld_deletions=before.withheld_deletions if is_newer else withheld_deletions,
            )

    def set_last_in_sync(self, at: float) -> None:
        """Record when the last scan began whose differences are all synced, in seconds since the epoch."""
        with self._state_lock:
            before = self._state.accepted_deletions
            self._state = replace(
                self._state, last_in_sync_at=at, accepted_deletions=before if at < before.since else AcceptedDeletions()
            )  # fmt: skip

    def accept_deletions(self, digest: str) -> None:
        """Request a scan of the whole source that deletes keys which an earlier one has withheld.

        Args:
            digest: the digest of the set of these keys, see `autosync.compare.deletions.Withheld`.
        """
        with self._state_lock:
            digests = self._state.accepted_deletions.digests | {digest}
            self._state = replace(
                self._state,
                accepted_deletions=AcceptedDeletions(digests, time.time()),
                scanned_digests=self._state.scanned_digests - {digest},
            )
        self._debouncer.push((SCAN_ALL,))

    def scan(self, request: ScanRequest) -> ScanReport:
        """Compare a part of the source with the target, and send the differences.

        Args:
            request: which part.

        Returns:
            What was found; `error` is set if the scan could not be finished.

        Raises:
            Stopped: the mirror was closed meanwhile.
        """
        if self._prepare():
            self._update(accepted=False)
        report = ScanReport(on_extra=self._sender.on_work, on_hard_link=self._hard_links.add if self._hard_links is not None else None)
        state, began = self._state, time.time()
        if self._hard_links is not None and not request.path:
            self._hard_links.begin_scan()
        self._skipped.begin_scan()
        is_first = not request.path and state.last_in_sync_at == 0.0
        try:
            self._sender.send_all(self._batches(request, report, state), Priority.FIRST_SCAN if is_first else Priority.SCAN, bounded=True)
        except (TargetError, SourceUnsure) as error:
            report.error = error
        except OSError as error:  # where listings are sorted
            report.error = StartError(
                f"{error.filename or 'the state directory'}: {error.strerror}", "make room, or give another --state-dir"
            )
        if self._hard_links is not None and not request.path:
            self._hard_links.end_scan(complete=report.error is None and report.complete)
        if report.error is None:
            self._record(request, report, began, state)
        if report.needs_whole_scan:
            self._debouncer.push((SCAN_ALL,))
        return report

    def _run(self) -> None:
        while (request := self._debouncer.pop_scan()) is not None:
            self._begin_scan()
            try:
                report = self.scan(request)
            except BaseException:
                self._update(is_scanning=False)
                raise
            failed = 0 if report.error is None else self._state.failed_scans + 1
            self._update(
                is_scanning=False,
                failed_scans=failed,
                failures=failures_after(self._state.failures, request.path, report.error),
                last_report=self._state.last_report if request.path else report,
            )
            if report.error is None:
                continue
            log.warning("%s%s", self._about, FailedScan(request.path, report.error).text())
            self._retry.pause(_FAILURE_PAUSES[min(failed, len(_FAILURE_PAUSES)) - 1])
            self._debouncer.push((Change(Kind.LEFT if request.has_left else Kind.SCAN, request.path),))

    def _begin_scan(self) -> None:
        """Wait until a scan may begin, and note that it has begun.

        Raises:
            Stopped: the mirror was closed meanwhile.
        """
        with self._resumed:
            while self._is_held:
                if self._stop.is_set():
                    raise Stopped
                self._resumed.wait()
            self._state = replace(self._state, is_scanning=True, scans=self._state.scans + 1)

    def _update(self, **changes: Any) -> None:
        with self._state_lock:
            self._state = replace(self._state, **changes)

    def _record(self, request: ScanRequest, report: ScanReport, began: float, before: ScanState) -> None:
        """Record a scan that has not failed.

        Args:
            request: which part was compared.
            report: what was found.
            began: when the scan began, in seconds since the epoch.
            before: what was known then.
        """
        self._skipped.replace(report.skipped, report.unlisted_skipped, path=request.path, is_complete=report.complete)
        self._has_withheld = self._has_withheld or report.withheld.count > 0
        if request.path:
            if report.withheld.count and before.accepted and not before.withheld_deletions:
                self._debouncer.push((SCAN_ALL,))  # it knows how many keys there are in all
            return
        seconds = time.time() - began
        finished = FinishedScan(min(began, report.busy_since), time.monotonic(), before.scan_generation)
        # What is behind too many links was not compared. When it is compared again, that it was not in sync must count.
        self._update(
            finished_scan=finished if report.complete and not report.beyond_links else None,
            scanned_digests=before.accepted_deletions.digests,
        )
        if not before.accepted and report.complete and report.deletes == report.extra:  # nothing, or all of it by an operator's will
            self._accept()
        self._store_withheld(report, before)
        log.info(
            "%scompared %d files in %.1f s: %d to upload, %d to check, %d to delete",
            self._about, report.source_files, seconds, report.uploads, report.checks, report.deletes,
        )  # fmt: skip

    def _store_withheld(self, report: ScanReport, before: ScanState) -> None:
        """Store what a scan of the whole source has withheld. A scan that could not read everything lifts nothing."""
        withheld = report.withheld
        if not report.complete and withheld.count < before.withheld_deletions:
            return
        self._retry.retry_until_success(lambda: self._deletion_state.set_withheld(withheld, accepted=self._state.accepted))
        self._update(withheld_deletions=withheld.count)
        self._has_recorded = True

    def _accept(self) -> None:
        """Let scans delete from now on."""
        self._update(accepted=True)
        self._retry.retry_until_success(self._deletion_state.accept)
        if self._has_withheld:  # a scan of a part withheld deletions that are allowed now
            self._has_withheld = False
            self._debouncer.push((SCAN_ALL,))

    def _batches(self, request: ScanRequest, report: ScanReport, state: ScanState) -> Iterator[Batch]:
        builder = BatchBuilder(self._sender.sizer)
        differences = self._comparison.differences(
            request.path,
            report,
            state.last_in_sync_at,
            has_left=request.has_left,
            permission=Permission(state.accepted, state.withheld_deletions > 0, state.accepted_deletions),
        )
        for key, found, etag, _ in self._at_rest(differences, report):
            hint = GONE
            if found is not None:
                report.checks += etag is not None
                report.uploads += etag is None
                hint = Hint(found.size, found.mtime_ns, etag or "", rested=True)
            full = builder.add(key, hint)
            if full is not None:
                yield full
        yield from builder.remaining()

    def _at_rest(self, differences: Iterable[Difference], report: ScanReport) -> Iterator[Difference]:
        """The differences; a file is delayed until it rests. Files that go on changing are left to the thread of events."""
        resting = RestQueue(self._debouncer.quiet)
        for difference in differences:
            if self._stop.is_set():
                raise Stopped
            if difference.found is None:
                yield from self._due(resting, report, most=0)  # a renamed file is sent before its old key is deleted
                yield difference
                continue
            resting.add(difference, difference.found)
            yield from self._due(resting, report, most=MOST_WAITING)
        yield from self._due(resting, report, most=0)

    def _due(self, resting: RestQueue, report: ScanReport, *, most: int) -> Iterator[Difference]:
        """The files that rest now. Waits until no more than `most` files are left in the queue."""
        while True:
            for difference, file_state, rests in resting.due():
                if rests:
                    yield difference
                elif difference.found is not None:
                    report.busy_since = min(report.busy_since, difference.found.changed)
                    self._debouncer.push_unsettled(difference.found.path, file_state, difference.etag or "")
            if len(resting) <= most:
                return
            self._retry.pause(resting.seconds())
