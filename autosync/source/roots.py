"""Remembers the root of each PATH and the mount points below. If one has been replaced, nothing below it counts as deleted.

A PATH inside another one is a root, too. What is remembered outlives a restart. A directory that is missing, or that is not the remembered
one, is *in doubt*: no scan deletes anything below it, until it holds at least half of the keys that the target has there, or until an
operator accepts it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping

from ..model.keys import Keys
from ..model.mirror import IN_DOUBT, Identity
from ..model.paths import is_at_or_below, itself_and_parents
from ..model.root_identity import RootIdentity
from .automounts import Automounts
from .identify import identify, identify_open, identity_at, is_mount_point, is_same_directory, is_same_open, names_of
from .mount_watch import MountWatch
from .mounts import Mount, MountTable
from .remembered_roots import Doubt, RememberedRoots

#: More mount points than this are not remembered.
MOST_MOUNTS = 1000


class RootRegister:
    """Finds out whether the roots and mount points of one mirror are the remembered directories. Safe to use from many threads.

    The lock is held for short, and no directory is opened meanwhile: a share whose server is dead must not stop the main loop.

    Args:
        keys: the rules for the mirror's keys.
        table: the mounts of this process; None: only the mount points are found that a walk recognizes by their device.

    Attributes:
        roots: paths of the roots.
        remembered: what is remembered.
        mounts: what is mounted now.
        automounts: those that wait for their use.
    """

    def __init__(self, keys: Keys, table: MountTable | None = None) -> None:
        self._keys = keys
        self._lock = threading.RLock()
        self.roots = tuple(dict.fromkeys([*(source.root for source in keys.sources), *keys.inner_paths]))
        self.remembered = RememberedRoots(self.roots, MOST_MOUNTS, self._lock)
        self.mounts = MountWatch(keys, self.roots, table, MOST_MOUNTS, self._lock)
        self.automounts = Automounts(self.remembered, self.mounts)
        #: The directories that this process has found to be the remembered ones.
        self._confirmed: dict[str, Identity] = {}
        #: Whether the mounts have changed since the last check that each seemingly unchanged directory is the remembered one.
        self._is_unchecked = False
        #: Paths inside other ones that an operator has accepted as gone. They are ordinary paths until they exist again.
        self._dropped: set[str] = set()
        self._paths = frozenset(self.roots)

    def load(
        self, identities: Mapping[str, RootIdentity], doubts: Mapping[str, Doubt], former_roots: Collection[str] = ()
    ) -> None:  # fmt: skip
        """Load what was stored. A root that was not stored is remembered as it is now; a mount point only after the next scan.

        Args:
            identities: the remembered directories, by path.
            doubts: the directories in doubt, by path.
            former_roots: those of the directories that were roots, and are none any more. One that is below a root now is protected like a
                mount point, unless it is an ordinary directory, and still the same.
        """
        ours = {path: one for path, one in identities.items() if path not in former_roots or not _is_ordinary(path, one)}
        with self._lock:
            self.remembered.load(ours, doubts, self._keys)
            self._confirmed.clear()
            self._poll_mounts()
            self.mounts.pop_changes()
            self._update_paths()
            self._is_unchecked = False
        self.poll_roots()

    @property
    def has_more(self) -> bool:
        """Whether there are more mount points than are remembered."""
        return self.remembered.has_more or self.mounts.has_more

    def has_moved(self, path: str) -> bool:
        """Whether this path was a mount point and is none any more, since the directory that contained it was moved."""
        with self._lock:
            return self.mounts.has_moved(path) and path not in self._paths

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
        return (one for one in itself_and_parents(path) if one in protected)

    def is_confirmed(self, path: str) -> bool:
        """Whether a directory is the remembered one at this moment."""
        confirmed = self._confirmed.get(path)
        return confirmed is not None and identity_at(path) == confirmed

    def is_in_doubt(self, path: str) -> bool:
        """Whether a directory is a root or a mount point, and not found to be the remembered one. The disk is not accessed."""
        with self._lock:
            return path in self._paths and path not in self._confirmed

    # What is on the disk, for the main loop

    def poll_roots(self) -> None:
        """Check whether the roots are the remembered directories. If nothing is remembered about a root, it is remembered as it is now."""
        for path in self.roots:
            if not self.is_confirmed(path):
                self._examine(path)

    def follow_switched_links(self, path: str = "") -> None:
        """Remember the roots whose link was switched to another directory since the last poll.

        Args:
            path: a directory; the roots above it are checked. "": all roots.
        """
        for root in self.roots:
            before = self.remembered.get(root)
            if before is not None and before.real_path and (not path or is_at_or_below(path, root)) and not self.is_confirmed(root):
                self._examine(root)

    def pop_mount_changes(self) -> list[tuple[str, Mount | None]]:
        """The paths below the roots where something was mounted or unmounted since the last call, each with its mount now."""
        self.poll_mounts()
        return self.mounts.pop_changes()

    def note_mounts(self) -> None:
        """Take note of what was mounted or unmounted below the roots, at the price of one poll(2) if there is nothing."""
        with self._lock:
            self._poll_mounts()

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
            local = [path for path in self._confirmed if not self.mounts.may_block(path)]
            remembered = [(path, self.remembered.get(path)) for path in local]
        for path, before in remembered:
            if before is None:
                continue
            found = identify(path)
            if found is not None and is_same_directory(before, found, path):
                continue
            with self._lock:
                self._lose(path)
                self.mounts.note_change(path)

    # What is on the disk, for scans

    def find_moved_mounts(self, paths: Iterable[str]) -> None:
        """Find out whether mount points have moved with the directory that contains them.

        Args:
            paths: those that a walk has not found.
        """
        if any(path in self.mounts and not os.path.lexists(os.path.dirname(path)) for path in paths):
            with self._lock:
                self.mounts.must_read()
        self.poll_mounts()

    def check_open(self, path: str, descriptor: int, stats: os.stat_result) -> bool:
        """Check an open directory that a walk has reached by its path. Returns whether it is the remembered one."""
        with self._lock:
            if self._confirmed.get(path) == Identity(stats.st_dev, stats.st_ino):
                return True
            if self.mounts.is_trigger(path):
                self._poll_mounts()  # it was mounted when the walk opened it
                if self.mounts.is_trigger(path):
                    return True  # an empty directory in which others are mounted when they are used
            before = self.remembered.get(path)
            if before is None and path not in self.roots:
                self.remembered.add_mount(path)
                self._update_paths()
        if before is None:
            return False
        found = identify_open(descriptor, path)
        if not is_same_open(before, found, descriptor):
            return False
        with self._lock:
            self._confirm(path, found)
        return True

    def is_emptied(self, path: str, descriptor: int) -> bool:
        """Whether a mount point is empty, but is not remembered as empty."""
        before = self.remembered.get(path)
        if self.kind(path) == "root" or (before is not None and before.names == ()):
            return False
        return not names_of(descriptor)

    def adopt(self, path: str, seen: Identity, *, keeps_doubt: bool = False) -> bool:
        """Remember what is at a path now as the right directory. An ordinary directory, neither a root nor a mount point, is forgotten.

        Args:
            path: the directory's absolute path.
            seen: what a scan has found there.
            keeps_doubt: whether a doubt that an operator has accepted goes on: keys below the directory are still to be deleted.

        Returns:
            Whether the path still names what the scan has found.
        """
        found = identify(path)
        if found is None or Identity(found.device, found.inode) != seen:
            return False
        if self.kind(path) == "mount" and path not in self.mounts and not is_mount_point(path):
            self.forget(path)  # an ordinary directory
        else:
            with self._lock:
                self._adopt(path, found, keeps_doubt=keeps_doubt)
        return True

    def drop(self, path: str) -> bool:
        """Stop protecting a PATH inside another one, which an operator has accepted as gone. What is there later is remembered as it is
        then.

        Returns:
            Whether it is such a PATH, and is not protected any more.
        """
        if path not in self._keys.inner_paths:
            return False
        with self._lock:
            self._dropped.add(path)
            self._update_paths()
            return True

    def note_keys(self, path: str, keys: int, text: str = "") -> Doubt:
        """Note that a directory is in doubt, and how many keys the target has below it, see `RememberedRoots.note_keys`."""
        text = text or self._reason(path, identify(path))
        with self._lock:
            doubt = self.remembered.note_keys(path, keys, text)
            self._update_paths()
            return doubt

    def forget(self, path: str) -> None:
        """Forget a directory: it is an ordinary one from now on."""
        with self._lock:
            self.remembered.forget(path)
            self._confirmed.pop(path, None)
            self._update_paths()

    def refresh_names(self) -> None:
        """Remember the present names in the confirmed directories. If a directory is empty now, its earlier names are kept."""
        for path in self._paths:
            before = self.remembered.get(path)
            if before is None or not self.is_confirmed(path):
                continue
            found = identify(path)
            with self._lock:
                if found is None or found == before or (before.names and not found.names) or before is not self.remembered.get(path):
                    continue
                if self._confirmed.get(path) == Identity(found.device, found.inode):
                    self.remembered.replace(path, found)

    # Inside

    def _examine(self, path: str) -> None:
        """Find out whether a root is the remembered directory."""
        found, before = identify(path), self.remembered.get(path)
        is_same = before is not None and found is not None and is_same_directory(before, found, path)
        reason = "" if is_same else self._reason(path, found)
        with self._lock:
            if found is None:
                if before is not None:
                    self._begin_doubt(path, reason)
            elif before is None or path in self._dropped:
                self._adopt(path, found)
            elif is_same:
                self._confirm(path, found)
            elif before.real_path and found.real_path not in ("", before.real_path) and found.names:
                self._adopt(path, found)  # the path leads through a link, which leads elsewhere now: somebody has switched it
            else:
                self._begin_doubt(path, reason)

    # Inside, with the lock held

    def _update_paths(self) -> None:
        self._paths = frozenset({*self.roots, *self.remembered.identities()} - self._dropped | {*self.mounts.mounted()})

    def _published(self, path: str) -> Identity:
        before = self.remembered.get(path)
        if path not in self._confirmed and before is not None and self.mounts.is_waiting_for_use(path):
            return Identity(before.device, before.inode)
        return self._confirmed.get(path, IN_DOUBT)

    def _poll_mounts(self) -> None:
        found = self.mounts.poll()
        if found is None:
            return
        self._is_unchecked = True
        for path in found.moved:
            self.forget(path)
        for path in (*found.changed, *found.other_disks):
            self._lose(path)
        for path in self.mounts.mounted():
            if path not in self.remembered and path not in self.roots:
                self.remembered.add_mount(path)
        if found.changed:
            self._update_paths()

    def _lose(self, path: str) -> None:
        """Note that a directory is the remembered one no more, if it was. What was accepted until then is not what comes now."""
        if self._confirmed.pop(path, None) is not None:
            self.remembered.end_acceptance(path)

    def _begin_doubt(self, path: str, reason: str) -> None:
        self._lose(path)
        self.remembered.begin_doubt(path, reason)

    def _confirm(self, path: str, found: RootIdentity, *, keeps_doubt: bool = True) -> None:
        """Note that a directory is the remembered one. What an operator has accepted there stays accepted until a scan has ended: it may be
        this directory, which has lost all of its files."""
        self._confirmed[path] = Identity(found.device, found.inode)
        if path in self._dropped:  # what was accepted is that it is gone
            self._dropped.discard(path)
            self._update_paths()
            keeps_doubt = False
        self.remembered.end_doubt(path, unless_accepted=keeps_doubt)
        before = self.remembered.get(path)
        if before is None or (before.device, before.inode, before.filesystem) != (found.device, found.inode, found.filesystem):
            self.remembered.replace(path, found)

    def _adopt(self, path: str, found: RootIdentity, *, keeps_doubt: bool = False) -> None:
        if path not in self.roots and path not in self.remembered and not self.remembered.add_mount(path):
            return
        if found.real_path:
            self.mounts.must_read()
        self.remembered.replace(path, found)
        self._confirm(path, found, keeps_doubt=keeps_doubt)
        self._update_paths()

    def _reason(self, path: str, found: RootIdentity | None) -> str:
        """Why a directory is in doubt.

        Args:
            path: the directory's absolute path.
            found: what is there now; None: nothing that can be opened.
        """
        if found is None and self.mounts.is_waiting_for_use(path):
            return "cannot be mounted"
        if found is None:
            return "cannot be opened" if os.path.lexists(path) else "is gone"
        if not found.names:
            return "is empty"
        if self.kind(path) == "mount" and path not in self.mounts and not is_mount_point(path):
            return "is not mounted"
        if not self.remembered.is_identified(path):
            return "was mounted over files that the target holds"
        return "is not the directory that it was"


def _is_ordinary(path: str, before: RootIdentity) -> bool:
    """Whether a directory is still the remembered one, and no mount point."""
    found = identify(path)
    return found is not None and is_same_directory(before, found, path) and not is_mount_point(path)
