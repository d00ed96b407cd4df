"""The watch placer keeps a watch on every directory of the sources, and follows links. It runs in a thread of its own."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ..model.change import SCAN_ALL, Change, Kind, Push
from ..model.keys import Keys, Source
from ..model.paths import is_at_or_below
from .overflow import forget_departed
from .tree_placer import TreePlacer
from .watched_tree import PathRequest, WatchedTree

log = logging.getLogger(__name__)

_MAX_USER_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


class WatchPlacer:
    """Handles the requests of the tree, in their order, until it is stopped.

    Args:
        keys: scope of the mirror.
        tree: shared with the event reader.
        trees: places the watches.
        push: receives the changes; must not block.
        follow: whether links are followed.
    """

    def __init__(self, keys: Keys, tree: WatchedTree, trees: TreePlacer, push: Push, *, follow: bool) -> None:
        self._keys = keys
        self._tree = tree
        self._trees = trees
        self._push = push
        self._follow = follow
        self._unwatched_logged = 0

    @property
    def unwatched(self) -> int:
        """Number of directories that the kernel has refused to watch since all sources were last gone through."""
        return self._trees.unwatched

    @property
    def reopened(self) -> int:
        """Number of directories that have become readable."""
        return self._trees.reopened

    @property
    def without_room(self) -> int:
        """Number of directories behind links that are not watched since there are too many."""
        return self._trees.without_room

    def run(self) -> None:
        """Handle requests until `stop`."""
        while (request := self._tree.requests.get()) is not None:
            if request == "everything":
                self.place_sources()
            elif isinstance(request, PathRequest):
                self._place_path(request.source, request.path)
            else:
                request()
                continue
            self._warn_if_unwatched()

    def stop(self) -> None:
        """End `run`, after the request that is being handled. From any thread."""
        self._trees.is_stopped = True
        self._tree.requests.put(None)

    def request_all(self) -> None:
        """Request that all sources are gone through, and then the whole source is scanned."""
        self._tree.requests.put("everything")

    def request_link(self, link: str) -> None:
        """Request that a link is followed, unless that was done before."""
        source = self._keys.source_of(link)
        if self._follow and source is not None and link not in self._tree.links:
            self._tree.requests.put(PathRequest(source, link))

    def request_directory(self, source: Source, directory: str) -> None:
        """Request that a directory is watched, and then scanned, and so its other paths through links, and what links lead to below it. Its
        files are not new: a scan finds out which of them differ."""

        def place() -> None:
            with self._tree.lock:
                others = self._tree.watches.other_paths(directory)
            for path in (directory, *others):  # in this order: the first scan decides whether the directory is the remembered one
                self._trees.place(source, path, appeared=False)
                self._push((Change(Kind.SCAN, path),))
            with self._tree.lock:
                links = self._tree.links.through_below(directory)
            for link in links:
                if not is_at_or_below(link, directory):
                    self._place_link_into(self._tree.source_at(link), link)

        self._tree.requests.put(place)

    def place_sources(self) -> None:
        """Watch all directories of all sources that are not watched, and then request a scan of the whole source."""
        if self._trees.without_room:
            self._trees.forget_beyond_links()
        self._trees.unwatched = self._trees.without_room = 0
        is_first = len(self._tree.watches) == 0
        for source in self._keys.sources:
            self._trees.place(source, source.root, appeared=False)
        if not is_first:
            forget_departed(self._tree, self._trees)
        if not self._trees.is_stopped:
            log.info("watches are placed: %d", len(self._tree.watches))
        self._push((SCAN_ALL,))

    def _place_path(self, source: Source, path: str) -> None:
        """Watch a directory that appeared, or follow a link."""
        if path in self._tree.links or (self._follow and os.path.islink(path)):
            self._place_link(source, path)
        else:
            unreadable = self._tree.unreadable.paths()
            was_unreadable = path in unreadable
            self._trees.place(source, path, appeared=True)
            if not (was_unreadable and path in unreadable):
                self._push((Change(Kind.SCAN, path),))

    def _place_link(self, source: Source, link: str) -> None:
        tree = self._tree
        with tree.lock:
            had_content = tree.links.may_have_content(link)
            if had_content or link in tree.watches:
                tree.forget(link)
            else:
                tree.links.forget(link)
        if os.path.islink(link):
            try:
                is_directory = self._trees.follow_link(source, link)
            except OSError:
                return  # the root is gone, which the owner of the watcher detects
        else:
            is_directory = os.path.isdir(link)  # a directory has replaced the link
        is_directory = is_directory and self._keys.enters(link)
        if is_directory:
            self._trees.place(source, link, appeared=True)
        if is_directory or had_content:
            self._push((Change(Kind.LEFT if had_content else Kind.SCAN, link),))
        self._push((Change(Kind.SAVED, link),))

    def _place_link_into(self, source: Source, link: str) -> None:
        """Follow a link that leads into a directory where something was mounted or unmounted. What it led to before may be hidden only, so
        nothing counts as gone: a link that leads nowhere now is followed again when something is there."""
        tree = self._tree
        with tree.lock:
            tree.forget(link)
        try:
            is_directory = self._trees.follow_link(source, link)
        except OSError:
            return
        if is_directory and self._keys.enters(link):
            self._trees.place(source, link, appeared=False)
            self._push((Change(Kind.SCAN, link),))
        elif os.path.exists(link):
            self._push((Change(Kind.SAVED, link),))

    def _warn_if_unwatched(self) -> None:
        """Log the number of unwatched directories each time that it has doubled."""
        unwatched = self.unwatched
        if unwatched and unwatched >= 2 * self._unwatched_logged:
            allowed = int(_MAX_USER_WATCHES.read_text()) if _MAX_USER_WATCHES.exists() else 0
            log.warning(
                "the limit of watches is reached: %d of %d directories are not watched, and are scanned every --rescan seconds; "
                "raise it with: sysctl fs.inotify.max_user_watches=%d",
                unwatched, unwatched + len(self._tree.watches), 1 << (allowed + unwatched).bit_length(),
            )  # fmt: skip
            self._unwatched_logged = unwatched
        self._unwatched_logged = min(self._unwatched_logged, unwatched)
