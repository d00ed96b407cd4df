"""Quiet time and folding: many events become few changes, and a file that is still being written has to wait.

A file that was closed or moved into place goes at once if it has been quiet before; saved again within the quiet time, it goes when the
quiet time is over, however often it was saved. A file that was only made waits for its close; one that was found waits until it has been
seen unchanged for the quiet time. Looks fold into the look at a directory above them.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from os.path import commonpath
from typing import NamedTuple

from ..model.change import LOOK_EVERYWHERE, Change, Kind
from ..model.file_state import FileState
from ..model.keys import slashed

#: A file that never rests is sent this often all the same, in seconds.
MOST_PATIENCE = 60.0
#: More pending files than this become one look, so that a storm of events needs no more memory.
MOST_PENDING = 100_000
#: More pending looks than this become one look at the directory they have in common.
MOST_LOOKS = 256
#: Whoever makes a file has it open for writing by then, in seconds; before that, nobody can tell.
_MAKING = 0.05
#: How long a look waits for others to fold into, in seconds.
LOOK_DELAY = 0.2

# Python 3.11 looks a member of an enumeration up each time that it is named; that is noticed where it is done for each event.
_CLOSED = (Kind.SAVED, Kind.DELETED)
_UNCERTAIN = (Kind.LOOK, Kind.LEFT)
_CREATED = Kind.CREATED
#: `heaped` of what was due when it was said: it stands in a queue of its own and not in the heap.
_AT_ONCE = 0.0
#: So many files that were taken within the quiet time may be known before those are sought for which it is over.
_FEW = 1000


@dataclass(slots=True)
class Pending:
    """A path that will be sent, for the reason `kind`. Times are of the monotonic clock, in seconds."""

    path: str
    since: float
    due: float
    kind: Kind
    #: What was seen of it when it was sent last, of a file that did not rest then.
    sent: object = None
    #: What was seen of it before, of a file that did not rest then.
    sight: FileState | None = None
    #: The etag that the target listed, of a file that a look found to differ by its times only.
    etag: str = ""
    #: When its entry in the heap comes up; not later than `due`.
    heaped: float = field(default=_AT_ONCE, compare=False, repr=False)

    @property
    def is_closed(self) -> bool:
        """Whether nobody is known to write to it."""
        return self.kind in _CLOSED


class ScanRequest(NamedTuple):
    """A part of the source that is to be compared: at or below `path`, "" is everything. `seen_leaving` says that the kernel told that
    this directory is gone."""

    path: str
    seen_leaving: bool = False


class Debouncer:
    """What has been said and not yet been taken. Safe to use from many threads.

    Args:
        quiet: the quiet time, in seconds.
        patience: how long a file that never rests is waited for, in seconds.
        clock: monotonic time, in seconds.
    """

    def __init__(self, quiet: float, clock: Callable[[], float] = time.monotonic, *, patience: float = MOST_PATIENCE) -> None:
        self.quiet = quiet
        self.patience = patience
        self._clock = clock
        self._pending: dict[str, Pending] = {}
        self._at_once: deque[str] = deque()
        self._heap: list[tuple[float, str]] = []
        self._sent: dict[str, float] = {}
        self._most_sent = _FEW
        #: In the order in which they are due.
        self._back: OrderedDict[str, Pending] = OrderedDict()
        self._looks: dict[ScanRequest, float] = {}
        # Two who wait, each for its own: whoever is woken needlessly takes the processor from the one who has something to do.
        lock = threading.RLock()
        self._file_came = threading.Condition(lock)
        self._look_came = threading.Condition(lock)
        self._closed = False
        #: Whether what was taken last, files and a look, is still being dealt with; and how often something was taken.
        self._files_out = self._look_out = False
        self._takes = self._looks_taken = 0

    def say(self, changes: Iterable[Change]) -> None:
        """Take in what the watcher or a timer says."""
        now = self._clock()
        with self._file_came:
            before = self._next_file()
            for kind, path in changes:
                if kind in _UNCERTAIN:
                    self._add_look(ScanRequest(path, kind is Kind.LEFT), now)
                else:
                    self._add(path, now, kind)
            if self._next_file() < before:  # else nobody waits for longer than that
                self._file_came.notify_all()

    def postpone(self, pending: Pending, sight: FileState | None = None) -> None:
        """Put back a file that was taken and does not rest yet.

        Args:
            pending: as it was taken.
            sight: what was seen of it; comes back with it.
        """
        now = self._clock()
        with self._file_came:
            if pending.path not in self._pending and not self._closed:
                due = now + max(self.quiet, _MAKING)
                self._wait(replace(pending, due=due, sight=sight, heaped=_AT_ONCE), None, now)

    def wait_for_rest(self, path: str, sight: FileState, etag: str) -> None:
        """Have a file taken after the quiet time that a look found and that does not rest yet.

        Args:
            path: of the file.
            sight: what was seen of it.
            etag: what the target listed, if only the times differ; else "".
        """
        with self._file_came:
            self.postpone(Pending(path, self._clock(), 0.0, Kind.APPEARED, etag=etag), sight)
            self._fold_if_many()
            self._file_came.notify_all()

    def come_back(self, path: str, seen: object, sight: FileState | None = None) -> None:
        """Have a file that was sent though it never rests taken again after as long as it was waited for. Nobody waits for that.

        Args:
            path: of the file.
            seen: comes back as `sent`.
            sight: comes back with it.
        """
        now = self._clock()
        with self._file_came:
            if path not in self._pending and not self._closed and len(self._back) < MOST_PENDING:
                self._back.pop(path, None)
                self._back[path] = Pending(path, now, now + self.patience, Kind.APPEARED, seen, sight)

    def take(self, most: int = 10_000) -> list[Pending]:
        """The files that are due, at most so many; waits until there are some. An empty list means that `close` was called."""
        with self._file_came:
            self._files_out = False
            while True:
                due = self._take_due(most)
                self._files_out = bool(due)
                self._takes += bool(due)
                if due or (self._closed and not self._pending):
                    return due
                next_file = self._next_file()
                self._file_came.wait(max(next_file - self._clock(), 0.0) if next_file < math.inf else None)

    def take_look(self) -> ScanRequest | None:
        """The next look, or None as soon as `close` was called; waits until there is one."""
        with self._look_came:
            self._look_out = False
            while not self._closed:
                now = self._clock()
                due = [look for look, at in self._looks.items() if at <= now]
                if due:
                    first = max(due, key=lambda look: look.seen_leaving)
                    del self._looks[first]
                    self._look_out = True
                    self._looks_taken += 1
                    return first
                self._look_came.wait(min(self._looks.values()) - now if self._looks else None)
            return None

    def close(self) -> None:
        """Let the takers go: what is pending is due now, looks are dropped (the next start looks everywhere)."""
        with self._file_came:
            self._closed = True
            self._back.clear()
            now = self._clock()
            for pending in self._pending.values():
                pending.due, pending.heaped = now, _AT_ONCE
            self._at_once = deque(self._pending)
            self._heap.clear()
            self._file_came.notify_all()
            self._look_came.notify_all()

    def is_idle(self) -> bool:
        """Whether nothing is pending."""
        with self._file_came:
            return not self._pending and not self._looks

    def is_through(self) -> bool:
        """Whether nothing is pending, and whoever took something last has dealt with it and asked again."""
        with self._file_came:
            return not (self._pending or self._looks or self._files_out or self._look_out)

    def passage(self) -> Callable[[], bool]:
        """What is to be asked, now and then, until it says that all is taken and dealt with that has been said up to this moment. A file
        that was made and whose close is yet to come is not waited for; one that somebody is found to write to is, for `patience`."""
        moment = self._clock()
        takes: int | None = None
        looks_taken: int | None = None

        def is_through() -> bool:
            nonlocal takes, looks_taken
            with self._file_came:
                if takes is None:
                    if any(one.since <= moment and one.kind is not _CREATED for one in self._pending.values()):
                        return False
                    takes = self._takes
                if self._files_out and self._takes == takes:
                    return False
                if looks_taken is None:
                    if self._looks:  # of a look that others were folded into, nobody knows since when it is wanted
                        return False
                    looks_taken = self._looks_taken
                return not (self._look_out and self._looks_taken == looks_taken)

        return is_through

    def _next_file(self) -> float:
        """When a file is due, at the soonest; infinity if none will be."""
        if self._at_once:
            return _AT_ONCE
        first = self._heap[0][0] if self._heap else math.inf
        return min(first, self._next_back().due) if self._back else first

    def _next_back(self) -> Pending:
        return next(iter(self._back.values()))

    def _add(self, path: str, now: float, kind: Kind) -> None:
        if self._back:
            self._back.pop(path, None)
        known = self._pending.get(path)
        since = known.since if known else now
        if kind in _CLOSED:
            last = self._sent.get(path)
            busy = last is not None and now < last + self.quiet
            due = now if not busy else min(now + self.quiet, since + self.patience)
        elif known is not None and (known.kind in _CLOSED or known.kind is _CREATED):
            return  # it is due anyway and will be looked at then, or its close will be seen
        else:
            due = now + max(self.quiet, _MAKING)
        self._wait(Pending(path, since, due, kind), known, now)
        self._fold_if_many()

    def _fold_if_many(self) -> None:
        if len(self._pending) > MOST_PENDING:
            self._pending.clear()
            self._heap.clear()
            self._at_once.clear()
            self._add_look(ScanRequest(LOOK_EVERYWHERE.path), self._clock())

    def _wait(self, pending: Pending, known: Pending | None, now: float) -> None:
        """One entry a path, in the queue or the heap, however often it is said: an entry that comes up too early is put back."""
        self._pending[pending.path] = pending
        if known is not None and known.heaped <= pending.due:
            pending.heaped = known.heaped
        elif pending.due <= now:
            self._at_once.append(pending.path)
        else:
            self._push(pending)

    def _push(self, pending: Pending) -> None:
        pending.heaped = pending.due
        heapq.heappush(self._heap, (pending.due, pending.path))

    def _take_due(self, most: int) -> list[Pending]:
        now = self._clock()
        due: list[Pending] = []
        while self._heap and self._heap[0][0] <= now and len(due) < most:
            at, path = heapq.heappop(self._heap)
            self._take_if_due(path, at, now, due)
        while self._at_once and len(due) < most:
            self._take_if_due(self._at_once.popleft(), _AT_ONCE, now, due)
        while self._back and len(due) < most and self._next_back().due <= now:
            due.append(self._back.pop(self._next_back().path))
        if len(self._sent) > self._most_sent:
            self._sent = {path: at for path, at in self._sent.items() if now < at + self.quiet}
            self._most_sent = 2 * len(self._sent) + _FEW
        return due

    def _take_if_due(self, path: str, at: float, now: float, due: list[Pending]) -> None:
        pending = self._pending.get(path)
        if pending is None or pending.heaped != at:
            return
        if pending.due > now:
            self._push(pending)
            return
        due.append(pending)
        del self._pending[path]
        if self.quiet:
            self._sent[path] = now

    def _add_look(self, look: ScanRequest, now: float) -> None:
        """Fold it with the others. A look at what has left and an ordinary one do not swallow each other: the first may delete more."""
        if any(_swallows(other, look) for other in self._looks):
            return
        for below in [other for other in self._looks if _swallows(look, other)]:
            del self._looks[below]
        self._looks[look] = now + (LOOK_DELAY if look.path else 0.0)
        self._look_came.notify_all()
        if len(self._looks) > MOST_LOOKS:
            paths = [look.path for look in self._looks]
            common = "" if "" in paths else commonpath(paths)
            self._looks = {ScanRequest(common): now + LOOK_DELAY}


def _swallows(one: ScanRequest, other: ScanRequest) -> bool:
    """Whether a look makes another one needless."""
    if one.seen_leaving != other.seen_leaving:
        return False
    return one.path in ("", other.path) or other.path.startswith(slashed(one.path))
