"""Raw inotify events become changes. The watcher keeps a watch on every directory of the sources and never compares anything.

What it cannot know it says as a look: a directory that appeared (files may have been made in it before its watch stood), one that left, a
queue that overflowed, a directory that cannot be watched.

A directory may be known by several names, its own and those of links to it; what happens in it is said for each. A link to a file is said
when the file changes. The thread that places watches resolves links, again each time that something on their way changes.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from ..model.change import SCAN_ALL, Change, Kind
from ..model.keys import Keys, Source, slashed
from ..model.mirror import Identity
from ..source.beneath import NotMirrored, open_directory_beneath, open_root, resolve_beneath, root_paths
from .inotify import IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_IGNORED, IN_ISDIR, IN_MOVED_FROM, IN_MOVED_TO, IN_Q_OVERFLOW, Event, Inotify
from .symlinks import Links, resolve_link
from .watch_table import WatchTable

log = logging.getLogger(__name__)

_LEFT = IN_DELETE | IN_MOVED_FROM
_CAME = IN_CREATE | IN_MOVED_TO
#: What is not about a file.
_OTHER = IN_ISDIR | IN_Q_OVERFLOW | IN_IGNORED
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# Python 3.11 looks a member of an enumeration up each time that it is named; that is noticed where it is done for each event.
_SAVED, _CREATED, _DELETED = Kind.SAVED, Kind.CREATED, Kind.DELETED

#: Whoever makes a file has most often closed it so soon, in milliseconds; then its making need not be told, which would only hold up who
#: waits for the close. Nothing is held up by this itself: the close ends it, as any event does.
_CLOSE_WAIT = 1

#: A directory may hold more files than fit in memory.
_PUSHED_AT_ONCE = 1000

T = TypeVar("T")

Push = Callable[[Iterable[Change]], None]


class _Directory(NamedTuple):
    """A directory whose watch stands, as it was reached; `real`: where it is below the root, without links; `below`: the paths of those
    directories in it that are to be watched, and of links to such."""

    path: str
    real: str
    below: list[str]


class Watcher:
    """Watches the sources of a mirror, with two threads of its own: one reads events and does nothing slow, one places watches.

    Args:
        keys: says which directories are visited and which paths belong to a source.
        say: called with changes, from both threads; must not block.
        follow: whether links are followed.

    Raises:
        OSError: the kernel gives no inotify instance.
    """

    def __init__(self, keys: Keys, push: Push, *, follow: bool = True) -> None:
        self._keys = keys
        self._push = push
        self._inotify = Inotify()
        self._stop_read, self._stop_write = os.pipe()
        self._flush_read, self._flush_write = os.pipe()
        self._lock = threading.Lock()
        self._follow = follow
        self._roots = frozenset(source.root for source in keys.sources)
        self._watches = WatchTable(self._inotify)
        self._single_files: dict[str, set[str]] = {}
        self._links = Links()
        #: Grows with each directory of which the reader has heard that it left: what was opened before may stand elsewhere since.
        self._departures = 0
        #: Directories that appeared, and links to be looked into; "everything" is a round through all of them, None the end, and what can
        #: be called is called.
        self._requests: _UniqueQueue[tuple[Source, str] | Literal["everything"] | Callable[[], None] | None] = _UniqueQueue()
        #: To be called once what has happened until now is said.
        self._flushes: deque[Callable[[], None]] = deque()
        #: Roots whose watch the kernel took away: they were removed or unmounted. What is there now has to be watched anew.
        self.lost_roots: set[str] = set()
        #: Directories that the kernel refused to watch since the last round began.
        self.unwatched = 0
        self._unwatched_logged = 0
        self._closing = False
        #: What ended one of the threads, if anything did that should not.
        self.error: Exception | None = None
        self._threads = [
            threading.Thread(target=self._run_guarded, args=(self._run_placer,), name="autosync-place", daemon=True),
            threading.Thread(target=self._run_guarded, args=(self._run_reader,), name="autosync-read", daemon=True),
        ]
        for source in keys.sources:
            if source.is_file:
                self._single_files.setdefault(source.root, set()).add(source.path)

    def start(self) -> None:
        """Begin. Says "look everywhere" as soon as the first watches stand, so that nothing falls between watching and looking."""
        self.place_all()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop both threads; what has been said until now stands."""
        if not self._closing:
            self._closing = True
            os.write(self._stop_write, b".")
            self._requests.put(None)
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()

    def close(self) -> None:
        """Stop, and give the watches back."""
        self.stop()
        self._inotify.close()
        for descriptor in (self._stop_read, self._stop_write, self._flush_read, self._flush_write):
            os.close(descriptor)

    def watches(self) -> int:
        """How many directories are watched."""
        return len(self._watches)

    def place_all(self) -> None:
        """Go through all directories and watch those that are not watched: made while events were lost, or refused before. Then says
        "look everywhere"."""
        self._requests.put("everything")

    def follow_link(self, link: str) -> None:
        """Follow a link of which nobody has told yet."""
        source = self._keys.source_of(link)
        if self._follow and source is not None and link not in self._links:
            self._requests.put((source, link))

    def flush(self, reached: Callable[[], None]) -> None:
        """Have all said that has happened in the sources until now.

        Args:
            reached: called then, from one of the threads; must not block.
        """
        self._flushes.append(reached)
        os.write(self._flush_write, b".")

    def replace_root(self, source: Source) -> None:
        """Watch anew what now stands where the root of this source is. Then says "look everywhere"."""
        self.lost_roots.discard(source.root)
        self._forget(source.root)
        self.place_all()

    def _run_guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whoever looks after the watcher has to know
            log.debug("the watcher ended", exc_info=True)
            self.error = error

    # Reading events

    def _run_reader(self) -> None:
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
        self._read_waiting()  # what had happened before the stop is still said, and no more

    def _read_waiting(self) -> None:
        """Push what events mean that are in the kernel's queue now."""
        for _ in range(self._inotify.reads_waiting()):
            self._process(self._inotify.read())

    def _flush(self) -> None:
        os.read(self._flush_read, 1 << 12)
        self._read_waiting()
        while self._flushes:
            self._requests.put(self._flushes.popleft())  # behind the directories that have appeared

    def _process(self, events: Sequence[Event]) -> None:
        """Push what events mean that were just read."""
        completed = {(wd, name) for wd, mask, _, name in events if mask & IN_CLOSE_WRITE}
        changes: list[Change] = []
        with self._lock:  # a watch that was being placed has its path by now
            for event in events:
                if event.mask & _OTHER:
                    changes += self._other_changes(event)
                else:
                    self._file_changes(event, completed, changes)
        if changes:
            self._push(changes)

    def _other_changes(self, event: Event) -> Iterable[Change]:
        wd, mask, _, name = event
        if mask & IN_Q_OVERFLOW:
            log.warning("the kernel's event queue overflowed: everything is compared again")
            self._departures += 1
            self.place_all()
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
            self._departures += 1
        source = self._keys.source_of(path)
        if source is None or source.is_file or not self._keys.enters(path):
            return []
        # A directory that is made or deleted is empty: what was in it, or will be, is told by itself.
        has_content = mask & (IN_MOVED_FROM | IN_MOVED_TO)
        self._requeue_links(self._links.through_below(path) if has_content else self._links.through(path))
        if mask & IN_MOVED_FROM:
            self._forget_locked(path)
        elif mask & IN_DELETE:
            self._watches.forget(path)
        if mask & _LEFT:
            return [Change(Kind.LEFT, path)]
        self._requests.put((source, path))
        return []

    def _file_changes(self, event: Event, completed: Set[tuple[int, str]], changes: list[Change]) -> None:
        """Add what an event of a file means. That one was made says nothing where its close was read together with it."""
        wd, mask, _, name = event
        if not name:
            return
        for directory in self._watches.paths(wd):
            path = slashed(directory) + name
            only = self._single_files.get(directory) if self._single_files else None
            if only is not None and path not in only:
                continue
            if mask & (_LEFT | _CAME) and self._links:
                self._requeue_links(self._links.through(path))
                if path in self._links:
                    self._requests.put((self._source(path), path))
            if mask & _LEFT:
                changes.append(Change(_DELETED, path))
            elif not mask & IN_CREATE or (wd, name) not in completed:
                kind = _CREATED if mask & IN_CREATE else _SAVED
                changes.append(Change(kind, path))
                changes += [Change(kind, link) for link in self._links.through(path)]

    def _requeue_links(self, links: Iterable[str]) -> None:
        """Something on the way of these links has changed."""
        for link in links:
            self._requests.put((self._source(link), link))

    def _source(self, path: str) -> Source:
        return next(source for source in self._keys.sources if source.holds(path))

    # Placing watches

    def _run_placer(self) -> None:
        while (wanted := self._requests.get()) is not None:
            if callable(wanted):
                wanted()
                continue
            if wanted == "everything":
                self._place_sources()
            else:
                self._place_path(*wanted)
            self._warn_if_unwatched()

    def _place_sources(self) -> None:
        self.unwatched = 0
        is_first = len(self._watches) == 0
        for source in self._keys.sources:
            self._place_tree(source, source.root, appeared=False)
        if not is_first:
            self._forget_lost()
        if not self._closing:
            log.info("watches are placed: %d", self.watches())
        self._push((SCAN_ALL,))

    def _place_path(self, source: Source, path: str) -> None:
        """A directory that appeared, or a link that has to be looked into."""
        if path in self._links or (self._follow and os.path.islink(path)):
            self._place_link(source, path)
        else:
            self._place_tree(source, path, appeared=True)
            self._push((Change(Kind.SCAN, path),))

    def _place_link(self, source: Source, link: str) -> None:
        with self._lock:
            was_directory = self._links.may_have_content(link)
            if was_directory or link in self._watches:
                self._forget_locked(link)
            else:
                self._links.forget(link)
        if os.path.islink(link):
            try:
                root = open_root(source.root)
            except OSError:
                return  # the loss of a root is told elsewhere
            try:
                is_directory = self._follow_link(root, source, link)
            finally:
                os.close(root)
        else:
            is_directory = os.path.isdir(link)  # one took its place
        is_directory = is_directory and self._keys.enters(link)
        if is_directory:
            self._place_tree(source, link, appeared=True)
        if is_directory or was_directory:
            self._push((Change(Kind.LEFT if was_directory else Kind.SCAN, link),))
        self._push((Change(Kind.SAVED, link),))

    def _follow_link(self, root: int, source: Source, link: str) -> bool:
        """Note where a link leads. Returns whether it is to a directory that is to be entered."""
        while True:
            target = resolve_link(root, source, link)
            with self._lock:
                if self._links.update(link, target):
                    return target.is_directory
            # What changes from now on is told; what changed before that is seen by following it once more.

    def _warn_if_unwatched(self) -> None:
        if self.unwatched and self.unwatched >= 2 * self._unwatched_logged:
            limit = Path("/proc/sys/fs/inotify/max_user_watches")
            allowed = int(limit.read_text()) if limit.exists() else 0
            log.warning(
                "the limit of watches is reached: %d of %d directories are not watched, and are compared every --rescan seconds; "
                "raise it with: sysctl fs.inotify.max_user_watches=%d",
                self.unwatched, self.unwatched + self.watches(), 1 << (allowed + self.unwatched).bit_length(),
            )  # fmt: skip
            self._unwatched_logged = self.unwatched
        self._unwatched_logged = min(self._unwatched_logged, self.unwatched)

    def _place_tree(self, source: Source, top: str, appeared: bool) -> None:
        """Watch a directory and those below it; the watch first, then the look inside, so that nothing falls between."""
        try:
            root = open_root(source.root)
        except OSError as error:
            log.error("source %s cannot be watched: %s", source.root, error.strerror)
            return
        try:
            first = self._place(root, source, top, appeared)
            waiting = [first] if first else []
            while waiting and not self._closing:
                waiting += self._place_below(root, source, waiting.pop(), appeared)
        finally:
            os.close(root)

    def _place(self, root: int, source: Source, directory: str, appeared: bool) -> _Directory | None:
        """Watch one directory, whatever links are on the way to it. Returns it if there is something below it to go on with."""
        relative = directory[len(source.root) :].strip("/")
        try:
            real, descriptor = self._open(root, source, relative)
        except NotMirrored:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                log.warning("%s cannot be watched: %s; it is compared every --rescan seconds", directory, error.strerror)
            return None
        return self._watch(root, source, _Directory(directory, real, []), descriptor, appeared)

    def _place_below(self, root: int, source: Source, above: _Directory, appeared: bool) -> Iterator[_Directory]:
        """Watch the directories in a directory: it is opened once for all of them. Gives those to go on with."""
        departures = self._departures
        try:
            parent = open_directory_beneath(root, above.real)
        except OSError:
            parent = -1  # it left, or is deeper than a path can say
        cut = len(slashed(above.path))
        prefix = above.real and above.real + "/"
        try:
            for path in above.below:
                if self._closing:
                    return
                name = path[cut:]
                try:
                    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)  # one name, and no link: nothing leads out of here
                except OSError:
                    found = self._place(root, source, path, appeared)
                else:
                    found = self._watch(root, source, _Directory(path, prefix + name, []), descriptor, appeared, departures)
                if found:
                    yield found
        finally:
            if parent >= 0:
                os.close(parent)

    def _watch(
        self, root: int, source: Source, here: _Directory, descriptor: int, appeared: bool, departures: int | None = None
    ) -> _Directory | None:
        """Watch an open directory and look inside.

        Args:
            root: descriptor of the source's root.
            source: that holds the directory.
            here: the directory; what is below it is put in.
            descriptor: of the directory; it is closed.
            appeared: whether its files are said.
            departures: how many there were when a directory above was opened by its path. As long as there are no more, it stands where it
                stood: of one that left since, the reader has yet to hear, and forgets its name then. None: the kernel is asked, as it is
                where directories are not watched, of which nobody hears.
        """
        try:
            if self._keys.is_state(slashed(source.root) + here.real):
                return None  # reached through a link
            self._add_watch(descriptor, here.path)
            is_certain = departures == self._departures and not self.unwatched
            if not is_certain and not _is_at(descriptor, root, here.real):
                self._forget(here.path)  # it was moved meanwhile; where it is now, it is placed by an event of its own
                return None
            if not source.is_file:
                self._read_inside(root, source, descriptor, here, appeared)
            return here if here.below else None
        finally:
            os.close(descriptor)

    def _open(self, root: int, source: Source, relative: str) -> tuple[str, int]:
        """Open a directory, and say where it really is."""
        try:
            return relative, open_directory_beneath(root, relative)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not self._follow:
                raise
        real = resolve_beneath(root, root_paths(source.root), relative).real
        return real, open_directory_beneath(root, real)

    def _add_watch(self, descriptor: int, directory: str) -> None:
        try:
            with self._lock:
                self._watches.add(descriptor, directory)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                log.warning("%s cannot be watched: %s; it is compared every --rescan seconds", directory, error.strerror)
            self.unwatched += 1

    def _read_inside(self, root: int, source: Source, descriptor: int, here: _Directory, appeared: bool) -> None:
        below: list[str] = []
        links: list[str] = []
        files: list[str] = []
        prefix = slashed(here.path)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(prefix + entry.name)
                    elif self._follow and entry.is_symlink():
                        links.append(prefix + entry.name)
                    elif appeared:
                        files.append(prefix + entry.name)
                        if len(files) == _PUSHED_AT_ONCE:
                            self._push_appeared(files)
                            files = []
        except OSError as error:
            if error.errno != errno.ENOENT:  # one that is gone is told by an event
                log.warning("%s cannot be read: %s", here.path, error.strerror)
        if appeared:
            self._requeue_links_through(below)
        for link in links:
            if self._follow_link(root, source, link):
                below.append(link)
            elif appeared:
                files.append(link)
        self._push_appeared(files)
        here.below.extend(path for path in below if self._keys.enters(path))

    def _push_appeared(self, files: Sequence[str]) -> None:
        self._requeue_links_through(files)
        if files:
            self._push([Change(Kind.APPEARED, path) for path in files])

    def _requeue_links_through(self, paths: Iterable[str]) -> None:
        """What was made before the watch stood is told by no event, and links may wait for it."""
        with self._lock:
            for path in paths if self._links else ():
                self._requeue_links(self._links.through(path))

    def _forget_lost(self) -> None:
        """Give back the watches on directories that left while events were lost."""
        with self._lock:
            paths = list(self._watches)
        gone = [path for path in paths if _is_gone(path)]
        with self._lock:
            for path in gone:
                self._forget_locked(path)

    def _forget(self, top: str) -> None:
        with self._lock:
            self._forget_locked(top)

    def _forget_locked(self, top: str) -> None:
        self._links.forget_below(top)
        self._watches.forget_below(top)


class _UniqueQueue(Generic[T]):
    """A queue in which each item waits once, however often it is put in: an event that changes what is yet to be seen adds nothing."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._inside: set[T] = set()
        self._lock = threading.Lock()

    def put(self, item: T) -> None:
        with self._lock:
            if item not in self._inside:
                self._inside.add(item)
                self._queue.put(item)

    def get(self) -> T:
        """Wait for the next. From now on it may be put in again."""
        item = self._queue.get()
        with self._lock:
            self._inside.discard(item)
        return item


def _is_at(descriptor: int, root: int, relative: str) -> bool:
    """Whether an open directory has this path below the root now, on the kernel's word (proc_pid_fd(5)). Where the path is too long for it
    to say, yes."""
    try:
        top = os.readlink(f"/proc/self/fd/{root}")
        return os.readlink(f"/proc/self/fd/{descriptor}") == (slashed(top) + relative if relative else top)
    except OSError:
        return True


def _is_gone(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    return False


def identity_of(root: str) -> Identity:
    """Which directory stands at this path now.

    Raises:
        OSError: none does.
    """
    stats = os.stat(root)
    return Identity(stats.st_dev, stats.st_ino)
