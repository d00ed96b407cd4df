"""Which directories are watched, and under which names each of them is known: its own, and those of links to it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .inotify import IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO, Inotify
from .keys import slashed

_MASK = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO


class Watches:
    """The watches of one inotify instance. Not safe to use from many threads at once.

    Args:
        inotify: where they are placed.
    """

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        #: Watch descriptor -> the names of its directory, and the other way round.
        self._names: dict[int, list[str]] = {}
        self._wds: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, directory: str) -> bool:
        return directory in self._wds

    def __iter__(self) -> Iterator[str]:
        return iter(self._wds)

    def names(self, wd: int) -> tuple[str, ...]:
        """The names of a directory; none if it is not watched any more."""
        return tuple(self._names.get(wd, ()))

    def add(self, descriptor: int, directory: str) -> None:
        """Watch an open directory under one name more. Names that lead elsewhere by now are forgotten.

        Raises:
            OSError: the kernel refuses the watch.
        """
        wd = self._inotify.add(descriptor, _MASK)
        if self._wds.get(directory, wd) != wd:
            self.forget(directory)
        names = self._names.setdefault(wd, [])
        for name in [name for name in names if name != directory and not _is_at(descriptor, name)]:
            names.remove(name)
            self._wds.pop(name, None)
        if directory not in names:
            names.append(directory)
        self._wds[directory] = wd

    def lost(self, wd: int) -> tuple[str, ...]:
        """The kernel has taken a watch away. Returns the names that its directory had; none if it was given back from here."""
        names = tuple(self._names.pop(wd, ()))
        for directory in names:
            if self._wds.get(directory) == wd:
                del self._wds[directory]
        return names

    def forget(self, directory: str) -> None:
        """Forget one name of a directory; with the last of them its watch goes."""
        wd = self._wds.pop(directory, None)
        if wd is None:
            return
        names = self._names.get(wd, [])
        if directory in names:
            names.remove(directory)
        if not names:
            self._names.pop(wd, None)
            self._inotify.remove(wd)

    def forget_below(self, top: str) -> None:
        """Forget a directory and all below it. This goes through all names."""
        if top not in self._wds:
            return  # nothing below can be watched either
        prefix = slashed(top)
        for path in [path for path in self._wds if path == top or path.startswith(prefix)]:
            self.forget(path)


def _is_at(descriptor: int, path: str) -> bool:
    """Whether an open directory is what a path leads to now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False
