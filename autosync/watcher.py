"""Raw inotify events become changes. The watcher keeps a watch on every directory of the sources and never compares anything.

What it cannot know it says as a look: a directory that appeared (files may have been made in it before its watch stood), one that left, a
queue that overflowed, a directory that cannot be watched.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import select
import threading
from collections.abc import Callable, Iterable
from typing import Literal

from .change import LOOK_EVERYWHERE, Change, Kind
from .inotify import (
    IN_CLOSE_WRITE,
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
from .mirror import Identity
from .tree import open_directory_beneath, open_root

log = logging.getLogger(__name__)

_MASK = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO
_LEFT = IN_DELETE | IN_MOVED_FROM
_CAME = IN_CREATE | IN_MOVED_TO

Say = Callable[[Iterable[Change]], None]


class Watcher:
    """Watches the sources of a mirror, with two threads of its own: one reads events and does nothing slow, one places watches.

    Args:
        keys: says which directories are visited and which paths belong to a source.
        say: called with changes, from both threads; must not block.

    Raises:
        OSError: the kernel gives no inotify instance.
    """

    def __init__(self, keys: Keys, say: Say) -> None:
        self._keys = keys
        self._say = say
        self._inotify = Inotify()
        self._stop_read, self._stop_write = os.pipe()
        self._lock = threading.Lock()
        self._paths: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._only: dict[str, set[str]] = {}
        #: Directories that appeared; "everything" is a round through all of them, and None the end.
        self._to_place: queue.SimpleQueue[tuple[Source, str] | Literal["everything"] | None] = queue.SimpleQueue()
        self._refused = False
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

    def replace_root(self, source: Source) -> None:
        """Watch anew what now stands where the root of this source is. Then says "look everywhere"."""
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
        while True:
            stopping = any(fd == self._stop_read for fd, _ in poll.poll())
            heard = self._hear()
            while stopping and heard:  # what had happened before the stop is still said
                heard = self._hear()
            if stopping:
                return

    def _hear(self) -> bool:
        """Say what the events that are waiting mean. Returns whether there were any."""
        with self._lock:  # a watch that is being placed has its path before its events are looked at
            events = list(self._inotify.read())
            changes = [change for event in events for change in self._changes(event)]
        if changes:
            self._say(changes)
        return bool(events)

    def _changes(self, event: Event) -> Iterable[Change]:
        wd, mask, _, name = event
        if mask & IN_Q_OVERFLOW:
            log.warning("the kernel's event queue overflowed: everything is compared again")
            self.place_again()
            return ()
        directory = self._paths.get(wd)
        if mask & IN_IGNORED:
            if directory is not None:
                del self._paths[wd]
                if self._watches.get(directory) == wd:
                    del self._watches[directory]
            return ()
        if directory is None or not name:
            return ()
        path = slashed(directory) + name
        return self._directory_changes(path, mask) if mask & IN_ISDIR else self._file_changes(directory, path, mask)

    def _directory_changes(self, path: str, mask: int) -> Iterable[Change]:
        source = self._keys.source_of(path)
        if source is None or source.is_file or not self._keys.enters(path):
            return ()
        if mask & _LEFT:
            self._forget_locked(path)
        else:
            self._to_place.put((source, path))
        return (Change(Kind.LOOK, path),) if mask & _LEFT else ()

    def _file_changes(self, directory: str, path: str, mask: int) -> Iterable[Change]:
        only = self._only.get(directory)
        if only is not None and path not in only:
            return ()
        if mask & _LEFT:
            return (Change(Kind.DELETED, path),)
        return (Change(Kind.CREATED if mask & IN_CREATE else Kind.SAVED, path),)

    # Placing watches

    def _place_all(self) -> None:
        while (wanted := self._to_place.get()) is not None:
            if wanted == "everything":
                for source in self._keys.sources:
                    self._place_tree(source, source.root, appeared=False)
                self._forget_lost()
                self._say((LOOK_EVERYWHERE,))
            else:
                self._place_tree(*wanted, appeared=True)
                self._say((Change(Kind.LOOK, wanted[1]),))

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
        try:
            descriptor = open_directory_beneath(root, directory[len(source.root) :].strip("/"))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                log.warning("%s cannot be watched: %s; it is compared every --rescan seconds", directory, error.strerror)
            return []
        try:
            self._add(descriptor, directory)
            if not _stands_at(descriptor, root, directory[len(source.root) :].strip("/")):
                self._forget(directory)  # it was moved meanwhile; where it is now, it is placed by an event of its own
                return []
            return [] if source.is_file else self._see_inside(descriptor, directory, appeared)
        finally:
            os.close(descriptor)

    def _add(self, descriptor: int, directory: str) -> None:
        try:
            with self._lock:
                wd = self._inotify.add(descriptor, _MASK)
                before = self._paths.get(wd)
                if before is not None and self._watches.get(before) == wd:
                    del self._watches[before]
                self._paths[wd] = directory
                self._watches[directory] = wd
        except OSError as error:
            if not self._refused:
                cure = "raise it with: sysctl fs.inotify.max_user_watches=1048576" if error.errno == errno.ENOSPC else ""
                log.warning(
                    "%s cannot be watched after %d others: %s; %s. What is not watched is compared every --rescan seconds",
                    directory, len(self._watches), "the limit of watches is reached" if cure else error.strerror, cure,
                )  # fmt: skip
            self._refused = True

    def _see_inside(self, descriptor: int, directory: str, appeared: bool) -> list[str]:
        below, changes = [], []
        prefix = slashed(directory)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if self._keys.enters(path):
                            below.append(path)
                    elif appeared:
                        changes.append(Change(Kind.APPEARED, path))
        except OSError as error:
            if error.errno != errno.ENOENT:  # one that is gone is told by an event
                log.warning("%s cannot be read: %s", directory, error.strerror)
        if changes:
            self._say(changes)
        return below

    def _forget_lost(self) -> None:
        """Give back the watches on directories that left while events were lost."""
        with self._lock:
            paths = list(self._watches)
        gone = [path for path in paths if _is_gone(path)]
        with self._lock:
            for path in gone:
                self._forget_locked(path)
            for wd, path in list(self._paths.items()):
                if self._watches.get(path) != wd:
                    del self._paths[wd]
                    self._inotify.remove(wd)

    def _forget(self, top: str) -> None:
        with self._lock:
            self._forget_locked(top)

    def _forget_locked(self, top: str) -> None:
        if top not in self._watches:
            return  # nothing below can be watched either
        prefix = slashed(top)
        for path in [path for path in self._watches if path == top or path.startswith(prefix)]:
            wd = self._watches.pop(path)
            self._paths.pop(wd, None)
            self._inotify.remove(wd)


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
