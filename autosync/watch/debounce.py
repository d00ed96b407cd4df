"""Debouncing: many events become few changes, and a file that is still being written waits.

A file that was closed, or moved to its name, is due at once if it was quiet before. If it is saved again within the quiet time, it is due
when the quiet time is over, however often it was saved. A file that was only created waits for its close. A file that was found waits until
it has been unchanged for the quiet time.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from ..model.change import SCAN_ALL, Change, Kind
from ..model.file_state import FileState
from .scan_requests import ScanRequest, ScanRequests

#: A file that never rests is sent after this time, and again each time that it has passed, in seconds.
MAX_WAIT = 60.0
#: More unsent files than this become one scan of the whole source, so that a storm of events needs no more memory.
MAX_UNSENT = 100_000
#: A process that creates a file has opened it for writing after this time, in seconds. Before that, nobody can detect the writer.
_OPEN_SECONDS = 0.05

# Python 3.11 looks up a member of an enumeration each time that it is named, which costs time where it is done for each event.
_CLOSED = (Kind.SAVED, Kind.DELETED)
_SCANS = (Kind.SCAN, Kind.LEFT)
_CREATED = Kind.CREATED
#: `queued_until` of a file that was due when it was pushed: it is in the queue of due files, not in the heap.
_NOW = 0.0
#: Number of files whose times are kept before those are removed for which the quiet time is over.
_MIN_SENT_TIMES = 1000


@dataclass(slots=True)
class UnsentChange:
    """A path that will be sent. Times are of the monotonic clock, in seconds.

    Attributes:
        path: absolute.
        since: when the first change was pushed.
        due: when it is to be sent.
        kind: the kind of the change that counts.
        sent: the hint with which the file was sent last, if it did not rest then; else None.
        file_state: the state of a file that did not rest when it was checked last; else None.
        etag: the one that the target listed, if a scan found that only the times differ; else "".
        queued_until: the time of its entry in the heap, `due` at the latest; 0.0: it is in the queue of due files.
    """

    path: str
    since: float
    due: float
    kind: Kind
    sent: object = None
    file_state: FileState | None = None
    etag: str = ""
    queued_until: float = field(default=_NOW, compare=False, repr=False)

    @property
    def is_closed(self) -> bool:
        """Whether no process is known to have the file open for writing."""
        return self.kind in _CLOSED


class Debouncer:
    """Keeps changes until they are due. Safe to use from many threads: any number pushes, one pops files, one pops scan requests.

    Args:
        quiet: the quiet time, in seconds.
        clock: monotonic time, in seconds.
        max_wait: how long a file that never rests may wait, in seconds.
    """

    def __init__(self, quiet: float, clock: Callable[[], float] = time.monotonic, *, max_wait: float = MAX_WAIT) -> None:
        self.quiet = quiet
        self.max_wait = max_wait
        self._clock = clock
        self._unsent: dict[str, UnsentChange] = {}
        self._due_now: deque[str] = deque()
        self._heap: list[tuple[float, str]] = []
        #: When each file was popped last, if that was within the quiet time.
        self._sent_at: dict[str, float] = {}
        self._max_sent_times = _MIN_SENT_TIMES
        #: Files that were sent although they did not rest, in the order in which they are due again.
        self._requeued: OrderedDict[str, UnsentChange] = OrderedDict()
        self._scans = ScanRequests()
        # Two conditions, since a thread that is woken needlessly takes the processor from the one that has work to do.
        lock = threading.RLock()
        self._file_pushed = threading.Condition(lock)
        self._scan_pushed = threading.Condition(lock)
        self._closed = False
        #: Whether the files, or the scan request, that were popped last are still being processed.
        self._files_in_progress = self._scan_in_progress = False
        #: How often files, and scan requests, were popped.
        self._file_pops = self._scan_pops = 0

    def push(self, changes: Iterable[Change]) -> None:
        """Add changes, from the watcher or a timer."""
        now = self._clock()
        with self._file_pushed:
            before = self._next_due()
            for kind, path in changes:
                if kind in _SCANS:
                    self._add_scan(ScanRequest(path, kind is Kind.LEFT), now)
                else:
                    self._add_file(path, now, kind)
            if self._next_due() < before:  # otherwise `pop_due` waits for an earlier time already
                self._file_pushed.notify_all()

    def requeue(self, change: UnsentChange, file_state: FileState | None = None) -> None:
        """Add a file again that was popped and does not rest yet. It is due after the quiet time.

        Args:
            change: a change as `pop_due` returned it.
            file_state: the state of the file now.
        """
        now = self._clock()
        with self._file_pushed:
            if change.path not in self._unsent and not self._closed:
                due = now + max(self.quiet, _OPEN_SECONDS)
                self._schedule(replace(change, due=due, file_state=file_state, queued_until=_NOW), None, now)

    def push_unsettled(self, path: str, file_state: FileState, etag: str) -> None:
        """Add a file that a scan found and that does not rest yet. It is due after the quiet time.

        Args:
            path: the file's absolute path.
            file_state: the state of the file now.
            etag: the one that the target listed, if only the times differ; else "".
        """
        with self._file_pushed:
            self.requeue(UnsentChange(path, self._clock(), 0.0, Kind.APPEARED, etag=etag), file_state)
            self._collapse_if_full()
            self._file_pushed.notify_all()

    def requeue_after(self, path: str, sent: object, file_state: FileState | None = None) -> None:
        """Add a file again that was sent although it does not rest. It is due after `max_wait`. Neither `is_drained` nor a flush check
        waits for it.

        Args:
            path: the file's absolute path.
            sent: the hint with which it was sent.
            file_state: the state of the file now.
        """
        now = self._clock()
        with self._file_pushed:
            if path not in self._unsent and not self._closed and len(self._requeued) < MAX_UNSENT:
                self._requeued.pop(path, None)
                self._requeued[path] = UnsentChange(path, now, now + self.max_wait, Kind.APPEARED, sent, file_state)

    def pop_due(self, limit: int = 10_000) -> list[UnsentChange]:
        """Remove and return the files that are due. Waits until there are some. The files of the call before count as processed.

        Args:
            limit: the largest number of files to return.

        Returns:
            The files; an empty list after `close`.
        """
        with self._file_pushed:
            self._files_in_progress = False
            while True:
                due = self._pop_due_locked(limit)
                self._files_in_progress = bool(due)
                self._file_pops += bool(due)
                if due or (self._closed and not self._unsent):
                    return due
                next_due = self._next_due()
                self._file_pushed.wait(max(next_due - self._clock(), 0.0) if next_due < math.inf else None)

    def pop_scan(self) -> ScanRequest | None:
        """Remove and return the next scan request. Waits until there is one. The request of the call before counts as processed.

        Returns:
            The request; None after `close`.
        """
        with self._scan_pushed:
            self._scan_in_progress = False
            while not self._closed:
                now = self._clock()
                request = self._scans.pop_due(now)
                if request is not None:
                    self._scan_in_progress = True
                    self._scan_pops += 1
                    return request
                next_due = self._scans.next_due()
                self._scan_pushed.wait(None if next_due is None else next_due - now)
            return None

    def close(self) -> None:
        """Make all unsent files due now, and drop scan requests (the next start scans the whole source). Wakes both threads that pop."""
        with self._file_pushed:
            self._closed = True
            self._requeued.clear()
            now = self._clock()
            for change in self._unsent.values():
                change.due, change.queued_until = now, _NOW
            self._due_now = deque(self._unsent)
            self._heap.clear()
            self._file_pushed.notify_all()
            self._scan_pushed.notify_all()

    def is_idle(self) -> bool:
        """Whether no file and no scan request waits."""
        with self._file_pushed:
            return not self._unsent and not self._scans

    def is_drained(self) -> bool:
        """Whether no file and no scan request waits, and what was popped last is processed."""
        with self._file_pushed:
            return not (self._unsent or self._scans or self._files_in_progress or self._scan_in_progress)

    def has_scans(self) -> bool:
        """Whether a scan request waits, or is being processed."""
        with self._file_pushed:
            return bool(self._scans) or self._scan_in_progress

    def flush_check(self) -> Callable[[], bool]:
        """Begin to observe what was pushed until now.

        Returns:
            A function to call repeatedly. It returns True once everything that was pushed before `flush_check` is popped and processed. It
            does not wait for a file that was created and not yet closed. It waits for a file that a process is found to write to, for up to
            `max_wait`.
        """
        moment = self._clock()
        file_pops: int | None = None
        scan_pops: int | None = None

        def is_drained() -> bool:
            nonlocal file_pops, scan_pops
            with self._file_pushed:
                if file_pops is None:
                    if any(one.since <= moment and one.kind is not _CREATED for one in self._unsent.values()):
                        return False
                    file_pops = self._file_pops
                if self._files_in_progress and self._file_pops == file_pops:
                    return False
                if scan_pops is None:
                    if self._scans:  # the age of a request is not known: it may have been merged with earlier ones
                        return False
                    scan_pops = self._scan_pops
                return not (self._scan_in_progress and self._scan_pops == scan_pops)

        return is_drained

    def _next_due(self) -> float:
        """When the first file is due, or earlier; infinity if there is none."""
        if self._due_now:
            return _NOW
        first = self._heap[0][0] if self._heap else math.inf
        return min(first, self._first_requeued().due) if self._requeued else first

    def _first_requeued(self) -> UnsentChange:
        return next(iter(self._requeued.values()))

    def _add_file(self, path: str, now: float, kind: Kind) -> None:
        if self._requeued:
            self._requeued.pop(path, None)
        before = self._unsent.get(path)
        since = before.since if before else now
        if kind in _CLOSED:
            sent_at = self._sent_at.get(path)
            is_busy = sent_at is not None and now < sent_at + self.quiet
            due = now if not is_busy else min(now + self.quiet, since + self.max_wait)
        elif before is not None and (before.kind in _CLOSED or before.kind is _CREATED):
            return  # it is due anyway and checked then, or its close will give an event
        else:
            due = now + max(self.quiet, _OPEN_SECONDS)
        self._schedule(UnsentChange(path, since, due, kind), before, now)
        self._collapse_if_full()

    def _collapse_if_full(self) -> None:
        if len(self._unsent) > MAX_UNSENT:
            self._unsent.clear()
            self._heap.clear()
            self._due_now.clear()
            self._add_scan(ScanRequest(SCAN_ALL.path), self._clock())

    def _schedule(self, change: UnsentChange, before: UnsentChange | None, now: float) -> None:
        """Put a file in the queue of due files or on the heap. A path has one entry, however often it is pushed: an entry that comes up
        before the file is due is put on the heap again.

        Args:
            change: the file.
            before: the entry that it replaces.
            now: on the clock.
        """
        self._unsent[change.path] = change
        if before is not None and before.queued_until <= change.due:
            change.queued_until = before.queued_until
        elif change.due <= now:
            self._due_now.append(change.path)
        else:
            self._put_on_heap(change)

    def _put_on_heap(self, change: UnsentChange) -> None:
        change.queued_until = change.due
        heapq.heappush(self._heap, (change.due, change.path))

    def _pop_due_locked(self, limit: int) -> list[UnsentChange]:
        now = self._clock()
        due: list[UnsentChange] = []
        while self._heap and self._heap[0][0] <= now and len(due) < limit:
            at, path = heapq.heappop(self._heap)
            self._pop_if_due(path, at, now, due)
        while self._due_now and len(due) < limit:
            self._pop_if_due(self._due_now.popleft(), _NOW, now, due)
        while self._requeued and len(due) < limit and self._first_requeued().due <= now:
            due.append(self._requeued.pop(self._first_requeued().path))
        if len(self._sent_at) > self._max_sent_times:
            self._sent_at = {path: at for path, at in self._sent_at.items() if now < at + self.quiet}
            self._max_sent_times = 2 * len(self._sent_at) + _MIN_SENT_TIMES
        return due

    def _pop_if_due(self, path: str, at: float, now: float, due: list[UnsentChange]) -> None:
        """Move a file from the unsent ones to `due`, if its entry with the time `at` is valid and the file is due."""
        change = self._unsent.get(path)
        if change is None or change.queued_until != at:
            return
        if change.due > now:
            self._put_on_heap(change)
            return
        due.append(change)
        del self._unsent[path]
        if self.quiet:
            self._sent_at[path] = now

    def _add_scan(self, request: ScanRequest, now: float) -> None:
        if self._scans.add(request, now):
            self._scan_pushed.notify_all()
