"""What is mounted below the roots of a mirror now, and what was mounted or unmounted there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import NamedTuple

from ..model.keys import Keys, Source
from ..model.paths import itself_and_parents, slashed
from .mounts import Mount, MountTable


class MountChange(NamedTuple):
    """What has changed since the last poll.

    Attributes:
        changed: the paths below the roots where something was mounted or unmounted.
        moved: mount points that have moved with the directory that contains them.
        other_disks: roots that another mount contains than before: another disk may have the same device and inode number.
    """

    changed: set[str]
    moved: list[str]
    other_disks: list[str]


class MountWatch:
    """The mounts below the roots of one mirror. Safe to use from many threads.

    Args:
        keys: the rules for the mirror's keys.
        roots: paths of its roots.
        table: the mounts of this process; None: there are none.
        max_mounts: more mounts than this are not remembered.
        lock: held while something changes.

    Attributes:
        has_more: whether there are more mounts than are remembered.
    """

    def __init__(self, keys: Keys, roots: tuple[str, ...], table: MountTable | None, max_mounts: int, lock: threading.RLock) -> None:
        self._keys = keys
        self._roots = roots
        self._table = table
        self._max_mounts = max_mounts
        self._lock = lock
        #: Mount points below the roots, with their mounts, and for each root the mount that contains it.
        self._mounts: dict[str, Mount] = {}
        self._mounts_of_roots: dict[str, Mount | None] = {}
        #: Mount points where something was mounted or unmounted since `pop_changes`.
        self._changed: set[str] = set()
        #: Mount points that have moved with the directory that they were in.
        self._moved: set[str] = set()
        self._must_read = False
        self.has_more = False

    def must_read(self) -> None:
        """Read the table at the next poll: a root may lead through another link than before, so that other mounts are below it; or a mount
        point may have moved with a directory that was renamed, of which the kernel reports no change of the table."""
        self._must_read = True

    def poll(self) -> MountChange | None:
        """Read the table if it has changed. Returns what has changed; None if the table was not read."""
        with self._lock:
            if self._table is None or not (self._table.has_changed() or self._must_read):
                return None
            self._must_read = False
            table = self._table.read()
            before, self._mounts = self._mounts, self._below_roots(table)
            changed = {path for path in {*before, *self._mounts} if before.get(path) != self._mounts.get(path)}
            moved = self._moved_from(before)
            self._moved.difference_update(self._mounts)
            self._moved.update(moved)
            self._changed |= changed
            return MountChange(changed, moved, list(self._on_other_disks(table)))

    def note_change(self, path: str) -> None:
        """Note that the mount at a path may be another one, if there is one."""
        with self._lock:
            if path in self._mounts:
                self._changed.add(path)

    def pop_changes(self) -> list[tuple[str, Mount | None]]:
        """Remove and return the paths where something was mounted or unmounted, each with its mount now."""
        with self._lock:
            changed, self._changed = sorted(self._changed), set()
            return [(path, self._mounts.get(path)) for path in changed]

    def all(self) -> dict[str, Mount]:
        """The mounts below the roots, by path."""
        with self._lock:
            return dict(self._mounts)

    def __contains__(self, path: object) -> bool:
        return path in self._mounts

    def mounted(self) -> list[str]:
        """The paths where something is mounted, without those that only wait for their first use."""
        with self._lock:
            return [path for path, mount in self._mounts.items() if not mount.is_trigger]

    def is_trigger(self, path: str) -> bool:
        """Whether a path only waits for its first use to be mounted."""
        mount = self._mounts.get(path)
        return mount is not None and mount.is_trigger

    def may_block(self, path: str) -> bool:
        """Whether another process or host responds for what is mounted at a path."""
        mount = self._mounts.get(path)
        return mount is not None and mount.may_block

    def has_moved(self, path: str) -> bool:
        """Whether this was a mount point that has moved with the directory that contained it. Its files have moved with it."""
        return path in self._moved

    def is_waiting_for_use(self, path: str) -> bool:
        """Whether autofs(5) mounts a directory when it is used: it exists, although it may not be mounted now."""
        with self._lock:
            below = takewhile(lambda one: one not in self._roots, itself_and_parents(path))
            return any(map(self.is_trigger, below))

    # Inside, with the lock held

    def _on_other_disks(self, table: Mapping[str, Mount]) -> Iterator[str]:
        for path in self._roots:
            mount = _mount_around(os.path.realpath(path), table)
            if self._mounts_of_roots.get(path, mount) != mount:
                yield path
            self._mounts_of_roots[path] = mount

    def _below_roots(self, mounts: Mapping[str, Mount]) -> dict[str, Mount]:
        """The mounts below the roots, by their paths as the walk reaches them."""
        found: dict[str, Mount] = {}
        for source in self._keys.sources:
            if source.is_file:
                continue
            top = slashed(os.path.realpath(source.root))
            for path, mount in mounts.items():
                if not path.startswith(top) or path == top:
                    continue
                below = slashed(source.root) + path[len(top) :]
                if not self._is_entered(source, below) or (not mount.may_block and not os.path.isdir(below)):
                    continue
                if len(found) < self._max_mounts:
                    found[below] = mount
                else:
                    self.has_more = True
        return found

    def _is_entered(self, source: Source, path: str) -> bool:
        """Whether the walk enters a directory of a source, by its filters."""
        return all(map(self._keys.enters, takewhile(lambda one: one != source.root, itself_and_parents(path))))

    def _moved_from(self, before: Mapping[str, Mount]) -> list[str]:
        """The mount points that have moved with the directory that contains them; their files have moved with them. A mount point itself
        cannot be renamed (EBUSY, rename(2)), so its name is the same and the directory above is gone. Its number alone proves nothing: the
        kernel gives it to the next mount."""
        moved = []
        now = {mount: path for path, mount in self._mounts.items()}
        for path, mount in before.items():
            after = now.get(mount, path)
            above, _, name = path.rpartition("/")
            if path not in self._mounts and after != path and after.endswith(f"/{name}") and not os.path.lexists(above):
                moved.append(path)
        return moved


def _mount_around(path: str, mounts: Mapping[str, Mount]) -> Mount | None:
    """The mount that contains a path without links."""
    return next((mounts[one] for one in itself_and_parents(path) if one in mounts), None)
