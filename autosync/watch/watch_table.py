"""Which directories are watched, and under which names each of them is known: its own, and those of links to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..model.keys import slashed
from .inotify import IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO, Inotify

_MASK = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO


class WatchTable:
    """The watches of one inotify instance. Not safe to use from many threads at once.

    Args:
        inotify: where they are placed.
    """

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        #: Watch descriptor -> the name of its directory; nearly all have one only, and there may be a million of them.
        self._name: dict[int, str] = {}
        #: Watch descriptor -> its other names.
        self._more: dict[int, list[str]] = {}
        self._wds: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._name)

    def __contains__(self, directory: str) -> bool:
        return directory in self._wds

    def __iter__(self) -> Iterator[str]:
        return iter(self._wds)

    def names(self, wd: int) -> tuple[str, ...]:
        """The names of a directory; none if it is not watched any more."""
        name = self._name.get(wd)
        if name is None:
            return ()
        return (name, *self._more[wd]) if wd in self._more else (name,)

    def add(self, descriptor: int, directory: str) -> None:
        """Watch an open directory under one name more. Names that lead elsewhere by now are forgotten.

        Raises:
            OSError: the kernel refuses the watch.
        """
        wd = self._inotify.add(descriptor, _MASK)
        if self._wds.get(directory, wd) != wd:
            self.forget(directory)
        known = self.names(wd)
        if known:
            names = [name for name in known if name == directory or _is_at(descriptor, name)]
            for name in set(known).difference(names):
                self._wds.pop(name, None)
            self._note(wd, names if directory in names else [*names, directory])
        else:
            self._name[wd] = directory
        self._wds[directory] = wd

    def lost(self, wd: int) -> tuple[str, ...]:
        """The kernel has taken a watch away. Returns the names that its directory had; none if it was given back from here."""
        names = self.names(wd)
        self._note(wd, ())
        for directory in names:
            if self._wds.get(directory) == wd:
                del self._wds[directory]
        return names

    def forget(self, directory: str) -> None:
        """Forget one name of a directory; with the last of them its watch goes."""
        wd = self._wds.pop(directory, None)
        if wd is None:
            return
        names = [name for name in self.names(wd) if name != directory]
        self._note(wd, names)
        if not names:
            self._inotify.remove(wd)

    def _note(self, wd: int, names: Sequence[str]) -> None:
        """These are the names of a directory now."""
        self._name.pop(wd, None)
        self._more.pop(wd, None)
        if names:
            self._name[wd] = names[0]
        if len(names) > 1:
            self._more[wd] = list(names[1:])

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
