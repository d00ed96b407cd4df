"""The watched directories, each with all of its paths: its own, and those through links to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..model.paths import slashed
from .inotify import IN_ATTRIB, IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_MASK_ADD, IN_MOVED_FROM, IN_MOVED_TO, Inotify

#: Up to this number of paths, all paths of a directory are checked each time that another one is added; above it, when their number is a
#: power of two, so that the time is not proportional to the square of their number.
_ALWAYS_CHECKED = 16

_MASK = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO


class WatchTable:
    """The watches of one inotify instance. Not safe to use from many threads at once.

    `len()` is the number of watches. Iterating yields the paths of all watched directories, and `in` tests for one of them.

    Args:
        inotify: the instance.

    Attributes:
        attribute_paths: the paths of directories that also report changes of attributes, once they are added; see `end_attributes`.
    """

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        #: Watch descriptor -> the first path of its directory. Most directories have no other, and there may be a million of them.
        self._path: dict[int, str] = {}
        #: Watch descriptor -> the other paths.
        self._more: dict[int, list[str]] = {}
        self._wds: dict[str, int] = {}
        self.attribute_paths: set[str] = set()

    def __len__(self) -> int:
        return len(self._path)

    def __contains__(self, directory: str) -> bool:
        return directory in self._wds

    def __iter__(self) -> Iterator[str]:
        return iter(self._wds)

    @property
    def further_paths(self) -> int:
        """Number of paths of watched directories, without the first one of each."""
        return len(self._wds) - len(self._path)

    def paths(self, wd: int) -> tuple[str, ...]:
        """The paths of a watched directory; none if the directory is no longer watched."""
        path = self._path.get(wd)
        if path is None:
            return ()
        return (path, *self._more[wd]) if wd in self._more else (path,)

    def other_paths(self, directory: str) -> list[str]:
        """The further paths of a directory through links that lead to a directory above it. It need not be watched, but the directory that
        contains it."""
        above, _, name = directory.rpartition("/")
        return [f"{slashed(path)}{name}" for path in self.paths(self._wds.get(above or "/", -1)) if path != (above or "/")]

    def add(self, descriptor: int, directory: str) -> None:
        """Watch a directory, or add a path to a watched directory. Paths that lead elsewhere now are removed; if there are many paths, not
        at each call.

        Args:
            descriptor: an open descriptor of the directory.
            directory: the directory's path.

        Raises:
            OSError: the kernel refuses the watch.
        """
        attributes = IN_ATTRIB if directory in self.attribute_paths else 0
        # The mask of a watch is extended: changes of attributes may be reported for another path of the directory.
        wd = self._inotify.add(descriptor, _MASK | attributes | IN_MASK_ADD)
        if self._wds.get(directory, wd) != wd:
            self.forget(directory)
        count = len(self._more.get(wd, ())) + 1 if wd in self._path else 0
        if not count:
            self._path[wd] = directory
        elif count <= _ALWAYS_CHECKED or count.bit_count() == 1:
            before = self.paths(wd)
            paths = [path for path in before if path == directory or _is_at(descriptor, path)]
            for path in set(before).difference(paths):
                self._wds.pop(path, None)
            self._set_paths(wd, paths if directory in paths else [*paths, directory])
        elif directory not in self._wds:  # where there are many paths, stale ones do no harm: they give changes for which nothing is found
            self._more[wd].append(directory)
        self._wds[directory] = wd

    def end_attributes(self, descriptor: int, directory: str) -> None:
        """End the reports about changed attributes in a directory, if none of its paths is in `attribute_paths`.

        Args:
            descriptor: an open descriptor of the directory.
            directory: the directory's path.

        Raises:
            OSError: the kernel refuses to change the watch.
        """
        if not self.attribute_paths.isdisjoint(self.paths(self._wds.get(directory, -1))):
            return
        wd = self._inotify.add(descriptor, _MASK)
        if wd not in self._path:  # another directory has this path now, which the placer adds
            self._inotify.remove(wd)
        elif not self.attribute_paths.isdisjoint(self.paths(wd)):
            self._inotify.add(descriptor, _MASK | IN_ATTRIB)

    def drop(self, wd: int) -> tuple[str, ...]:
        """Remove a watch that the kernel has ended.

        Returns:
            The paths of its directory; none if `forget` had removed the watch before.
        """
        paths = self.paths(wd)
        self._set_paths(wd, ())
        for directory in paths:
            if self._wds.get(directory) == wd:
                del self._wds[directory]
        return paths

    def forget(self, directory: str) -> None:
        """Remove one path of a directory. The watch ends with the last path."""
        wd = self._wds.pop(directory, None)
        if wd is None:
            return
        paths = [path for path in self.paths(wd) if path != directory]
        self._set_paths(wd, paths)
        if not paths:
            self._inotify.remove(wd)

    def forget_below(self, top: str) -> None:
        """Remove a directory and all directories below it. The time is proportional to the number of all paths."""
        if top not in self._wds:
            return  # then nothing below it is watched either
        prefix = slashed(top)
        for path in [path for path in self._wds if path == top or path.startswith(prefix)]:
            self.forget(path)

    def _set_paths(self, wd: int, paths: Sequence[str]) -> None:
        self._path.pop(wd, None)
        self._more.pop(wd, None)
        if paths:
            self._path[wd] = paths[0]
        if len(paths) > 1:
            self._more[wd] = list(paths[1:])


def _is_at(descriptor: int, path: str) -> bool:
    """Whether an open directory is what a path leads to now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False
