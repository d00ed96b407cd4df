"""The event reader turns the kernel's events into changes. It runs in a thread of its own, and does nothing slow."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set

from ..model import state_directory_mark as state_mark
from ..model.change import Change, Kind, Push
from ..model.keys import Keys
from ..model.paths import slashed
from .inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    Event,
    Inotify,
)
from .overflow import recover_from_overflow
from .unmounted import UnmountedTrees
from .watched_tree import PathRequest, WatchedTree

_LEFT = IN_DELETE | IN_MOVED_FROM
_CAME = IN_CREATE | IN_MOVED_TO
#: Events that are not about the content of a file.
_OTHER = IN_ISDIR | IN_Q_OVERFLOW | IN_IGNORED | IN_UNMOUNT | IN_ATTRIB

# Python 3.11 looks up a member of an enumeration each time that it is named, which costs time where it is done for each event.
_SAVED, _CREATED, _DELETED = Kind.SAVED, Kind.CREATED, Kind.DELETED

#: How long to wait for the close of a file that was created, in milliseconds. Most files are closed by then, and their creation need not be
#: reported. The close, or any other event, ends the wait.
_CLOSE_WAIT = 1


class EventReader:
    """Reads events until it is stopped.

    Args:
        keys: scope of the mirror.
        inotify: where events come from.
        tree: shared with the watch placer.
        push: receives the changes.
    """

    def __init__(self, keys: Keys, inotify: Inotify, tree: WatchedTree, push: Push) -> None:
        self._keys = keys
        self._inotify = inotify
        self._tree = tree
        self._watches, self._links, self._requests = tree.watches, tree.links, tree.requests
        self._push = push
        self._stop_read, self._stop_write = os.pipe()
        self._flush_read, self._flush_write = os.pipe()
        self._flushes: deque[Callable[[], None]] = deque()
        self._roots = frozenset(source.root for source in keys.sources)
        #: For sources that are single files: the directory of the file -> the paths of these files.
        self._single_files: dict[str, set[str]] = {}
        for source in keys.sources:
            if source.is_file:
                self._single_files.setdefault(source.root, set()).add(source.path)
        #: Roots whose watch the kernel has ended: they were removed or unmounted. Entries are removed by the user of this class.
        self.lost_roots: set[str] = set()
        #: File systems that were unmounted. The tree's lock must be held.
        self.unmounted = UnmountedTrees()

    def run(self) -> None:
        """Read events until `stop`, and then those that are in the kernel's queue at that moment."""
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        poll.register(self._flush_read, select.POLLIN)
        while self._stop_read not in (ready := [fd for fd, _ in poll.poll()]):
            if self._flush_read in ready:
                self._flush()
                continue
            events = self._inotify.read()
            if all(event.mask == IN_CREATE for event in events):
                poll.poll(_CLOSE_WAIT)
                events += self._inotify.read()
            self._process(events)
        self.read_waiting()

    def stop(self) -> None:
        """End `run`. From any thread."""
        os.write(self._stop_write, b".")

    def close(self) -> None:
        """Close the descriptors, after `run` has ended."""
        for descriptor in (self._stop_read, self._stop_write, self._flush_read, self._flush_write):
            os.close(descriptor)

    def flush(self, on_flushed: Callable[[], None]) -> None:
        """Push the changes for all events until now, and then send `on_flushed` to the watch placer. From any thread."""
        self._flushes.append(on_flushed)
        os.write(self._flush_write, b".")

    def read_waiting(self) -> None:
        """Push the changes for the events that are in the kernel's queue now."""
        for _ in range(self._inotify.reads_waiting()):
            self._process(self._inotify.read())

    def _flush(self) -> None:
        os.read(self._flush_read, 1 << 12)
        self.read_waiting()
        while self._flushes:
            self._requests.put(self._flushes.popleft())  # the placer calls it after the directories that have appeared

    def _process(self, events: Sequence[Event]) -> None:
        """Push the changes for events that were read together."""
        completed = {(wd, name) for wd, mask, _, name in events if mask & IN_CLOSE_WRITE}
        changes: list[Change] = []
        with self._tree.lock:  # a watch that the placer was adding is in the table now
            for event in events:
                if event.mask & _OTHER:
                    changes += self._other_changes(event)
                else:
                    self._add_file_changes(event, completed, changes)
            if self._tree.unreadable.has_changed:
                for path in self._tree.unreadable.pop_changed():
                    self._requests.put(PathRequest(self._tree.source_at(path), path))
        if changes:
            self._push(changes)

    def _add_file_changes(self, event: Event, completed: Set[tuple[int, str]], changes: list[Change]) -> None:
        """Append the changes for an event of a file.

        Args:
            event: the event.
            completed: watch descriptors and names of the files whose close was read together with the event. Their creation is not
                reported.
            changes: receives the changes.
        """
        wd, mask, _, name = event
        if not name:
            return
        if name == state_mark.NAME and mask & _CAME:
            changes += self._state_changes(wd)
        for directory in self._watches.paths(wd):
            path = slashed(directory) + name
            only = self._single_files.get(directory) if self._single_files else None
            if only is not None and path not in only:
                continue
            if mask & (_LEFT | _CAME) and self._links:
                self._tree.request_links(self._links.through(path))
                if path in self._links:
                    self._requests.put(PathRequest(self._tree.source_at(path), path))
            if mask & _LEFT:
                changes.append(Change(_DELETED, path))
            elif not mask & IN_CREATE or (wd, name) not in completed:
                kind = _CREATED if mask & IN_CREATE else _SAVED
                changes.append(Change(kind, path))
                changes += [Change(kind, link) for link in self._links.through(path)]

    def _state_changes(self, wd: int) -> list[Change]:
        """Forget a directory that becomes the state directory of an autosync. A scan reports it."""
        marked = [directory for directory in self._watches.paths(wd) if directory not in self._roots]
        for directory in marked:
            self._tree.forget(directory)
        return [Change(Kind.SCAN, directory) for directory in marked]

    def _other_changes(self, event: Event) -> Iterable[Change]:
        wd, mask, _, name = event
        if mask & IN_Q_OVERFLOW:
            recover_from_overflow(self._tree)
            return ()
        if mask & IN_UNMOUNT:  # an event for each watched directory of the file system, each followed by IN_IGNORED
            self._tree.departures += 1
            for directory in self._watches.paths(wd):
                self.unmounted.add(directory)
            return ()
        if mask & IN_ATTRIB:
            for directory in self._watches.paths(wd):
                self._tree.note_attributes(slashed(directory) + name if name else directory)
            return ()
        if mask & IN_IGNORED:
            self.lost_roots |= self._roots.intersection(self._watches.drop(wd))
            return ()
        changes: list[Change] = []
        for directory in self._watches.paths(wd) if name else ():
            changes += self._directory_changes(slashed(directory) + name, mask)
        return changes

    def _directory_changes(self, path: str, mask: int) -> list[Change]:
        if mask & _LEFT:
            self._tree.departures += 1
        source = self._keys.source_of(path)
        if source is None or source.is_file or not self._keys.enters(path):
            return []
        # A directory that was created or deleted is empty. One that was moved may hold what links lead to.
        was_moved = mask & (IN_MOVED_FROM | IN_MOVED_TO)
        self._tree.request_links(self._links.through_below(path) if was_moved else self._links.through(path))
        if mask & IN_MOVED_FROM:
            self._tree.forget(path)
        elif mask & IN_DELETE:
            self._watches.forget(path)
        if mask & _LEFT:
            # What was unmounted still exists. After that, the removal of the mount point proves nothing about the files.
            return [Change(Kind.SCAN if self.unmounted.touches(path) else Kind.LEFT, path)]
        self._requests.put(PathRequest(source, path))
        return []
