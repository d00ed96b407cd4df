"""Reading the names in a directory, in the order of keys, as steps of a walk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import chain, islice

from ..model import state_directory_mark as state_mark
from .disk_speed import DiskSpeed
from .external_sort import disksort
from .walk_level import Level, Step

#: A directory with more names than this is sorted on disk.
_NAMES_IN_MEMORY = 100_000
#: The most names of a directory that are read before the walk reaches it.
_NAMES_AHEAD = 4000


class NameReader:
    """Reads names for one walk.

    Args:
        disk: chooses how many files one step has.
        spill: directory in which very large directories are sorted; None for the system's temporary directory.
        in_order: False for the order of the disk.
        follow_links: whether the names of links are read.
    """

    def __init__(self, disk: DiskSpeed, spill: str | None, *, in_order: bool, follow_links: bool) -> None:
        self._disk = disk
        self._spill = spill
        self._in_order = in_order
        self._follow_links = follow_links

    def read(self, level: Level) -> int:
        """Read the first names of a directory; the rest is read when the walk is there. Returns how many were read. A mark of a state
        directory is among them: there are few names in such a directory."""
        names = self._names(level)
        first = list(islice(names, min(_NAMES_AHEAD, _NAMES_IN_MEMORY) if self._in_order else 1))
        level.is_state = state_mark.NAME in first or (not self._in_order and has_state_mark(level.descriptor))
        level.is_large = len(first) >= min(_NAMES_AHEAD, _NAMES_IN_MEMORY) or not self._in_order
        level.steps = self._steps(self._sorted(chain(first, names)) if level.is_large else iter(sorted(first)))
        return len(first)

    def _sorted(self, names: Iterator[str]) -> Iterator[str]:
        """Sort names, lazily: nothing is read before the first result is requested."""
        if not self._in_order:
            yield from names
            return
        first = list(islice(names, _NAMES_IN_MEMORY))
        if len(first) < _NAMES_IN_MEMORY:
            yield from sorted(first)
            return
        rows = ((name,) for some in (first, names) for name in some)
        del first
        yield from (name for (name,) in disksort(rows, self._spill, _NAMES_IN_MEMORY))

    def _names(self, level: Level) -> Iterator[str]:
        try:
            with os.scandir(level.descriptor) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield entry.name + "/"
                    elif not entry.is_symlink():
                        yield entry.name
                    elif self._follow_links:
                        yield from _names_of_link(entry)
        except OSError as error:
            level.errors.append((error, level.path))

    def _steps(self, names: Iterator[str]) -> Iterator[Step]:
        while some := list(islice(names, self._disk.files_at_once)):
            start = 0
            for at in [number for number, name in enumerate(some) if name[-1] == "/"]:
                if start < at:
                    yield some[start:at]
                yield some[at]
                start = at + 1
            if start < len(some):
                yield some[start:]


def has_state_mark(descriptor: int) -> bool:
    """Whether an open directory is marked as the state directory of an autosync, see `model.state_directory_mark`."""
    try:
        os.stat(state_mark.NAME, dir_fd=descriptor, follow_symlinks=False)
    except OSError:
        return False
    return True


def _names_of_link(entry: os.DirEntry[str]) -> tuple[str, ...]:
    """The name of a link as that of a file or a directory, by its target. While the target cannot be reached, it may be either."""
    try:
        return (entry.name + "/",) if stat.S_ISDIR(entry.stat().st_mode) else (entry.name,)
    except OSError:
        return entry.name, entry.name + "/"
