"""The watcher reports as changes what happens below the sources of a mirror. It compares nothing.

What it cannot know, it reports as a scan: of a directory that appeared (files may have been created in it before its watch was placed), of
one that left, of everything after the kernel's queue overflowed.

A directory may have several paths, its own and those through links. What happens in it is reported for each of them. A change of a file is
reported for the links to it, too.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable

from ..model.change import Push
from ..model.keys import Keys, Source
from ..model.mirror import Identity
from ..source.link_limit import LinkRules
from .attribute_watches import AttributeWatches
from .denied_paths import DeniedPaths
from .event_reader import EventReader
from .inotify import Inotify
from .tree_placer import TreePlacer
from .watch_placer import WatchPlacer
from .watch_table import WatchTable
from .watched_tree import WatchedTree

log = logging.getLogger(__name__)


class Watcher:
    """Watches the sources of a mirror, with two threads: an `EventReader` and a `WatchPlacer`.

    Args:
        keys: scope of the mirror.
        push: called with changes, from both threads; must not block.
        follow: whether links are followed.
        one_file_system: see `FileRules`.
        link_rules: which directories behind links are not watched.

    Raises:
        OSError: the kernel gives no inotify instance.
    """

    def __init__(
        self, keys: Keys, push: Push, *, follow: bool = True, one_file_system: bool = False, link_rules: LinkRules | None = None
    ) -> None:
        self._inotify = Inotify()
        self._tree = WatchedTree(keys, WatchTable(self._inotify))
        self._reader = EventReader(keys, self._inotify, self._tree, push)
        self._attributes = AttributeWatches(keys, self._tree, follow=follow)
        trees = TreePlacer(keys, self._tree, push, follow=follow, one_file_system=one_file_system, link_rules=link_rules)
        self._placer = WatchPlacer(keys, self._tree, trees, push, follow=follow)
        self._is_stopped = False
        #: The exception that ended one of the threads; None if both still run, or ended as they should.
        self.error: Exception | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(self._placer.run,), name="autosync-place", daemon=True),
            threading.Thread(target=self._run, args=(self._reader.run,), name="autosync-read", daemon=True),
        ]

    @property
    def unwatched(self) -> int:
        """Number of directories that could not be watched since `place_all`: the kernel has refused, this process may not read them, or too
        many are behind links."""
        return self._placer.unwatched + self._placer.without_room + self.unreadable

    @property
    def without_room(self) -> int:
        """Number of directories behind links that are not watched since there are too many."""
        return self._placer.without_room

    @property
    def unreadable(self) -> int:
        """Number of directories that this process may not open or search."""
        return len(self._tree.unreadable)

    @property
    def reopened(self) -> int:
        """Number of directories that have become readable since the start."""
        return self._placer.reopened

    @property
    def lost_roots(self) -> set[str]:
        """Roots whose watch the kernel has ended: they were removed or unmounted. See `replace_root`."""
        return self._reader.lost_roots

    def was_unmounted(self, directory: str) -> bool:
        """Whether the kernel has ended the watches below a mount point. See `replace_tree`."""
        with self._tree.lock:
            return directory in self._reader.unmounted

    def watches(self) -> int:
        """Number of directories that are watched."""
        return len(self._tree.watches)

    def start(self) -> None:
        """Start both threads. As soon as all watches are placed, a scan of the whole source is pushed, so that nothing is missed before."""
        self.place_all()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads, after the changes for all events until now are pushed."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._reader.stop()
        self._placer.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def close(self) -> None:
        """End both threads, and remove all watches."""
        self.stop()
        self._inotify.close()
        self._reader.close()

    def place_all(self) -> None:
        """Watch all directories that are not watched: those that were created while events were lost, or that the kernel refused to watch.
        Then a scan of the whole source is pushed."""
        self._placer.request_all()

    def follow_link(self, link: str) -> None:
        """Follow a link for which there was no event. From any thread."""
        self._placer.request_link(link)

    def flush(self, on_flushed: Callable[[], None]) -> None:
        """Push the changes for everything that has happened in the sources until now. From any thread.

        Args:
            on_flushed: called afterwards, from one of the threads; must not block.
        """
        self._reader.flush(on_flushed)

    def replace_root(self, source: Source) -> None:
        """Watch the directory that is the root of a source now, instead of the one before. Then a scan of the whole source is pushed."""
        self.lost_roots.discard(source.root)
        with self._tree.lock:
            self._tree.forget(source.root)
            self._reader.unmounted.discard(source.root)
        self.place_all()

    def replace_tree(self, source: Source, directory: str, *, is_mounted: bool, is_placed: bool = True) -> None:
        """Watch the present tree below a directory, after a file system was mounted or unmounted there, and push a scan of it.

        Args:
            source: contains the directory.
            directory: the mount point.
            is_mounted: whether a file system is mounted there now.
            is_placed: False: only remove the watches from before.
        """
        with self._tree.lock:
            self._tree.departures += 1  # a watch that is being placed there may be of the tree from before
            for path in (directory, *self._tree.watches.other_paths(directory)):
                self._tree.forget(path)
            if is_mounted:
                self._reader.unmounted.discard(directory)
        if is_placed:
            self._placer.request_directory(source, directory)

    def subscribe(self, denied: DeniedPaths) -> None:
        """Let a set of paths receive changes of their attributes. Call it before `start`."""
        self._tree.denied.append(denied)

    def observe(self, denied: DeniedPaths, paths: Iterable[str]) -> None:
        """Add paths to a set; see `AttributeWatches.observe`."""
        self._attributes.observe(denied, paths)

    def forget(self, denied: DeniedPaths, paths: Iterable[str]) -> None:
        """Remove paths from a set; see `AttributeWatches.forget`."""
        self._attributes.forget(denied, paths)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # the main loop reads it and ends the program
            log.debug("the watcher ended", exc_info=True)
            self.error = error


def identity_of(root: str) -> Identity:
    """The identity of the directory that is at this path now.

    Raises:
        OSError: there is none.
    """
    stats = os.stat(root)
    return Identity(stats.st_dev, stats.st_ino)
