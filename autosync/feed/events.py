"""The thread of events: changes that the watcher saw become batches.

    watcher -> debouncer -> event feed -> ledger + queue

A broker that is away delays and loses nothing: the thread waits for it; the kernel's queue and the debouncer keep what happens meanwhile.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from ..ledger import GONE, UNKNOWN, Hint
from ..model.change import Change, Kind
from ..model.file_rules import FileRules
from ..model.keys import Keys
from ..source.entry import Entry, entry_at
from ..watch.debounce import Debouncer, UnsentChange
from ..watch.hard_links import HardLinks
from ..watch.recheck import PathState, recheck
from .batches import Batch, BatchBuilder, BatchSender
from .broker_retry import FeedThread
from .publisher import Priority
from .skipped_paths import SkippedPaths


class EventFeed(FeedThread):
    """Takes changes from the debouncer, checks each path on the disk, and sends its key.

    Args:
        keys: naming rule and scope of the mirror.
        debouncer: where changes come from.
        sender: where batches go.
        skipped: receives paths that are not mirrored.
        stop: set when the mirror is closed; the mirror's `BrokerRetry` has the same.
        on_link: called with the path of each symbolic link among the changes.
        rules: which files are sent.
        is_certain: whether a path at which nothing was found can count as gone, see `DeferredScans.is_certain`.
        hard_links: the names of files with more than one.
        is_beyond_links: whether a path is behind links that lead to too many keys, see `FollowedLinks`.
    """

    def __init__(
        self,
        keys: Keys,
        debouncer: Debouncer,
        sender: BatchSender,
        skipped: SkippedPaths,
        stop: threading.Event,
        *,
        on_link: Callable[[str], None] = lambda _: None,
        rules: FileRules | None = None,
        is_certain: Callable[[str], bool] = lambda _: True,
        hard_links: HardLinks | None = None,
        is_beyond_links: Callable[[str], bool] = lambda _: False,
    ) -> None:
        super().__init__("autosync-events")
        self._keys = keys
        self._debouncer = debouncer
        self._sender = sender
        self._skipped = skipped
        self._stop = stop
        self._on_link = on_link
        self._rules = rules or FileRules()
        self._is_certain = is_certain
        self._hard_links = HardLinks() if hard_links is None else hard_links
        self._is_beyond_links = is_beyond_links
        #: Inodes of the files with more than one name whose other names are added to the batches that are made now.
        self._spread: set[int] = set()

    def close(self, patience: float = 10.0) -> None:
        """Send what is unsent, and end the thread.

        Args:
            patience: how long to wait for a broker that does not respond, in seconds.
        """
        self._debouncer.close()
        self._thread.join(patience)
        self._stop.set()
        self._thread.join(patience)

    def _run(self) -> None:
        while unsent := self._debouncer.pop_due():
            dirty = self._sender.send_all(self._batches(unsent), Priority.EVENT)
            self._stop.wait(self._sender.sizer.gathering_time(dirty - len(unsent)))

    def _batches(self, unsent: Sequence[UnsentChange]) -> Iterator[Batch]:
        builder = BatchBuilder(self._sender.sizer)
        self._spread.clear()
        for change in unsent:
            others: list[str] = []
            for path, hint in ((change.path, self._hint(change, others)), *self._hints_of_others(others)):
                full = builder.add(self._keys.key(path), hint) if hint is not None else None
                if full is not None:
                    yield full
        yield from builder.remaining()
        self._skipped.publish()

    def _hint(self, change: UnsentChange, others: list[str]) -> Hint | None:
        """The hint to send for a change. None: nothing is to be sent now. A file that is still changing goes back to the debouncer.

        Args:
            change: the change.
            others: receives the other names of a file that was saved.
        """
        if not self._keys.covers(change.path):
            self._release_marked(change.path)
            if change.path in self._skipped.reasons:
                self._recheck(change)  # a link to a directory, which a scan has found
            else:
                self._check_out_of_scope(change, others)
            return None
        if self._is_beyond_links(change.path):
            return None  # the last scan has reported it as skipped
        state = self._recheck(change)
        if state is None:
            return None
        if state.found is None and not self._is_certain(change.path):
            return None  # what is not found may only be hidden
        hint = _hint_of(state, change)
        if not hint.gone and self._lacks_marker(change.path):
            self._add_other_names(change, state.found, others)
            return None
        if not state.rests:
            if not state.is_idle and time.monotonic() < change.since + self._debouncer.max_wait:
                self._debouncer.requeue(change, state.file_state)
                return None
            self._debouncer.requeue_after(change.path, hint[:2], state.file_state)
        if hint[:2] == change.sent:
            return None
        self._add_other_names(change, state.found, others)
        return hint

    def _check_out_of_scope(self, change: UnsentChange, others: list[str]) -> None:
        """Check a path out of scope: a link may lead to a directory that holds keys in scope, and a file may have another name in scope."""
        try:
            stats = os.lstat(change.path)
        except OSError:
            return
        if stat.S_ISLNK(stats.st_mode):
            self._on_link(change.path)
        else:
            self._add_other_names(change, entry_at(change.path, stats, self._rules), others)

    def _add_other_names(self, change: UnsentChange, found: Entry | None, others: list[str]) -> None:
        """Add the other names of a file to `others`, once for each call of `_batches`. A new name (`CREATED`) changes no content."""
        if found is None or found.links < 2 or change.kind is Kind.CREATED or found.inode in self._spread:
            return
        self._spread.add(found.inode)
        others += self._hard_links.saved(change.path, found.inode, found.links)

    def _hints_of_others(self, others: Sequence[str]) -> Iterator[tuple[str, Hint | None]]:
        """Other names of a file that was saved, with their hints. Names that were found outside the scope are not among them."""
        now = time.monotonic()
        for path in others:
            yield path, self._hint(UnsentChange(path, now, now, Kind.SAVED), [])

    def _note_names(self, path: str, found: Entry | None) -> None:
        """Note what an event has found out about the names of files."""
        if found is not None and found.links > 1:
            self._hard_links.add(path, found.inode)
        elif self._hard_links:
            if found is None or not found.inode:
                self._hard_links.discard(path)
            else:
                self._hard_links.found_alone(path, found.inode)

    def _release_marked(self, path: str) -> None:
        """If a path is a done-marker that exists, have the debouncer pass on what waits for it."""
        if self._keys.is_marker(path) and os.path.lexists(path):
            marked, is_directory = self._keys.marked_by(path)
            self._debouncer.push((Change(Kind.SCAN if is_directory else Kind.APPEARED, marked),))

    def _lacks_marker(self, path: str) -> bool:
        marker = self._keys.marker_of(path)
        return bool(marker) and not os.path.lexists(marker)

    def _recheck(self, change: UnsentChange) -> PathState | None:
        """What the disk holds at the path of a change. None: the target is left as it is."""
        source = self._keys.source_of(change.path)
        assert source is not None
        state = recheck(change, source, quiet=self._debouncer.quiet, rules=self._rules)
        if state.is_link:
            self._on_link(change.path)
        found = state.found
        self._note_names(change.path, found)
        if found is not None and found.skipped:
            self._skipped.add(found.path, found.skipped)
            return None if found.keep_in_target else PathState(None)
        if self._skipped.reasons and state.is_certain:
            self._skipped.discard(change.path)
        return state


def _hint_of(state: PathState, change: UnsentChange) -> Hint:
    found = state.found
    if found is None:
        return GONE if state.is_certain else UNKNOWN
    return Hint(found.size, found.mtime_ns, change.etag, rested=state.rests and not change.is_closed)
