"""Watches changes of attributes - permissions, owner, ACL, times - only where a file or directory may not be read.

Programs that copy trees set the attributes of each file, several times. So the kernel reports changes of attributes (IN_ATTRIB) only where
they may make a path readable: in its directory, and in those above.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from ..model.keys import Keys
from ..source.beneath import NotMirrored, open_root
from .denied_paths import DeniedPaths
from .watched_tree import WatchedTree


class AttributeWatches:
    """Switches the reports on and off. Safe to use from many threads.

    Args:
        keys: scope of the mirror.
        tree: has the watches. Its `denied` receives the changes.
        follow: whether links are followed.
    """

    def __init__(self, keys: Keys, tree: WatchedTree, *, follow: bool) -> None:
        self._keys = keys
        self._tree = tree
        self._follow = follow

    def observe(self, denied: DeniedPaths, paths: Iterable[str]) -> None:
        """Watch the attributes of paths that may not be read. Later changes are noted in `denied`, if the directories are watched.

        Args:
            denied: one of `WatchedTree.denied`; the paths are added.
            paths: absolute paths.
        """
        tree = self._tree
        with tree.lock:
            fresh = [one for path in paths for one in denied.add(path, tree.links.paths_of(path))]
            tree.watches.attribute_paths.update(fresh)
            fresh = [path for path in fresh if path in tree.watches]  # others are not watched, or are files
        for path, descriptor in self._opened(fresh):
            with tree.lock, suppress(OSError):
                if path in tree.watches and path in tree.watches.attribute_paths:
                    tree.watches.add(descriptor, path)

    def forget(self, denied: DeniedPaths, paths: Iterable[str]) -> None:
        """Remove paths from a set, and end the reports that no set needs any more."""
        tree = self._tree
        with tree.lock:
            gone = [one for path in paths for one in denied.discard(path)]
            gone = [path for path in gone if not any(path in one for one in tree.denied)]
            tree.watches.attribute_paths.difference_update(gone)
            gone = [path for path in gone if path in tree.watches]
        for path, descriptor in self._opened(gone):
            with tree.lock, suppress(OSError):
                tree.watches.end_attributes(descriptor, path)

    def _opened(self, directories: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Each directory with a descriptor, which is closed afterwards. Those that cannot be opened are left out."""
        for source in self._keys.sources if directories else ():
            mine = [path for path in directories if path == source.root or source.holds(path)]
            if not mine:
                continue
            with suppress(OSError), _closing(open_root(source.root)) as root:
                for path in mine:
                    with suppress(OSError, NotMirrored):
                        _, descriptor = self._tree.open_directory(root, source, path, follow=self._follow)
                        with _closing(descriptor):
                            yield path, descriptor


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
