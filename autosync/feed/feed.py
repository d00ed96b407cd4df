"""The feed joins the halves: changes come from the watcher, differences from looks; keys go out, marked in the ledger and sent in batches.

    watcher -> debouncer -> feed -> ledger + queue          (events: one thread)
    timer, watcher -> debouncer -> scan -> ledger + queue   (scans: another, so that a long scan never delays an event)

A broker that is away delays and loses nothing: both threads wait for it; the kernel's queue and the debouncer keep what happens meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from ..broker.celery_settings import DELETE, UPLOAD
from ..compare.diff import Difference
from ..compare.scan import MOST_SKIPPED, Comparison, ScanReport
from ..errors import BrokerError, SourceUnsure, StartError, TargetError
from ..ledger import GONE, UNKNOWN, Hint, Ledger
from ..model.change import LOOK_EVERYWHERE, Change, Kind
from ..model.keys import Keys
from ..model.text import shown
from ..watch.debounce import Debouncer, Pending, ScanRequest
from ..watch.recheck import PathState, glance
from .publisher import Priority, Publisher
from .resting_files import MOST_WAITING, RestQueue

log = logging.getLogger(__name__)

#: A batch is full with so many keys or so many bytes. One of a look holds as many keys as all workers together make right in so many
#: seconds, up to a limit: each batch costs a worker as much as ten small files, and must not hold up what comes behind it.
BATCH_KEYS, _LARGEST_BATCH = 100, 500
BATCH_BYTES = 64 << 20
#: Deletions are not many requests for a worker, where the target takes as many with one.
_DELETES = 1000
_BATCH_SECONDS = 0.05
#: Over how many seconds it is measured how fast keys are made right.
_PACE_SECONDS = 0.5
#: Events are gathered for this part of the time that their message would wait, and for so many seconds at most.
_REST, _LONGEST_REST = 0.1, 0.05
#: A look waits while more keys than this are dirty; events do not wait.
HIGH_WATER = 20_000
#: How long the broker and the target are left alone after they failed, in seconds.
_BROKER_PAUSE = 0.5
_LOOK_PAUSES = (1.0, 5.0, 30.0, 60.0)

_SKIPPED_SHOWN = 10

T = TypeVar("T")


@dataclass
class Batch:
    """Keys on their way into the ledger and the queue. `gone` says that they were all deleted."""

    gone: bool = False
    keys: list[tuple[str, Hint]] = field(default_factory=list)
    size: int = 0

    def add(self, key: str, hint: Hint) -> None:
        """Put one more key in."""
        self.keys.append((key, hint))
        self.size += max(hint.size, 0)

    def is_full(self, most: int = BATCH_KEYS) -> bool:
        """Whether it is time to send it, if it may hold at most so many keys."""
        return len(self.keys) >= most or self.size >= BATCH_BYTES


class BatchSizer:
    """How fast all workers together make keys right, which says how many go into one message, and for how long to gather them.

    Args:
        clock: monotonic time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marked = self._done = 0
        self._began = clock()
        self._rate = 0.0
        #: Keys in one batch.
        self.batch = BATCH_KEYS

    def note(self, fresh: int, dirty: int) -> None:
        """So many keys have just become dirty, and so many are."""
        self._marked += fresh
        seconds = self._clock() - self._began
        if seconds >= _PACE_SECONDS:
            done = self._marked - dirty
            self._rate = (done - self._done) / seconds
            self.batch = min(max(int(self._rate * _BATCH_SECONDS), BATCH_KEYS), _LARGEST_BATCH)
            self._done, self._began = done, self._clock()

    def rest(self, behind: int) -> float:
        """For how long to gather events before the next message, in seconds, so that there is not one message for each: a tenth of the time
        for which it would wait behind so many keys anyway. 0.0 where it would not wait."""
        if behind < BATCH_KEYS:
            return 0.0
        return min(behind / max(self._rate, 1.0) * _REST, _LONGEST_REST)


class FinishedScan(NamedTuple):
    """When a look began, in seconds since the epoch, and when it ended, on the monotonic clock; `era`: the feed's when it began."""

    began: float
    ended: float
    era: int


class Stopped(Exception):  # noqa: N818 - not an error
    """The feed is being closed."""


