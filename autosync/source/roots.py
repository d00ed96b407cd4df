"""Remembers the root of each PATH and the mount points below. If one has been replaced, nothing below it counts as deleted.

A PATH inside another one is a root, too. What is remembered outlives a restart. A directory that is missing, or that is not the remembered
one, is *in doubt*: no scan deletes anything below it, until it holds at least half of the keys that the target has there, or until a person
accepts it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from ..model.keys import Keys, Source, slashed
from ..model.mirror import IN_DOUBT, Identity
from ..model.root_identity import RootIdentity
from .identify import identify, identify_open, identity_at, is_mount_point, is_same_directory, is_same_open, names_of
from .mounts import Mount, MountTable

#: More mount points than this are not remembered.
MOST_MOUNTS = 1000
#: A mount point that no scan has identified yet. It is stored at once, since the mount point may be unmounted at the next start.
NEW_MOUNT = RootIdentity(0, 0)


@dataclass(frozen=True, slots=True)
class Doubt:
    """The doubt about a directory that is not the remembered one.

    Attributes:
        keys: how many keys the target had below it when a scan first found the doubt; None: no scan has counted them yet.
        text: why, as the end of a sentence about its path.
        accepted: whether a person has accepted what the next scan finds there.
    """

    keys: int | None = None
    text: str = ""
    accepted: bool = False

    @property
    def is_pending(self) -> bool:
        """Whether a person has to accept the directory."""
        return self.keys is not None and not self.accepted


class KnownRoots:
    """The remembered roots and mount points of one mirror. Safe to use from many threads.

    No file system is accessed while the lock is held: a share whose server is dead must not stop the main loop.

    Args:
        keys: of the mirror.
        table: the mounts of this process; None: only the mount points are found that a walk recognizes by their device.
    """

    def __init__(self, keys: Keys, table: MountTable | None = None) -> None:
        self._keys = keys
        self._table = table
        self._lock = threading.RLock()
        self.roots = tuple(dict.fromkeys([*(source.root for source in keys.sources), *keys.inner_paths]))
        self._known: dict[str, RootIdentity] = {}
        #: The directories that this process has found to be the remembered ones.
        self._confirmed: dict[str, Identity] = {}
        self._doubts: dict[str, Doubt] = {}
        #: Mount points below the roots, with their mounts, and for each root the mount that contains it.
        self._mounts: dict[str, Mount] = {}
        self._mounts_of_roots: dict[str, Mount | None] = {}
        #: Directories in doubt below which a change was not handled.
        self._unsettled: set[str] = set()
        #: Mount points where something was mounted or unmounted since `pop_mount_changes`.
        self._changed_mounts: set[str] = set()
        #: Whether a root leads through another link than before, so that other mounts are below it.
        self._has_moved = False
        #: Mount points that have moved with the directory that they were in.
        self._moved: set[str] = set()
        #: Whether the mounts have changed since the last check that each seemingly unchanged directory is the remembered one.
        self._is_unchecked = False
        #: Whether there are more mount points than are remembered.
        self.has_more = False
        #: Grows with each change of what is to be stored.
        self.version = 0
        self._paths = frozenset(self.roots)

    # What is remembered

    def load(self, known: Mapping[str, RootIdentity], doubts: Mapping[str, Doubt]) -> None:
        """Load what was stored. A root that was not stored is remembered as it is now; a mount point only after the next scan."""
        ours = {path: one for path, one in known.items() if path in self.roots or self._keys.source_of(path)}
        with self._lock:
            self._known = dict(islice(ours.items(), MOST_MOUNTS + len(self.roots)))
            self._doubts = {path: doubt for path, doubt in doubts.items() if path in self._known}
            self._confirmed.clear()
            self._poll_mounts()
            self._changed_mounts.clear()
            self._change()
            self._is_unchecked = False
        self.poll_roots()

    def known(self) -> dict[str, RootIdentity]:
        """What is remembered of each directory."""
        with self._lock:
            return dict(self._known)

    def is_known(self, path: str) -> bool:
        """Whether a scan has identified this directory."""
        return self._known.get(path, NEW_MOUNT) != NEW_MOUNT

    def doubts(self) -> dict[str, Doubt]:
        """The directories in doubt."""
        with self._lock:
            return dict(self._doubts)

    def pending(self) -> dict[str, Doubt]:
        """The directories in doubt that wait for a person."""
        return {path: doubt for path, doubt in sorted(self.doubts().items()) if doubt.is_pending}

    def accept(self, path: str) -> bool:
        """Accept a directory in doubt that waits for a person: the next scan adopts what is there, or forgets a mount point that is gone.

        Args:
            path: of the directory.

        Returns:
            Whether the directory was waiting. If so, it has to be scanned.
        """
        with self._lock:
            if path not in self.pending():
                return False
            self._doubts[path] = replace(self._doubts[path], accepted=True)
            self.version += 1
            return True

    def has_moved(self, path: str) -> bool:
        """Whether this was a mount point that has moved with the directory that contained it. Its files have moved with it."""
        with self._lock:
            return path in self._moved and path not in self._paths

    def identities(self) -> dict[str, Identity]:
        """The identities for the definition of the mirror. Workers delete nothing below a directory with another identity."""
        with self._lock:
            return {path: self._published(path) for path in self._paths}

    def kind(self, path: str) -> str:
        """The kind of a directory: "root" or "mount"."""
        return "root" if path in self.roots else "mount"

    # What is on the disk, for events

    def protected(self) -> frozenset[str]:
        """The paths of all roots and mount points."""
        return self._paths

    def above(self, path: str) -> Iterator[str]:
        """The roots and mount points that are this path, or contain it, from below."""
        protected = self._paths
        while path:
            if path in protected:
                yield path
            path = path.rpartition("/")[0]
        if "/" in protected:
            yield "/"

    def is_settled(self, path: str) -> bool:
        """Whether each root and mount point above a path is the remembered one at this moment, so that a file that was not found is gone.
        If not, the directory in doubt is scanned when the doubt ends. Call this after the file was not found."""
        for top in self.above(path):
            if not self.is_confirmed(top):
                with self._lock:
                    self._unsettled.add(top)
                return False
        return True

    def is_confirmed(self, path: str) -> bool:
        """Whether a directory is the remembered one at this moment."""
        confirmed = self._confirmed.get(path)
        return confirmed is not None and identity_at(path) == confirmed

    # What is on the disk, for the main loop

    def poll_roots(self) -> None:
        """Check whether the roots are the remembered directories. A root that is not known yet is remembered as it is now."""
        for path in self.roots:
            if not self.is_confirmed(path):
                self._examine(path)

    def pop_mount_changes(self) -> list[tuple[str, Mount | None]]:
        """The paths below the roots where something was mounted or unmounted since the last call, each with its mount now."""
        self.poll_mounts()
        with self._lock:
            changed, self._changed_mounts = sorted(self._changed_mounts), set()
            return [(path, self._mounts.get(path)) for path in changed]

    def poll_mounts(self) -> None:
        """Find out whether something was mounted or unmounted below the roots.

        The kernel gives the numbers of a mount and of its device to the next one. So after a change, directories that seem to be unchanged
        are checked, too, unless another host or process would have to respond.
        """
        with self._lock:
            self._poll_mounts()
            if not self._is_unchecked:
                return
            self._is_unchecked = False
            local = [path for path in self._confirmed if path not in self._mounts or not self._mounts[path].may_block]
            known = {path: self._known[path] for path in local if path in self._known}
        for path, before in known.items():
            found = identify(path)
            if found is not None and is_same_directory(before, found, path):
                continue
            with self._lock:
                self._confirmed.pop(path, None)
                if path in self._mounts:
                    self._changed_mounts.add(path)

    def pop_unsettled(self) -> list[str]:
        """Remove and return the directories that have to be scanned because their doubt has ended."""
        with self._lock:
            settled = [path for path in self._unsettled if path in self._confirmed or path not in self._paths]
            self._unsettled.difference_update(settled)
            return settled

    # What is on the disk, for scans

    def use_mounts(self, top: str) -> None:
        """Open the known automount points at or below a directory, so that they are mounted when the walk comes to them.

        Args:
            top: path of the directory; "" is the whole source.
        """
        self.poll_mounts()
        with self._lock:
            unused = [path for path in self._known if self.is_expired(path)]
            waiting = [path for path in unused if not top or slashed(path).startswith(slashed(top))]
        for path in waiting:
            with suppress(OSError):
                os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def is_waiting_for_use(self, path: str) -> bool:
        """Whether autofs(5) mounts a directory when it is used: it exists, although it may not be mounted now."""
        with self._lock:
            while path and path not in self.roots:
                if path in self._mounts and self._mounts[path].is_trigger:
                    return True
                path = path.rpartition("/")[0]
        return False

    def is_expired(self, path: str) -> bool:
        """Whether a known mount point was unmounted because it was not used. It is mounted when it is used again."""
        with self._lock:
            mount = self._mounts.get(path)
            return path in self._known and (mount is None or mount.is_trigger) and self.is_waiting_for_use(path)

    def check_open(self, path: str, descriptor: int, stats: os.stat_result) -> bool:
        """Check an open directory that a walk has reached by its path. Returns whether it is the remembered one."""
        with self._lock:
            if self._confirmed.get(path) == Identity(stats.st_dev, stats.st_ino):
                return True
            if path in self._mounts and self._mounts[path].is_trigger:
                self._poll_mounts()  # it was mounted when the walk opened it
                if path in self._mounts and self._mounts[path].is_trigger:
                    return True  # an empty directory in which others are mounted when they are used
            known = self._known.get(path)
            if known is None and path not in self.roots:
                self._add_mount(path)
                self._change()
        if known is None:
            return False
        found = identify_open(descriptor, path)
        if not is_same_open(known, found, descriptor):
            return False
        with self._lock:
            self._confirm(path, found)
        return True

    def is_emptied(self, path: str, descriptor: int) -> bool:
        """Whether a mount point is empty, but is not remembered as empty."""
        known = self._known.get(path)
        if self.kind(path) == "root" or (known is not None and known.names == ()):
            return False
        return not names_of(descriptor)

    def adopt(self, path: str, seen: Identity) -> bool:
        """Remember what is at a path now as the right directory. An ordinary directory, neither a root nor a mount point, is forgotten.

        Args:
            path: of the directory.
            seen: what a scan has found there.

        Returns:
            Whether the path still names what the scan has found.
        """
        found = identify(path)
        if found is None or Identity(found.device, found.inode) != seen:
            return False
        if self.kind(path) == "mount" and path not in self._mounts and not is_mount_point(path):
            self.forget(path)  # an ordinary directory
        else:
            with self._lock:
                self._adopt(path, found)
        return True

    def note_keys(self, path: str, keys: int) -> Doubt:
        """Note that a directory is in doubt, and how many keys the target has below it. Only the first number is kept: later ones include
        what was sent meanwhile."""
        text = self._reason(path)
        with self._lock:
            before = self._doubts.get(path, Doubt())
            doubt = replace(before, keys=keys if before.keys is None else before.keys, text=text)
            if doubt != before:
                self._doubts[path] = doubt
                self._known.setdefault(path, NEW_MOUNT)
                self._change()
            return doubt

    def settle(self, path: str) -> None:
        """End the doubt about a directory that is the remembered one."""
        with self._lock:
            if self._doubts.pop(path, None) is not None:
                self.version += 1

    def forget(self, path: str) -> None:
        """Forget what is known of a directory."""
        with self._lock:
            self._known.pop(path, None)
            self._confirmed.pop(path, None)
            self._doubts.pop(path, None)
            self._change()

    def refresh_names(self) -> None:
        """Remember the present names in the confirmed directories. If a directory is empty now, its earlier names are kept."""
        for path in self._paths:
            known = self._known.get(path)
            if known is None or not self.is_confirmed(path):
                continue
            found = identify(path)
            with self._lock:
                if found is None or found == known or (known.names and not found.names) or known is not self._known.get(path):
                    continue
                if self._confirmed.get(path) == Identity(found.device, found.inode):
                    self._known[path] = found
                    self.version += 1

    # Inside

    def _examine(self, path: str) -> None:
        """Find out whether a root is the remembered directory."""
        found, known = identify(path), self._known.get(path)
        is_same = known is not None and found is not None and is_same_directory(known, found, path)
        with self._lock:
            if found is None:
                if known is not None:
                    self._begin_doubt(path)
            elif known is None:
                self._adopt(path, found)
            elif is_same:
                self._confirm(path, found)
            elif known.real_path and found.real_path not in ("", known.real_path) and found.names:
                self._adopt(path, found)  # the path leads through a link, which leads elsewhere now: somebody has switched it
            else:
                self._begin_doubt(path)

    # Inside, with the lock held

    def _change(self) -> None:
        self.version += 1
        mounted = (path for path, mount in self._mounts.items() if not mount.is_trigger)
        self._paths = frozenset({*self.roots, *self._known, *mounted})

    def _published(self, path: str) -> Identity:
        known = self._known.get(path)
        if path not in self._confirmed and known is not None and self.is_waiting_for_use(path):
            return Identity(known.device, known.inode)
        return self._confirmed.get(path, IN_DOUBT)

    def _poll_mounts(self) -> None:
        if self._table is None or not (self._table.has_changed() or self._has_moved):
            return
        self._has_moved, self._is_unchecked = False, True
        table = self._table.read()
        before, self._mounts = self._mounts, self._below_roots(table)
        changed = {path for path in {*before, *self._mounts} if before.get(path) != self._mounts.get(path)}
        self._forget_moved(before)
        for path in changed:
            self._confirmed.pop(path, None)
        for path in self.roots:  # another disk may have the same device and inode number
            mount = _mount_around(os.path.realpath(path), table)
            if self._mounts_of_roots.get(path, mount) != mount:
                self._confirmed.pop(path, None)
            self._mounts_of_roots[path] = mount
        self._changed_mounts |= changed
        for path, mount in self._mounts.items():
            if path not in self._known and path not in self.roots and not mount.is_trigger:
                self._add_mount(path)
        if changed:
            self._change()

    def _begin_doubt(self, path: str) -> None:
        self._confirmed.pop(path, None)
        if path not in self._doubts:
            self._doubts[path] = Doubt()
            self.version += 1

    def _confirm(self, path: str, found: RootIdentity) -> None:
        self._confirmed[path] = Identity(found.device, found.inode)
        self.settle(path)
        known = self._known.get(path)
        if known is None or (known.device, known.inode, known.filesystem) != (found.device, found.inode, found.filesystem):
            self._known[path] = found
            self.version += 1

    def _adopt(self, path: str, found: RootIdentity) -> None:
        if path not in self.roots and path not in self._known and not self._add_mount(path):
            return
        self._has_moved = self._has_moved or bool(found.real_path)
        self._known[path] = found
        self._confirm(path, found)
        self._change()

    def _add_mount(self, path: str) -> bool:
        """Remember that something is mounted at a path. Returns whether there was room for it."""
        if len(self._known) >= MOST_MOUNTS + len(self.roots):
            self.has_more = True
            return False
        self._known[path] = NEW_MOUNT
        return True

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
        """Forget mount points that have moved with the directory that contains them; their files have moved with them. A mount point itself
        cannot be renamed (EBUSY, rename(2)), so its name is the same and the directory above is gone. Its number alone proves nothing: the
        kernel gives it to the next mount."""
        self._moved.difference_update(self._mounts)
        now = {mount: path for path, mount in self._mounts.items()}
        for path, mount in before.items():
            moved = now.get(mount, path)
            above, _, name = path.rpartition("/")
            if path not in self._mounts and moved != path and moved.endswith(f"/{name}") and not os.path.lexists(above):
                self.forget(path)
                self._moved.add(path)

    def _reason(self, path: str) -> str:
        found = identify(path)
        if found is None and self.is_waiting_for_use(path):
            return "cannot be mounted"
        if found is None:
            return "cannot be opened" if os.path.lexists(path) else "is gone"
        if not found.names:
            return "is empty"
        if self.kind(path) == "mount" and path not in self._mounts and not is_mount_point(path):
            return "is not mounted"
        if not self.is_known(path):
            return "was mounted over files that the target holds"
        return "is not the directory that it was"


def _mount_around(path: str, mounts: Mapping[str, Mount]) -> Mount | None:
    """The mount that contains a path without links."""
    while path and path != "/":
        if path in mounts:
            return mounts[path]
        path = path.rpartition("/")[0]
    return mounts.get("/")
