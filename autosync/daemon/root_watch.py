"""Roots and mount points that become other directories: there are no events for that."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from ..model.change import Change, Kind
from ..model.keys import Keys
from ..model.mirror import IN_DOUBT, Identity, Mirror
from ..source.deferred_scans import DeferredScans
from ..source.remembered_roots import NO_FILE
from ..source.roots import MOST_MOUNTS, RootRegister
from ..state.root_memory import RootMemory
from ..watch.debounce import Debouncer
from ..watch.watcher import Watcher, identity_of
from .registration import Registration

log = logging.getLogger(__name__)

#: How long a root rests that held no file and holds something now, after the first such scan and at most, in seconds. It doubles with each
#: scan: what the root holds may be nothing that a scan sends, like `lost+found`.
_REFILLED_INTERVAL, _MAX_REFILLED_INTERVAL = 60.0, 3600.0


@dataclass(slots=True)
class _RefilledScan:
    """The scans of a root that held no file and holds something now.

    Attributes:
        interval: from the end of the last one to the next one, in seconds.
        due_at: when the next one is due, on the monotonic clock; None: the last one has not ended.
    """

    interval: float
    due_at: float | None = None


class RootWatch:
    """Detects that a root is another directory, and that something was mounted or unmounted below it. Not safe to use from many threads.

    Args:
        keys: naming rule and scope of the mirror.
        roots: the roots and mount points.
        deferred_scans: scans of roots that wait until these are the remembered ones again.
        memory: stores the remembered roots.
        registration: publishes the definition with their identities.
        debouncer: receives requests for scans.
        once: whether the run ends when source and target are equal. Then what happens to a root after its scan is left to the next run.
        about: prefix of log lines, where there are several mirrors.

    Attributes:
        roots_in_doubt: the roots that are another directory now, or gone.
    """

    def __init__(
        self,
        keys: Keys,
        roots: RootRegister,
        deferred_scans: DeferredScans,
        memory: RootMemory,
        registration: Registration,
        debouncer: Debouncer,
        *,
        once: bool = False,
        about: str = "",
    ) -> None:
        self.roots_in_doubt: set[str] = set()
        self._keys = keys
        self._roots = roots
        self._deferred_scans = deferred_scans
        self._memory = memory
        self._registration = registration
        self._debouncer = debouncer
        self._is_once = once
        self._about = about
        self._watcher: Watcher | None = None
        #: The directories that are watched as the roots.
        self._watched = dict(registration.mirror.identities)
        self._has_logged_mounts = False
        #: The roots that held no file and hold something now, by path.
        self._refilled: dict[str, _RefilledScan] = {}

    def begin(self) -> None:
        """Load what is remembered, and publish the definition with it.

        Raises:
            BrokerError: the broker does not respond.
        """
        self._memory.load()
        self._registration.publish(replace(self._registration.mirror, identities=self._roots.identities()))
        self._memory.store()

    def start(self, watcher: Watcher | None) -> None:
        """Use a watcher from now on; None: nothing is watched, and changes are scanned only."""
        self._watcher = watcher

    def poll(self) -> None:
        """Find what has changed, and have it watched and scanned.

        Another root that holds something is watched and scanned, and that scan decides whether it is the source from now on
        (`compare/root_check.py`). A root that was lost and is the same again may be a share that was mounted again, or a new directory with
        the old inode number: its watches are gone, so they are placed anew.

        Raises:
            BrokerError: the broker does not respond.
        """
        self._roots.poll_roots()
        found = root_identities(self._registration.mirror)
        in_doubt = {root for root in self._roots.roots if not self._roots.is_confirmed(root)}
        newly = in_doubt - self.roots_in_doubt
        for root in sorted(newly):
            is_there = root in found or os.path.isdir(root)
            log.warning("source %s %s", root, "is another directory than before" if is_there else "is gone; nothing is deleted")
        back, self.roots_in_doubt = self.roots_in_doubt - in_doubt, in_doubt
        self._poll_mounts()
        self.publish()
        self._scan_refilled()
        for path in self._deferred_scans.pop():
            self._debouncer.push((Change(Kind.SCAN, path),))
        if self._watcher is None:
            return
        back |= self._watcher.lost_roots & (found.keys() - in_doubt)
        for source in self._keys.sources:
            now = found.get(source.root)
            # Another file system may have the device and the inode number of the one before, and the watches are gone with that.
            is_changed = source.root in newly or now != self._watched.get(source.root)
            is_other = now is not None and is_changed and _holds_something(source.root)
            if is_other or source.root in back:
                self._watcher.replace_root(source)
                self._watched[source.root] = now or IN_DOUBT
        for path in sorted(back.intersection(self._keys.inner_paths)):
            self._replace_tree(path, is_mounted=True)

    def publish(self) -> None:
        """Publish and store what is remembered of the roots and mount points, if that has changed.

        Raises:
            BrokerError: the broker does not respond.
        """
        mirror = self._registration.mirror
        identities = self._roots.identities()
        before = mirror.identities
        if identities != before:
            # What a scan found before still counts if all that has changed is that the scan believed the directory.
            keeps = all(before.get(path, IN_DOUBT) in (IN_DOUBT, one) for path, one in identities.items())
            keeps_scans = keeps and before.keys() <= identities.keys()
            self._registration.publish(replace(mirror, identities=identities), keeps_scans=keeps_scans)
        self._memory.store()

    def _scan_refilled(self) -> None:
        """Scan the roots that held no file and hold something now: only a scan finds out whether that ends the doubt."""
        if self._is_once or self._debouncer.has_scans():
            return
        now = time.monotonic()
        emptied = {path for path, doubt in self._roots.remembered.doubts().items() if doubt.text == NO_FILE}
        self._refilled = {path: one for path, one in self._refilled.items() if path in emptied}
        for path in sorted(emptied):
            before = self._refilled.get(path)
            if before is not None and before.due_at is None:
                before.due_at = now + before.interval
            if before is not None and before.due_at is not None and now < before.due_at:
                continue
            if self._roots.is_confirmed(path) and _holds_something(path):
                interval = min(2 * before.interval, _MAX_REFILLED_INTERVAL) if before is not None else _REFILLED_INTERVAL
                self._refilled[path] = _RefilledScan(interval)
                self._debouncer.push((Change(Kind.SCAN, path),))

    def _poll_mounts(self) -> None:
        """Watch and scan what is at a mount point now. The scan finds out whether it is the remembered directory."""
        changes = dict(self._roots.pop_mount_changes())
        if self._watcher is not None:
            # What was unmounted and mounted again between two calls may have the same number and device, and its watches are gone.
            changes |= {path: mount for path, mount in self._roots.mounts.all().items() if self._watcher.was_unmounted(path)}
        for path, mount in changes.items():
            if self._roots.has_moved(path):
                self._debouncer.push((Change(Kind.LEFT, path),))  # a scan of the directory above may have been before the mount table
                continue
            is_waiting = (mount is None or mount.is_trigger) and self._roots.mounts.is_waiting_for_use(
                path
            )  # to walk it would mount it again
            self._replace_tree(path, is_mounted=mount is not None, is_placed=not is_waiting)
        if self._roots.has_more and not self._has_logged_mounts:
            log.error(
                "%sthere are more than %d mount points below %s: the others are not remembered, and where one is unmounted, its keys "
                "count as gone",
                self._about, MOST_MOUNTS, ", ".join(self._roots.roots),
            )  # fmt: skip
            self._has_logged_mounts = True

    def _replace_tree(self, path: str, *, is_mounted: bool, is_placed: bool = True) -> None:
        source = next((source for source in self._keys.sources if source.holds(path) or source.root == path), None)
        if self._watcher is not None and source is not None:
            self._watcher.replace_tree(source, path, is_mounted=is_mounted, is_placed=is_placed)
        elif is_placed:
            self._debouncer.push((Change(Kind.SCAN, path),))


def root_identities(mirror: Mirror) -> dict[str, Identity]:
    """The directories that are the roots of a mirror now, by path of the root; those that are gone are left out."""
    found = {}
    for source in mirror.sources:
        with suppress(OSError):
            found[source.root] = identity_of(source.root)
    return found


def _holds_something(directory: str) -> bool:
    with suppress(OSError), os.scandir(directory) as entries:
        return next(entries, None) is not None
    return False