class Feed:
    """Feeds the ledger and the queue of one mirror.

    Args:
        name: of the mirror.
        keys: its naming rule and scope.
        comparison: finds the differences.
        ledger: its ledger.
        publisher: sends its batches.
        settle: where changes come from.
        follow: whether links are followed.
        about: put in front of what is said to people, where there are several mirrors.
    """

    def __init__(
        self,
        name: str,
        keys: Keys,
        comparison: Comparison,
        ledger: Ledger,
        publisher: Publisher,
        settle: Debouncer,
        *,
        follow: bool = True,
        about: str = "",
    ) -> None:
        self.name = name
        self._about = about
        self.settle = settle
        self._keys = keys
        self._comparison = comparison
        self._ledger = ledger
        self._publisher = publisher
        self._follow = follow
        self._pace = BatchSizer()
        self._stop = threading.Event()
        #: What is not sent, by path, with the reason.
        self.skipped: dict[str, str] = {}
        #: Called with each link that an event tells of.
        self.on_link: Callable[[str], None] = lambda _: None
        #: Called before keys are marked or sent: somebody is going to be needed.
        self.on_work: Callable[[], None] = lambda: None
        #: How many deletions the last look everywhere held back.
        self.holding = 0
        #: Whether the mirror is accepted. As long as it is not, no look deletes anything.
        self.accepted = False
        #: Whether a look at a part of the source has withheld deletions since the last look everywhere began.
        self._has_withheld = False
        #: When the last look everywhere began after which nothing was left to do, in seconds since the epoch; 0: none yet.
        self.cleared = 0.0
        #: The last look everywhere, once it has ended.
        self.last_look: ScanReport | None = None
        #: The last complete look everywhere; its beginning becomes `cleared` once all that it found is made right.
        self.finished_look: FinishedScan | None = None
        #: Grows when looks that have begun prove nothing any more: the broker may have lost what they found, or the source is another.
        self.era = 0
        self.looking = threading.Event()
        #: Looks that were begun.
        self.looks = 0
        #: Looks that failed, since the last one that did not.
        self.failed_looks = 0
        #: What ended one of the threads, if anything did that should not.
        self.broken: Exception | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(self._feed_events,), name="autosync-feed", daemon=True),
            threading.Thread(target=self._guarded, args=(self._feed_looks,), name="autosync-look", daemon=True),
        ]

    def start(self) -> None:
        """Begin to feed."""
        for thread in self._threads:
            thread.start()

    def close(self, patience: float = 10.0) -> None:
        """Send what is pending, end a running look, and stop.

        Args:
            patience: how long to wait for a broker that does not answer, in seconds.
        """
        self.settle.close()
        self._threads[0].join(patience)
        self._stop.set()
        for thread in self._threads:
            thread.join(patience)

    def is_idle(self) -> bool:
        """Whether nothing is pending, no look is running, and everything that was found is marked and sent."""
        return self.settle.is_through()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Stopped:
            pass
        except Exception as error:  # whoever looks after the feed has to know
            log.debug("the feed ended", exc_info=True)
            self.broken = error

    # Events

    def _feed_events(self) -> None:
        while pending := self.settle.take():
            dirty = self._send_all(self._batches(pending), Priority.EVENT)
            self._stop.wait(self._pace.rest(dirty - len(pending)))

    def _batches(self, pending: Sequence[Pending]) -> Iterator[Batch]:
        """Sort what is due into batches; a file that turns out to be changing still goes back."""
        saved, gone = Batch(), Batch(gone=True)
        for one in pending:
            if not self._keys.covers(one.path):
                self._hear_marker(one)
                if os.path.islink(one.path):
                    self.on_link(one.path)  # to a directory, maybe, and what is below that may be in scope
                continue
            seen = self._seen_at(one)
            if seen is None:
                continue
            hint = _hint_of(seen, one)
            if not hint.gone and self._lacks_marker(one.path):
                continue
            if not seen.rests:
                if not seen.is_idle and time.monotonic() < one.since + self.settle.patience:
                    self.settle.postpone(one, seen.sight)
                    continue
                self.settle.come_back(one.path, hint[:2], seen.sight)
            if hint[:2] == one.sent:
                continue
            batch = gone if hint.gone else saved
            batch.add(self._keys.key(one.path), hint)
            if batch.is_full(_DELETES if batch.gone else self._pace.batch):
                yield batch
                saved, gone = (saved, Batch(gone=True)) if batch.gone else (Batch(), gone)
        yield from (batch for batch in (saved, gone) if batch.keys)

    def _hear_marker(self, one: Pending) -> None:
        """A done-marker that is made sets free what it speaks for."""
        if self._keys.is_marker(one.path) and os.path.lexists(one.path):
            path, is_directory = self._keys.marked_by(one.path)
            self.settle.say((Change(Kind.LOOK if is_directory else Kind.APPEARED, path),))

    def _lacks_marker(self, path: str) -> bool:
        marker = self._keys.marker_of(path)
        return bool(marker) and not os.path.lexists(marker)

    def _seen_at(self, one: Pending) -> PathState | None:
        """What stands at the path of a change. None: it is left alone."""
        source = self._keys.source_of(one.path)
        assert source is not None
        seen = glance(one, source, quiet=self.settle.quiet, follow=self._follow)
        if seen.is_link:
            self.on_link(one.path)
        found = seen.found
        if found is not None and found.skipped:
            self._note_skipped({found.path: found.skipped})
            return None if found.stays else PathState(None)
        return seen

    # Looks

    def _feed_looks(self) -> None:
        while (wanted := self.settle.take_look()) is not None:
            self.looking.set()
            self.looks += 1
            try:
                report = self.look(wanted)
            finally:
                self.looking.clear()
            if wanted.path == LOOK_EVERYWHERE.path:
                self.last_look = report
            if report.error is None:
                self.failed_looks = 0
                continue
            log.warning("%slook at %s: %s", self._about, wanted.path or "everything", report.error)
            self.failed_looks += 1
            self._pause(_LOOK_PAUSES[min(self.failed_looks, len(_LOOK_PAUSES)) - 1])
            self.settle.say((Change(Kind.LEFT if wanted.seen_leaving else Kind.LOOK, wanted.path),))

    def look(self, wanted: ScanRequest) -> ScanReport:
        """Compare a part of the source with the target and feed the differences.

        Args:
            wanted: which part.

        Returns:
            What was found; `error` if it could not be finished.

        Raises:
            Stopped: the feed was closed meanwhile.
        """
        report = ScanReport(noticed=lambda: self.on_work())
        began, era = time.time(), self.era
        everywhere = not wanted.path
        priority = Priority.FIRST_LOOK if everywhere and self.cleared == 0.0 else Priority.LOOK
        try:
            self._send_all(self._look_batches(wanted, report), priority, bounded=True)
        except (TargetError, SourceUnsure) as error:
            report.error = error
        except OSError as error:  # where listings are sorted
            report.error = StartError(
                f"{error.filename or 'the state directory'}: {error.strerror}", "make room, or give another --state-dir"
            )
        if report.error is None:
            self._note_skipped(report.skipped, everything=everywhere)
            self._has_withheld = self._has_withheld or (report.held > 0 and not self.accepted)
            if everywhere:
                self._note_look(report, min(began, report.busy_since), time.time() - began, era)
        return report

    def _note_look(self, report: ScanReport, began: float, seconds: float, era: int) -> None:
        self.finished_look = FinishedScan(began, time.monotonic(), era) if report.complete else None
        self._insist(lambda: self._ledger.sync_state.set_withheld_deletions(report.held))
        self.holding = report.held
        if not self.accepted and report.complete and not report.extra:
            self.accepted = True
            self._insist(lambda: self._ledger.sync_state.set_accepted(True))
            if self._has_withheld:  # what left the source during this look may go now
                self.settle.say((LOOK_EVERYWHERE,))
        log.info(
            "%scompared %d files in %.1f s: %d to upload, %d to check, %d to delete",
            self._about, report.seen, seconds, report.uploads, report.checks, report.deletes,
        )  # fmt: skip

    def _look_batches(self, wanted: ScanRequest, report: ScanReport) -> Iterator[Batch]:
        saved, gone, pace = Batch(), Batch(gone=True), self._pace
        found_keys = self._comparison.differences(
            wanted.path, report, self.cleared, seen_leaving=wanted.seen_leaving, holding=self.holding > 0, accepted=self.accepted
        )
        for key, found, etag, _ in self._rested(found_keys, report):
            batch = saved if found else gone
            if found is not None:
                report.checks += etag is not None
                report.uploads += etag is None
                batch.add(key, Hint(found.size, found.mtime_ns, etag or "", rested=True))
            else:
                batch.add(key, GONE)
            if batch.is_full(_DELETES if batch.gone else pace.batch):
                yield batch
                saved, gone = (saved, Batch(gone=True)) if batch.gone else (Batch(), gone)
        yield from (batch for batch in (saved, gone) if batch.keys)

    def _rested(self, differences: Iterable[Difference], report: ScanReport) -> Iterator[Difference]:
        """The differences, files once they rest; one that does not is left to the thread of events."""
        resting = RestQueue(self.settle.quiet)
        for difference in differences:
            if self._stop.is_set():
                raise Stopped
            if difference.found is None:
                yield from self._take_rested(resting, report, most=0)  # a renamed file is sent before its old key is deleted
                yield difference
                continue
            resting.add(difference, difference.found)
            yield from self._take_rested(resting, report, most=MOST_WAITING)
        yield from self._take_rested(resting, report, most=0)

    def _take_rested(self, resting: RestQueue, report: ScanReport, *, most: int) -> Iterator[Difference]:
        """What is due now; waits until no more than `most` are left."""
        while True:
            for difference, sight, rests in resting.due():
                if rests:
                    yield difference
                elif difference.found is not None:
                    report.busy_since = min(report.busy_since, difference.found.changed)
                    self.settle.wait_for_rest(difference.found.path, sight, difference.etag or "")
            if len(resting) <= most:
                return
            self._pause(resting.seconds())

    def _note_skipped(self, skipped: dict[str, str], *, everything: bool = False) -> None:
        """Say what is not sent, once, and keep the list for whoever asks."""
        fresh = {path: reason for path, reason in skipped.items() if self.skipped.get(path) != reason}
        if everything:
            changed = skipped != self.skipped
            self.skipped = skipped
        else:
            changed = bool(fresh) and len(self.skipped) < MOST_SKIPPED
            self.skipped = {**self.skipped, **fresh} if changed else self.skipped
        for path, reason in list(fresh.items())[:_SKIPPED_SHOWN]:
            log.warning("skipped: %s %s", shown(path), reason)
        if len(fresh) > _SKIPPED_SHOWN:
            log.warning("and %d more are skipped", len(fresh) - _SKIPPED_SHOWN)
        if changed:
            self._insist(lambda: self._ledger.sync_state.set_skipped(self.skipped))

    # Marking and sending

    def send(self, keys: Sequence[str], priority: Priority) -> None:
        """Send messages for keys that are marked already: swept ones."""
        self.on_work()
        for start in range(0, len(keys), BATCH_KEYS):
            self._publisher.send(keys[start : start + BATCH_KEYS], priority=priority)

    def mark_again(self, keys: Sequence[str]) -> None:
        """Have keys looked at again whose state nobody knows, such as those in the failed list.

        Raises:
            BrokerError: it did not answer. It is not waited for here: who asks for this is also who starts a dead broker again.
        """
        self.on_work()
        for start in range(0, len(keys), BATCH_KEYS):
            self._publisher.mark([(key, UNKNOWN) for key in keys[start : start + BATCH_KEYS]], size=0, priority=Priority.LOOK)

    def _send_all(self, batches: Iterable[Batch], priority: Priority, *, bounded: bool = False) -> int:
        """Returns how many keys were dirty at the last of them; 0 if there was none."""
        dirty = 0
        for batch in batches:
            dirty = self._send(batch, priority)
            while bounded and dirty > HIGH_WATER:
                self._pause(0.2)
                dirty = self._insist(self._ledger.key_states.count_dirty)
        return dirty

    def _send(self, batch: Batch, priority: Priority) -> int:
        """Mark and publish: what is marked is not forgotten, whatever happens to the message. Returns how many keys are dirty."""
        self.on_work()
        task = DELETE if batch.gone else UPLOAD
        marked = self._insist(lambda: self._publisher.mark(batch.keys, size=batch.size, priority=priority, task=task))
        self._pace.note(len(marked.fresh), marked.dirty)
        return marked.dirty

    def _insist(self, call: Callable[[], T]) -> T:
        """Try until the broker answers."""
        told = False
        while True:
            try:
                return call()
            except BrokerError as error:
                if not told:
                    log.warning("%s; what happens meanwhile is kept and sent later", error)
                told = True
                self._pause(_BROKER_PAUSE)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped


def _hint_of(seen: PathState, one: Pending) -> Hint:
    """What workers need to know of a path."""
    found = seen.found
    if found is None:
        return GONE if seen.known else UNKNOWN
    return Hint(found.size, found.mtime_ns, one.etag, rested=seen.rests and not one.is_closed)
