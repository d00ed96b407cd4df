"""The directories that must be the ones that are known before anything below them counts as gone: the root of each PATH, also of a PATH
inside another one, and the mount points below.

What is known of each is remembered over restarts. While another directory is in its place, or none, it is *in doubt*: no scan deletes
anything below it, until at least half of the keys that the target has there exist in it, or until a person accepts it.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from ..model.keys import Keys, Source, slashed
from ..model.mirror import IN_DOUBT, Identity
from ..model.root_identity import RootIdentity
from .mounts import Mount, MountTable

#: More mount points than this are not remembered.
MOST_MOUNTS = 1000
#: So many names of a directory are remembered, of so many that are read.
_NAMES, _NAMES_READ = 10, 1000
#: Names that any directory may have. A directory with nothing else counts as empty.
_EVERYWHERE = frozenset({"lost+found", ".DS_Store", ".snapshot", ".snapshots", "System Volume Information", "$RECYCLE.BIN", "@eaDir"})


class Doubt(NamedTuple):
    """A directory that is not the one that is known.

    Attributes:
        kind: "root" or "mount".
        path: of the directory.
        text: why, as the end of a sentence about the path.
        keys: how many keys the target had below it when it came into doubt; None: no scan has counted them yet.
    """

    kind: str
    path: str
    text: str
    keys: int | None


class KnownRoots:
    """What is known of the roots and mount points of one mirror. Safe to use from many threads.

    Args:
        keys: of the mirror.
        mounts: of this process; None: no mount points are found but those that a walk finds by their device.
    """

    def __init__(self, keys: Keys, mounts: MountTable | None = None) -> None:
        self._keys = keys
        self._table = mounts
        self._lock = threading.RLock()
        self.roots = tuple(dict.fromkeys([*(source.root for source in keys.sources), *keys.inner_paths]))
        self._known: dict[str, RootIdentity] = {}
        #: The directories that this process has found to be the ones that are known.
        self._confirmed: dict[str, Identity] = {}
        self._doubts: dict[str, int | None] = {}
        #: Mount points below the roots, with their mounts.
        self._mounts: dict[str, Mount] = {}
        #: Mount points that a walk has found and that are not known yet.
        self._new: set[str] = set()
        #: Directories below which something was left as it is, since they were in doubt.
        self._unsettled: set[str] = set()
        #: Mount points where something was mounted or unmounted since `pop_mount_changes`.
        self._changed_mounts: set[str] = set()
        #: Whether there are more mount points than are remembered.
        self.has_more = False
        #: Grows with each change of what is to be stored.
        self.version = 0
        self._paths = frozenset(self.roots)

    # What is remembered

    def load(self, known: Mapping[str, RootIdentity], doubts: Mapping[str, int | None]) -> None:
        """Adopt what was stored. What was not stored is known from now on as it is; a mount point only after the next scan."""
        with self._lock:
            ours = {path: one for path, one in known.items() if path in self.roots or self._keys.source_of(path)}
            self._known = dict(islice(ours.items(), MOST_MOUNTS + len(self.roots)))
            self._doubts = {path: keys for path, keys in doubts.items() if path in self._known}
            self._confirmed.clear()
            self._poll_mounts()
            self._changed_mounts.clear()
            for path in self.roots:
                self._examine(path)
            self._change()

    def known(self) -> dict[str, RootIdentity]:
        """What is remembered of each directory."""
        with self._lock:
            return dict(self._known)

    def doubts(self) -> dict[str, int | None]:
        """The directories in doubt, with the number of keys that the target had below each when a scan first found that."""
        with self._lock:
            return dict(self._doubts)

    def identities(self) -> dict[str, Identity]:
        """The identities for the definition of the mirror. Workers delete nothing below a directory that is another one."""
        with self._lock:
            return {path: self._published(path) for path in self._paths}

    def pending(self) -> list[Doubt]:
        """The directories in doubt whose keys a scan has counted: they wait for a person."""
        with self._lock:
            counted = [(path, keys) for path, keys in self._doubts.items() if keys is not None]
            return [Doubt(self.kind(path), path, self._reason(path), keys) for path, keys in sorted(counted)]

    def accept(self, kind: str) -> list[str]:
        """Accept the directories in doubt of one kind as they are now: each is known from now on, and a mount point that is gone is not.

        Args:
            kind: "root" or "mount".

        Returns:
            Their paths. They are to be scanned.
        """
        with self._lock:
            paths = [doubt.path for doubt in self.pending() if doubt.kind == kind]
            for path in paths:
                found = self._identify(path)
                if found is None or (kind == "mount" and not self._is_mount_point(path)):
                    self.forget(path)
                else:
                    self._adopt(path, found)
            return paths

    def kind(self, path: str) -> str:
        """The kind of a directory: "root" or "mount"."""
        return "root" if path in self.roots else "mount"

    # What is on the disk

    def protected(self) -> frozenset[str]:
        """The paths of all roots and mount points."""
        return self._paths

    def above(self, path: str) -> Iterator[str]:
        """The roots and mount points that are this path, or contain it."""
        protected = self._paths
        while path:
            if path in protected:
                yield path
            path = path.rpartition("/")[0]
        if "/" in protected:
            yield "/"

    def is_settled(self, path: str) -> bool:
        """Whether nothing that could hide a file is wrong at this moment: each root and mount point above a path is the one that is known.
        If not, it is scanned as soon as it is. Call it after the file was not found."""
        for top in self.above(path):
            if not self.is_confirmed(top):
                with self._lock:
                    self._unsettled.add(top)
                return False
        return True

    def is_confirmed(self, path: str) -> bool:
        """Whether a directory is the one that is known, at this moment."""
        confirmed = self._confirmed.get(path)
        if confirmed is None:
            return False
        try:
            found = os.stat(path)
        except OSError:
            return False
        return Identity(found.st_dev, found.st_ino) == confirmed

    def pop_unsettled(self) -> list[str]:
        """Remove and return the directories that are to be scanned, since they were in doubt and are not any more."""
        with self._lock:
            settled = [path for path in self._unsettled if path in self._confirmed or path not in self._paths]
            self._unsettled.difference_update(settled)
            return settled

    def poll_roots(self) -> None:
        """Check whether the roots are still the directories that are known."""
        for path in self.roots:
            if not self.is_confirmed(path):
                with self._lock:
                    self._confirmed.pop(path, None)
                    self._examine(path)

    def pop_mount_changes(self) -> list[tuple[str, Mount | None]]:
        """Where something was mounted or unmounted below the roots since the last call, each with what is mounted there now. No file system
        is asked for that."""
        with self._lock:
            self._poll_mounts()
            changed, self._changed_mounts = sorted(self._changed_mounts), set()
            return [(path, self._mounts.get(path)) for path in changed]

    def use_mounts(self) -> None:
        """Use the mount points that are known and are mounted when they are used, so that a walk finds them."""
        with self._lock:
            self._poll_mounts()
            waiting = [path for path in self._known if path not in self._mounts and self.is_waiting_for_use(path)]
        for path in waiting:
            with suppress(OSError):
                os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def is_waiting_for_use(self, path: str) -> bool:
        """Whether a directory is mounted when it is used, by autofs(5): it is there, although it is not mounted now."""
        with self._lock:
            while path and path not in self.roots:
                if path in self._mounts and self._mounts[path].is_trigger:
                    return True
                path = path.rpartition("/")[0]
        return False

    def check_open(self, path: str, descriptor: int, stats: os.stat_result) -> bool:
        """Check an open directory that a walk has reached by its path. Returns whether it is the one that is known."""
        with self._lock:
            if self._confirmed.get(path) == Identity(stats.st_dev, stats.st_ino):
                return True
            if path in self._mounts and self._mounts[path].is_trigger:
                self._poll_mounts()  # it was mounted when the walk opened it
                if path in self._mounts and self._mounts[path].is_trigger:
                    return True  # an empty directory in which others are mounted when they are used
            if path not in self._known:
                if path not in self.roots and path not in self._new and len(self._new) < MOST_MOUNTS:
                    self._new.add(path)
                    self._change()
                return False
            found = _identity_of(descriptor, path)
            if not self._known[path].is_same(found, _count_names(descriptor, self._known[path].names)):
                return False
            self._confirm(path, found)
            return True

    def is_emptied(self, path: str, descriptor: int) -> bool:
        """Whether a mount point is empty, and was not known as empty."""
        with self._lock:
            known = self._known.get(path)
            if self.kind(path) == "root" or (known is not None and known.names == ()) or self.is_waiting_for_use(path):
                return False
        return not names_of(descriptor)

    def adopt(self, path: str, seen: Identity) -> bool:
        """Know a directory from now on as it is. One that is no root, and where nothing is mounted, is not known any more.

        Args:
            path: of the directory.
            seen: what a scan has found there.

        Returns:
            Whether it is still the same.
        """
        with self._lock:
            found = self._identify(path)
            if found is None or Identity(found.device, found.inode) != seen:
                return False
            if self.kind(path) == "mount" and not self._is_mount_point(path):
                self.forget(path)  # an ordinary directory
            else:
                self._adopt(path, found)
            return True

    def settle(self, path: str) -> None:
        """End the doubt about a directory that is the one that is known."""
        with self._lock:
            if self._doubts.pop(path, self) is not self:
                self.version += 1

    def note_keys(self, path: str, keys: int) -> None:
        """Note that a directory is in doubt, and how many keys the target has below it. The first number counts: later ones include what
        was sent meanwhile."""
        with self._lock:
            if self._doubts.get(path) is None:
                self._doubts[path] = keys
                self._known.setdefault(path, RootIdentity(0, 0))
                self._change()

    def forget(self, path: str) -> None:
        """Forget a mount point, or what is known of a root."""
        with self._lock:
            self._known.pop(path, None)
            self._confirmed.pop(path, None)
            self._doubts.pop(path, None)
            self._new.discard(path)
            self._change()

    def refresh_names(self) -> None:
        """Remember other names where the directory has changed since."""
        for path in self.protected():
            with self._lock:
                if path not in self._confirmed or path not in self._known or not self.is_confirmed(path):
                    continue
                found = self._identify(path)
                if found is not None and (found.names or not self._known[path].names) and found != self._known[path]:
                    self._known[path] = found
                    self.version += 1

    def reason(self, path: str) -> str:
        """Why a directory is in doubt, as the end of a sentence about its path."""
        with self._lock:
            return self._reason(path)

    # Inside; the lock is held

    def _change(self) -> None:
        self.version += 1
        self._paths = frozenset({*self.roots, *self._known, *self._mounts, *self._new})

    def _published(self, path: str) -> Identity:
        known = self._known.get(path)
        if path not in self._confirmed and known is not None and self.is_waiting_for_use(path):
            return Identity(known.device, known.inode)
        return self._confirmed.get(path, IN_DOUBT)

    def _poll_mounts(self) -> None:
        if self._table is None or not self._table.has_changed():
            return
        before, self._mounts = self._mounts, self._below_roots(self._table.read())
        changed = {path for path in {*before, *self._mounts} if before.get(path) != self._mounts.get(path)}
        self._forget_moved(before)
        for path in changed.difference(self.roots):
            self._confirmed.pop(path, None)
        self._changed_mounts |= changed
        if changed:
            self._change()

    def _examine(self, path: str) -> None:
        """Find out whether a root is the directory that is known. One that is not known yet is known from now on."""
        found = self._identify(path)
        known = self._known.get(path)
        if known is None:
            if found is not None:
                self._adopt(path, found)
        elif found is None:
            self._begin_doubt(path)
        elif known.is_same(found, self._count_names(path, known)):
            self._confirm(path, found)
        elif known.real_path and found.real_path not in ("", known.real_path) and found.names:
            self._adopt(path, found)  # the path leads through a link, which leads elsewhere now: somebody has switched it
        else:
            self._begin_doubt(path)

    def _begin_doubt(self, path: str) -> None:
        self._confirmed.pop(path, None)
        if path not in self._doubts:
            self._doubts[path] = None
            self.version += 1

    def _confirm(self, path: str, found: RootIdentity) -> None:
        self._confirmed[path] = Identity(found.device, found.inode)
        self._new.discard(path)
        self.settle(path)
        known = self._known.get(path)
        if known is None or (known.device, known.inode, known.filesystem) != (found.device, found.inode, found.filesystem):
            self._known[path] = found
            self.version += 1

    def _adopt(self, path: str, found: RootIdentity) -> None:
        if path not in self.roots and path not in self._known and len(self._known) >= MOST_MOUNTS + len(self.roots):
            self.has_more = True
            return
        self._known[path] = found
        self._confirm(path, found)
        self._change()

    def _identify(self, path: str) -> RootIdentity | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return _identity_of(descriptor, path)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _count_names(self, path: str, known: RootIdentity) -> int:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return 0
        try:
            return _count_names(descriptor, known.names)
        finally:
            os.close(descriptor)

    def _is_mount_point(self, path: str) -> bool:
        """Whether a directory is a mount point, or the top of a btrfs subvolume."""
        if path in self._mounts:
            return True
        try:
            return os.stat(path).st_dev != os.stat(path.rpartition("/")[0] or "/").st_dev
        except OSError:
            return False

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
                if len(found) < MOST_MOUNTS:
                    found[below] = mount
                else:
                    self.has_more = True
        return found

    def _is_entered(self, source: Source, path: str) -> bool:
        """Whether the walk enters a directory of a source, by its filters."""
        while path != source.root and path:
            if not self._keys.enters(path):
                return False
            path = path.rpartition("/")[0]
        return True

    def _forget_moved(self, before: Mapping[str, Mount]) -> None:
        """Forget mount points that have moved with the directory that they are in: what was below has left with them."""
        now = {mount.number: path for path, mount in self._mounts.items()}
        for path, mount in before.items():
            if path not in self._mounts and now.get(mount.number, path) != path:
                self.forget(path)

    def _reason(self, path: str) -> str:
        found = self._identify(path)
        if found is None:
            return "is gone"
        if not found.names:
            return "is empty"
        if self._known.get(path) == RootIdentity(0, 0):
            return "was mounted over files that the target holds"
        if self.kind(path) == "mount" and not self._is_mount_point(path):
            return "is not mounted"
        return "is not the directory that it was"


def _identity_of(descriptor: int, path: str) -> RootIdentity:
    stats = os.fstat(descriptor)
    filesystem = 0
    with suppress(OSError):
        filesystem = os.fstatvfs(descriptor).f_fsid
    real = os.path.realpath(path)
    return RootIdentity(stats.st_dev, stats.st_ino, filesystem, names_of(descriptor), "" if real == path else real)


def names_of(descriptor: int) -> tuple[str, ...]:
    """Some names in an open directory, directories first: they change less often. Names that any directory may have are left out."""
    try:
        with os.scandir(descriptor) as entries:
            some = [(not entry.is_dir(follow_symlinks=False), entry.name) for entry in islice(entries, _NAMES_READ)]
    except OSError:
        return ()
    return tuple(name for _, name in sorted(some) if name not in _EVERYWHERE and not name.startswith(".Trash"))[:_NAMES]


def _count_names(descriptor: int, names: Iterable[str] | None) -> int:
    found = 0
    for name in names or ():
        with suppress(OSError):
            found += stat.S_IFMT(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode) != 0
    return found
