"""Raw inotify events become changes. The watcher keeps a watch on every directory of the sources and never compares anything.

What it cannot know it says as a look: a directory that appeared (files may have been made in it before its watch stood), one that left, a
queue that overflowed, a directory that cannot be watched.

A directory may be known by several names, its own and those of links to it; what happens in it is said for each. A link to a file is said
when the file changes. Where links lead is found out by the thread that places watches, again each time that something on their way changes.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import select
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar

from .change import LOOK_EVERYWHERE, Change, Kind
from .inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_Q_OVERFLOW,
    Event,
    Inotify,
)
from .keys import Keys, Source, slashed
from .links import Links, lead_of
from .mirror import Identity
from .tree import Withheld, open_directory_beneath, open_root, resolve_beneath, tops_of
from .watches import Watches

log = logging.getLogger(__name__)

_LEFT = IN_DELETE | IN_MOVED_FROM
_CAME = IN_CREATE | IN_MOVED_TO

#: A directory may hold more files than fit in memory.
_SAID_AT_ONCE = 1000

T = TypeVar("T")

Say = Callable[[Iterable[Change]], None]


class Watcher:
    """Watches the sources of a mirror, with two threads of its own: one reads events and does nothing slow, one places watches.

    Args:
        keys: says which directories are visited and which paths belong to a source.
        say: called with changes, from both threads; must not block.
        follow: whether links are followed.

    Raises:
        OSError: the kernel gives no inotify instance.
    """

    def __init__(self, keys: Keys, say: Say, *, follow: bool = True) -> None:
        self._keys = keys
        self._say = say
        self._inotify = Inotify()
        self._stop_read, self._stop_write = os.pipe()
        self._lock = threading.Lock()
        self._follow = follow
        self._roots = frozenset(source.root for source in keys.sources)
        self._watches = Watches(self._inotify)
        self._only: dict[str, set[str]] = {}
        self._links = Links()
        #: Directories that appeared, and links to be looked into; "everything" is a round through all of them, and None the end.
        self._to_place: _Waiting[tuple[Source, str] | Literal["everything"] | None] = _Waiting()
        #: Roots whose watch the kernel took away: they were removed or unmounted. What is there now has to be watched anew.
        self.lost_roots: set[str] = set()
        #: Directories that the kernel refused to watch since the last round began.
        self.unwatched = 0
        self._unwatched_told = 0
        self._closing = False
        #: What ended one of the threads, if anything did that should not.
        self.broken: Exception | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(self._place_all,), name="autosync-place", daemon=True),
            threading.Thread(target=self._guarded, args=(self._read_all,), name="autosync-read", daemon=True),
        ]
        for source in keys.sources:
            if source.is_file:
                self._only.setdefault(source.root, set()).add(source.path)

    def start(self) -> None:
        """Begin. Says "look everywhere" as soon as the first watches stand, so that nothing falls between watching and looking."""
        self.place_again()
        for thread in self._threads:
            thread.start()

    def stop_reading(self) -> None:
        """Stop both threads; what has been said until now stands."""
        if not self._closing:
            self._closing = True
            os.write(self._stop_write, b".")
            self._to_place.put(None)
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()

    def close(self) -> None:
        """Stop, and give the watches back."""
        self.stop_reading()
        self._inotify.close()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def watches(self) -> int:
        """How many directories are watched."""
        return len(self._watches)

    def place_again(self) -> None:
        """Go through all directories and watch those that are not watched: made while events were lost, or refused before. Then says
        "look everywhere"."""
        self._to_place.put("everything")

    def look_into(self, link: str) -> None:
        """Follow a link of which nobody has told yet."""
        source = self._keys.source_of(link)
        if self._follow and source is not None and link not in self._links:
            self._to_place.put((source, link))

    def replace_root(self, source: Source) -> None:
        """Watch anew what now stands where the root of this source is. Then says "look everywhere"."""
        self.lost_roots.discard(source.root)
        self._forget(source.root)
        self.place_again()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whoever looks after the watcher has to know
            log.debug("the watcher ended", exc_info=True)
            self.broken = error

    # Reading events

    def _read_all(self) -> None:
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        while not any(fd == self._stop_read for fd, _ in poll.poll()):
            self._hear()
        for _ in range(self._inotify.reads_waiting()):  # what had happened before the stop is still said, and no more
            self._hear()

    def _hear(self) -> None:
        """Say what the events that are waiting mean."""
        with self._lock:  # a watch that is being placed has its path before its events are looked at
            changes = [change for event in self._inotify.read() for change in self._changes(event)]
        if changes:
            self._say(changes)

    def _changes(self, event: Event) -> Iterable[Change]:
        wd, mask, _, name = event
        if mask & IN_Q_OVERFLOW:
            log.warning("the kernel's event queue overflowed: everything is compared again")
            self.place_again()
            return ()
        if mask & IN_IGNORED:
            self.lost_roots |= self._roots.intersection(self._watches.lost(wd))
            return ()
        changes: list[Change] = []
        for directory in self._watches.names(wd) if name else ():
            path = slashed(directory) + name
            changes += self._directory_changes(path, mask) if mask & IN_ISDIR else self._file_changes(directory, path, mask)
        return changes

    def _directory_changes(self, path: str, mask: int) -> list[Change]:
        source = self._keys.source_of(path)
        if source is None or source.is_file or not self._keys.enters(path):
            return []
        # A directory that is made or deleted is empty: what was in it, or will be, is told by itself.
        is_whole = mask & (IN_MOVED_FROM | IN_MOVED_TO)
        self._look_again(self._links.through_below(path) if is_whole else self._links.through(path))
        if mask & IN_MOVED_FROM:
            self._forget_locked(path)
        elif mask & IN_DELETE:
            self._watches.forget(path)
        if mask & _LEFT:
            return [Change(Kind.LEFT, path)]
        self._to_place.put((source, path))
        return []

    def _file_changes(self, directory: str, path: str, mask: int) -> list[Change]:
        only = self._only.get(directory)
        if only is not None and path not in only:
            return []
        if mask & (_LEFT | _CAME):
            self._look_again(self._links.through(path))
            if path in self._links:
                self._to_place.put((self._source(path), path))
        if mask & _LEFT:
            return [Change(Kind.DELETED, path)]
        kind = Kind.CREATED if mask & IN_CREATE else Kind.SAVED
        return [Change(kind, name) for name in (path, *self._links.through(path))]

    def _look_again(self, links: Iterable[str]) -> None:
        """Something on the way of these links has changed."""
        for link in links:
            self._to_place.put((self._source(link), link))

    def _source(self, path: str) -> Source:
        return next(source for source in self._keys.sources if source.holds(path))

    # Placing watches

    def _place_all(self) -> None:
        while (wanted := self._to_place.get()) is not None:
            if wanted == "everything":
                self._place_everything()
            else:
                self._place_one(*wanted)
            self._tell_unwatched()

    def _place_everything(self) -> None:
        self.unwatched = 0
        for source in self._keys.sources:
            self._place_tree(source, source.root, appeared=False)
        self._forget_lost()
        self._say((LOOK_EVERYWHERE,))

    def _place_one(self, source: Source, path: str) -> None:
        """A directory that appeared, or a link that has to be looked into."""
        if path in self._links or (self._follow and os.path.islink(path)):
            self._place_link(source, path)
        else:
            self._place_tree(source, path, appeared=True)
            self._say((Change(Kind.LOOK, path),))

    def _place_link(self, source: Source, link: str) -> None:
        with self._lock:
            was_directory = self._links.has_below(link)
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
            self._say((Change(Kind.LEFT if was_directory else Kind.LOOK, link),))
        self._say((Change(Kind.SAVED, link),))

    def _follow_link(self, root: int, source: Source, link: str) -> bool:
        """Note where a link leads. Returns whether it is to a directory that is to be entered."""
        while True:
            lead = lead_of(root, source, link)
            with self._lock:
                if self._links.note(link, lead):
                    return lead.is_directory
            # What changes from now on is told; what changed before that is seen by following it once more.

    def _tell_unwatched(self) -> None:
        if self.unwatched and self.unwatched >= 2 * self._unwatched_told:
            limit = Path("/proc/sys/fs/inotify/max_user_watches")
            allowed = int(limit.read_text()) if limit.exists() else 0
            log.warning(
                "the limit of watches is reached: %d of %d directories are not watched, and are compared every --rescan seconds; "
                "raise it with: sysctl fs.inotify.max_user_watches=%d",
                self.unwatched, self.unwatched + self.watches(), 1 << (allowed + self.unwatched).bit_length(),
            )  # fmt: skip
            self._unwatched_told = self.unwatched
        self._unwatched_told = min(self._unwatched_told, self.unwatched)

    def _place_tree(self, source: Source, top: str, appeared: bool) -> None:
        """Watch a directory and those below it; the watch first, then the look inside, so that nothing falls between."""
        try:
            root = open_root(source.root)
        except OSError as error:
            log.error("source %s cannot be watched: %s", source.root, error.strerror)
            return
        try:
            waiting = [top]
            while waiting and not self._closing:
                directory = waiting.pop()
                waiting += self._place(root, source, directory, appeared)
        finally:
            os.close(root)

    def _place(self, root: int, source: Source, directory: str, appeared: bool) -> list[str]:
        relative = directory[len(source.root) :].strip("/")
        try:
            real, descriptor = self._open(root, source, relative)
        except Withheld:
            return []
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                log.warning("%s cannot be watched: %s; it is compared every --rescan seconds", directory, error.strerror)
            return []
        try:
            self._add(descriptor, directory)
            if not _stands_at(descriptor, root, real):
                self._forget(directory)  # it was moved meanwhile; where it is now, it is placed by an event of its own
                return []
            return [] if source.is_file else self._see_inside(root, source, descriptor, directory, appeared)
        finally:
            os.close(descriptor)

    def _open(self, root: int, source: Source, relative: str) -> tuple[str, int]:
        """Open a directory, and say where it really is."""
        try:
            return relative, open_directory_beneath(root, relative)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not self._follow:
                raise
        real = resolve_beneath(root, tops_of(source.root), relative).real
        return real, open_directory_beneath(root, real)

    def _add(self, descriptor: int, directory: str) -> None:
        try:
            with self._lock:
                self._watches.add(descriptor, directory)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                log.warning("%s cannot be watched: %s; it is compared every --rescan seconds", directory, error.strerror)
            self.unwatched += 1

    def _see_inside(self, root: int, source: Source, descriptor: int, directory: str, appeared: bool) -> list[str]:
        below: list[str] = []
        links: list[str] = []
        files: list[str] = []
        prefix = slashed(directory)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        below.append(path)
                    elif self._follow and entry.is_symlink():
                        links.append(path)
                    elif appeared:
                        files.append(path)
                        if len(files) == _SAID_AT_ONCE:
                            self._say_appeared(files)
                            files = []
        except OSError as error:
            if error.errno != errno.ENOENT:  # one that is gone is told by an event
                log.warning("%s cannot be read: %s", directory, error.strerror)
        if appeared:
            self._look_through(below)
        for link in links:
            if self._follow_link(root, source, link):
                below.append(link)
            elif appeared:
                files.append(link)
        self._say_appeared(files)
        return [path for path in below if self._keys.enters(path)]

    def _say_appeared(self, files: Sequence[str]) -> None:
        self._look_through(files)
        if files:
            self._say([Change(Kind.APPEARED, path) for path in files])

    def _look_through(self, paths: Iterable[str]) -> None:
        """What was made before the watch stood is told by no event, and links may wait for it."""
        with self._lock:
            for path in paths:
                self._look_again(self._links.through(path))

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


class _Waiting(Generic[T]):
    """A queue in which each thing waits once, however often it is put in: an event that changes what is yet to be seen adds nothing."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._inside: set[T] = set()
        self._lock = threading.Lock()

    def put(self, thing: T) -> None:
        with self._lock:
            if thing not in self._inside:
                self._inside.add(thing)
                self._queue.put(thing)

    def get(self) -> T:
        """Wait for the next. From now on it may be put in again."""
        thing = self._queue.get()
        with self._lock:
            self._inside.discard(thing)
        return thing


def _stands_at(descriptor: int, root: int, relative: str) -> bool:
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
    seen = os.stat(root)
    return Identity(seen.st_dev, seen.st_ino)
