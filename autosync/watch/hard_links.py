"""The names of files with more than one name (hard links). The kernel reports a change under the name through which the file was changed;
the keys of the other names have changed too.

Scans and events fill the table. A file gets its second name by an event about that name, and then its first one is not known. If such a
file is saved under the second name, a scan of the whole source is needed: `unsure`.
"""

from __future__ import annotations

import math
import os
import stat
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from ..source.entry import inode_of

#: The most names in a table. A name takes about 500 bytes.
MAX_NAMES = 100_000
#: The most files with missing names that are noted, and one entry for all others: a scan is needed then, whatever they are.
_MAX_UNSURE = 1000
_OTHERS = -1


class _File:
    """A file with more than one name.

    Attributes:
        names: its known paths. A path may be a symbolic link to the file, or lead through one.
        since: number of scans that had begun when the first of them was added.
    """

    __slots__ = ("names", "since")

    def __init__(self, since: int) -> None:
        self.names: set[str] = set()
        self.since = since


class _Saved(NamedTuple):
    """A file that was saved while some of its names were not known.

    Attributes:
        path: the name under which it was saved.
        scans: number of scans that had begun.
        at: when it was first saved so, on the monotonic clock, in seconds.
    """

    path: str
    scans: int
    at: float


class HardLinks:
    """The names of the files of one mirror that have more than one. Safe to use from many threads.

    Args:
        max_names: the most names in the table.
    """

    def __init__(self, max_names: int = MAX_NAMES) -> None:
        self._max_names = max_names
        self._lock = threading.Lock()
        self._inodes: dict[str, int] = {}
        self._files: dict[int, _File] = {}
        self._unsure: dict[int, _Saved] = {}
        #: Number of scans of the whole source that have begun, and the number of the last complete one.
        self._begun = self._complete = 0
        #: The names that the running scan has found; None if no scan is running.
        self._found: set[str] | None = None
        #: Number of names for which there was no room: since the last complete scan began, and since the one that is running began.
        self._left_out = self._left_out_by_scan = 0

    def __bool__(self) -> bool:
        """Whether the table holds anything that an event could change."""
        return bool(self._inodes or self._unsure)

    def __len__(self) -> int:
        return len(self._inodes)

    @property
    def is_full(self) -> bool:
        """Whether there are more names than the table holds."""
        return self._left_out > 0

    # What scans find

    def begin_scan(self) -> None:
        """Note that a scan of the whole source begins. Until `end_scan`, all names that it finds are added."""
        with self._lock:
            self._begun += 1
            self._found = set()
            self._left_out_by_scan = 0

    def end_scan(self, *, complete: bool) -> None:
        """Note that the scan has ended. If it was complete, names that it has not found are removed, and files that were saved before it
        are settled.

        Args:
            complete: whether it has not failed, and has read the whole source.
        """
        with self._lock:
            found, self._found = self._found, None
            if not complete or found is None:
                return
            for path in self._inodes.keys() - found:
                self._discard(path)
            self._complete, self._left_out = self._begun, self._left_out_by_scan
            self._unsure = {inode: saved for inode, saved in self._unsure.items() if saved.scans >= self._begun}

    def add(self, path: str, inode: int) -> None:
        """Add a name of a file with more than one name.

        Args:
            path: the name.
            inode: the file's device and inode, see `entry.inode_of`.
        """
        with self._lock:
            self._add(path, inode)

    # What events find

    def discard(self, path: str) -> None:
        """Remove a name that is gone."""
        if path in self._inodes:
            with self._lock:
                self._discard(path)

    def found_alone(self, path: str, inode: int) -> None:
        """Note that a file has only one name, and that its key is sent."""
        with self._lock:
            self._discard(path)
            self._unsure.pop(inode, None)

    def saved(self, path: str, inode: int, links: int) -> list[str]:
        """Note that a file with more than one name was saved under one of them.

        Args:
            path: that name; it need not be in scope.
            inode: the file's device and inode, see `entry.inode_of`.
            links: how many names it has.

        Returns:
            Its other names that are known and exist.
        """
        with self._lock:
            file = self._files.get(inode)
            known = sorted(file.names - {path}) if file else []
        others = [name for name in known if self._is_name(name, inode)]
        with self._lock:
            is_settled = file is not None and file.since < self._complete and not self._left_out
            if not is_settled and _count([path, *others]) < links:
                self._add_unsure(path, inode)
        return others

    # Names that are not known

    def unsure(self, before: float = math.inf) -> int:
        """Number of files that were saved under one name while others were not known, and are still not known.

        Args:
            before: only files that were saved before this time, on the monotonic clock, in seconds.
        """
        with self._lock:
            waiting = [(inode, saved) for inode, saved in self._unsure.items() if saved.at < before]
        for inode, saved in waiting:
            if self._has_all_names(saved.path, inode):
                with self._lock:
                    if self._unsure.get(inode) == saved:
                        del self._unsure[inode]
        with self._lock:
            return sum(saved.at < before for saved in self._unsure.values())

    def _add_unsure(self, path: str, inode: int) -> None:
        """Note that a file with missing names was saved. If too many files are noted, one entry represents the others; only a scan removes
        it."""
        if inode not in self._unsure and len(self._unsure) >= _MAX_UNSURE:
            path, inode = "", _OTHERS
        before = self._unsure.get(inode)
        self._unsure[inode] = _Saved(path, self._begun, before.at if before else time.monotonic())

    def _has_all_names(self, path: str, inode: int) -> bool:
        """Whether all names of a file are known. The keys of names that became known since it was saved have been sent since."""
        with self._lock:
            file = self._files.get(inode)
            known = {path, *(file.names if file else ())}
        names = [name for name in known if self._is_name(name, inode)]
        try:
            return bool(names) and _count(names) >= os.stat(names[0]).st_nlink
        except OSError:
            return False

    def _is_name(self, path: str, inode: int) -> bool:
        """Whether a path leads to a file now. If not, it is removed."""
        try:
            if inode_of(os.stat(path)) == inode:
                return True
        except OSError:
            pass
        with self._lock:
            if self._inodes.get(path) == inode:
                self._discard(path)
        return False

    def _add(self, path: str, inode: int) -> None:
        if self._found is not None and len(self._found) < self._max_names:
            self._found.add(path)
        before = self._inodes.get(path)
        if before == inode:
            return
        if before is not None:
            self._discard(path)
        elif len(self._inodes) >= self._max_names:
            self._left_out += 1
            self._left_out_by_scan += 1
            return
        self._inodes[path] = inode
        file = self._files.get(inode)
        if file is None:
            file = self._files[inode] = _File(self._begun)
        file.names.add(path)

    def _discard(self, path: str) -> None:
        inode = self._inodes.pop(path, None)
        if inode is None:
            return
        names = self._files[inode].names
        names.discard(path)
        if not names:
            del self._files[inode]


def _count(paths: Iterable[str]) -> int:
    """How many different names these paths are. The path of a name may lead through symbolic links, so one name may have several paths."""
    directories: dict[str, int] = {}
    names = set()
    for path in paths:
        directory, _, name = path.rpartition("/")
        try:
            if stat.S_ISLNK(os.lstat(path).st_mode):
                continue  # it leads to a name
            if directory not in directories:
                directories[directory] = inode_of(os.stat(directory or "/"))
        except OSError:
            continue
        names.add((directories[directory], name))
    return len(names)
