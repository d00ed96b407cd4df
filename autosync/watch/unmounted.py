"""Remembers the watched directories whose file system was unmounted."""

from __future__ import annotations

from ..model.paths import is_at_or_below, itself_and_parents, parents

#: The most paths. More are replaced by the topmost ones, and if those are more than this, by the root directory.
_MOST = 1000


class UnmountedTrees:
    """The paths at which file systems were unmounted. Not safe to use from many threads at once."""

    def __init__(self) -> None:
        self._paths: set[str] = set()

    def add(self, directory: str) -> None:
        """Add a directory of a file system that was unmounted: the mount point, or one below it."""
        if not self._is_inside(directory):
            self._paths.add(directory)
        if len(self._paths) > _MOST:
            self._paths = {path for path in self._paths if self._paths.isdisjoint(parents(path))}
            if len(self._paths) > _MOST:
                self._paths = {"/"}

    def discard(self, top: str) -> None:
        """Remove a path and those below it: a file system is mounted there."""
        self._paths = {path for path in self._paths if not is_at_or_below(path, top)}

    def __contains__(self, directory: object) -> bool:
        """Whether a file system was unmounted at a directory."""
        return directory in self._paths

    def touches(self, directory: str) -> bool:
        """Whether a file system was unmounted at, below or above a directory."""
        if not self._paths:
            return False
        return self._is_inside(directory) or any(is_at_or_below(path, directory) for path in self._paths)

    def _is_inside(self, path: str) -> bool:
        """Whether a path is one of the paths, or below one."""
        return not self._paths.isdisjoint(itself_and_parents(path))
