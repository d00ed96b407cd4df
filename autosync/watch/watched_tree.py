"""What the event reader and the watch placer share: watches, links, and the queue of requests to the placer."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Generic, Literal, NamedTuple, TypeVar

from ..model.keys import Keys, Source
from ..source.beneath import open_directory_beneath, resolve_beneath, root_paths
from .denied_paths import DeniedPaths
from .symlinks import Links
from .watch_table import WatchTable

T = TypeVar("T")


class UniqueQueue(Generic[T]):
    """A queue that holds each item once, however often it is put in. Safe to use from many threads."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._inside: set[T] = set()
        self._lock = threading.Lock()

    def put(self, item: T) -> None:
        """Add an item, unless it is in the queue."""
        with self._lock:
            if item not in self._inside:
                self._inside.add(item)
                self._queue.put(item)

    def get(self) -> T:
        """Remove and return the first item; waits for one. From now on it can be put in again."""
        item = self._queue.get()
        with self._lock:
            self._inside.discard(item)
        return item


class PathRequest(NamedTuple):
    """A request to watch a directory that appeared, or to follow a link.

    Attributes:
        source: contains the path.
        path: absolute.
    """

    source: Source
    path: str


#: A request to the watch placer. "everything": go through all sources. A callable is called. None: end.
Request = PathRequest | Literal["everything"] | Callable[[], None] | None


class WatchedTree:
    """The watches and the links of a mirror's sources.

    Args:
        keys: scope of the mirror.
        watches: the watches.

    Attributes:
        lock: held while `watches` or `links` are read in more than one step, or changed.
        watches: see `WatchTable`.
        links: the links that are followed, and those that may not be followed.
        departures: number of directories that have left, according to the events that were read, and of file systems that were mounted or
            unmounted. The lock must be held to change it.
        requests: the requests to the watch placer.
        unreadable: directories that the watcher may not open or search.
        denied: the sets that receive changes of attributes; `unreadable` is one of them. See `AttributeWatches`.
    """

    def __init__(self, keys: Keys, watches: WatchTable) -> None:
        self._keys = keys
        self.lock = threading.Lock()
        self.watches = watches
        self.links = Links()
        self.departures = 0
        self.requests: UniqueQueue[Request] = UniqueQueue()
        self.unreadable = DeniedPaths(source.root for source in keys.sources)
        self.denied = [self.unreadable]

    def forget(self, top: str) -> None:
        """Remove the watches and the links at and below a path. The lock must be held."""
        self.links.forget_below(top)
        self.watches.forget_below(top)

    def request_links(self, links: Iterable[str]) -> None:
        """Request that links are followed again, since something on their way has changed."""
        for link in links:
            self.requests.put(PathRequest(self.source_at(link), link))

    def note_attributes(self, path: str) -> None:
        """Note that the attributes of a path have changed. The lock must be held."""
        for one in (path, *self.links.through(path)):
            for denied in self.denied:
                denied.note_change(one)

    @staticmethod
    def open_directory(root: int, source: Source, path: str, *, follow: bool) -> tuple[str, int]:
        """Open a directory by its path, whatever links are on the way.

        Args:
            root: descriptor of the source's root.
            source: contains the directory.
            path: the directory's absolute path.
            follow: whether links are followed.

        Returns:
            The path without links, relative to the root, and a descriptor, which the caller closes.

        Raises:
            OSError, NotMirrored: see `open_directory_beneath` and `resolve_beneath`.
        """
        relative = path[len(source.root) :].strip("/")
        try:
            return relative, open_directory_beneath(root, relative)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not follow:
                raise
        real = resolve_beneath(root, root_paths(source.root), relative).real
        return real, open_directory_beneath(root, real)

    def source_at(self, path: str) -> Source:
        """The source that contains a path, or has it as its root."""
        return next(source for source in self._keys.sources if source.holds(path) or source.root == path)
