"""What is remembered of the roots and mount points of a mirror: which directories they are, and which of them are in doubt."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice

from ..model.keys import Keys
from ..model.root_identity import RootIdentity

#: The reason of a doubt about a root below which there is no file, though the target has keys of it.
NO_FILE = "holds no file"
#: A mount point that no scan has identified yet. It is stored at once, since the mount point may be unmounted at the next start.
NEW_MOUNT = RootIdentity(0, 0)


@dataclass(frozen=True, slots=True)
class Doubt:
    """The doubt about a directory that is not the remembered one.

    Attributes:
        keys: how many keys the target had below it when a scan first found the doubt; None: no scan has counted them yet.
        text: why, as the end of a sentence about its path.
        accepted: whether an operator has accepted what the next scan finds there.
        kept: number of keys that the last scan has kept for that: the target has them, and the source lacks them.
        digest: of the set of these keys, see `autosync.model.withheld.Withheld`.
    """

    keys: int | None = None
    text: str = ""
    accepted: bool = False
    kept: int = 0
    digest: str = ""

    @property
    def is_pending(self) -> bool:
        """Whether an operator has to accept the directory."""
        return self.keys is not None and not self.accepted


class RememberedRoots:
    """The identities and doubts of one mirror's roots and mount points. Safe to use from many threads.

    Args:
        roots: paths of the roots.
        max_mounts: more mount points than this are not remembered.
        lock: held while something changes, and by callers for changes that belong together.

    Attributes:
        version: grows with each change of what is to be stored.
        has_more: whether there are more mount points than are remembered.
        waiting: paths of directories whose acceptance waits for the end of a scan.
    """

    def __init__(self, roots: tuple[str, ...], max_mounts: int, lock: threading.RLock) -> None:
        self._roots = roots
        self._most = max_mounts + len(roots)
        self._lock = lock
        self.waiting: frozenset[str] = frozenset()
        self._identities: dict[str, RootIdentity] = {}
        self._doubts: dict[str, Doubt] = {}
        self.version = 0
        self.has_more = False

    def load(self, identities: Mapping[str, RootIdentity], doubts: Mapping[str, Doubt], keys: Keys) -> None:
        """Load what was stored, as far as the sources of the mirror still contain it."""
        ours = {path: one for path, one in identities.items() if path in self._roots or keys.source_of(path)}
        with self._lock:
            self._identities = dict(islice(ours.items(), self._most))
            self._doubts = {path: doubt for path, doubt in doubts.items() if path in self._identities}
            self.version += 1

    def __contains__(self, path: object) -> bool:
        return path in self._identities

    def get(self, path: str) -> RootIdentity | None:
        """What is remembered of a directory; None: nothing."""
        return self._identities.get(path)

    def identities(self) -> dict[str, RootIdentity]:
        """What is remembered of each directory."""
        with self._lock:
            return dict(self._identities)

    def is_identified(self, path: str) -> bool:
        """Whether a scan has identified this directory."""
        return self._identities.get(path, NEW_MOUNT) != NEW_MOUNT

    def doubts(self) -> dict[str, Doubt]:
        """The directories in doubt."""
        with self._lock:
            return dict(self._doubts)

    def pending(self) -> dict[str, Doubt]:
        """The directories in doubt that wait for an operator."""
        return {path: doubt for path, doubt in sorted(self.doubts().items()) if doubt.is_pending}

    @property
    def has_doubts(self) -> bool:
        """Whether a directory is in doubt that no operator has accepted."""
        return any(not doubt.accepted for doubt in self.doubts().values())

    def accept(self, path: str) -> bool:
        """Accept a directory in doubt that waits for an operator. The next scan adopts what is there, or forgets a mount point that is
        gone.

        Args:
            path: the directory's absolute path.

        Returns:
            Whether the directory was waiting. If so, it has to be scanned.
        """
        with self._lock:
            if path not in self.pending():
                return False
            self._doubts[path] = replace(self._doubts[path], accepted=True)
            self.version += 1
            return True

    def replace(self, path: str, identity: RootIdentity) -> None:
        """Remember another identity of a directory."""
        with self._lock:
            self._identities[path] = identity
            self.version += 1

    def add_mount(self, path: str) -> bool:
        """Remember that something is mounted at a path. Returns whether there was room for it."""
        with self._lock:
            if len(self._identities) >= self._most:
                self.has_more = True
                return False
            self._identities[path] = NEW_MOUNT
            self.version += 1
            return True

    def begin_doubt(self, path: str, text: str) -> None:
        """Note that a directory is in doubt. Until a scan has counted its keys, the last reason counts.

        Args:
            path: the directory's absolute path.
            text: the reason of the doubt, see `Doubt`.
        """
        with self._lock:
            before = self._doubts.get(path)
            if before is None or (before.keys is None and before.text != text):
                self._doubts[path] = replace(before or Doubt(), text=text)
                self.version += 1

    def note_keys(self, path: str, keys: int, text: str) -> Doubt:
        """Note that a directory is in doubt, and how many keys the target has below it. Only the first number is kept: later ones include
        what was sent meanwhile.

        Args:
            path: the directory's absolute path.
            keys: their number.
            text: the reason of the doubt, see `Doubt`.
        """
        with self._lock:
            before = self._doubts.get(path, Doubt())
            doubt = replace(before, keys=keys if before.keys is None else before.keys, text=text)
            if doubt != before:
                self._doubts[path] = doubt
                self._identities.setdefault(path, NEW_MOUNT)
                self.version += 1
            return doubt

    def note_kept(self, path: str, count: int, digest: str) -> None:
        """Note the keys that a scan has kept because a directory is in doubt. An operator accepts the deletion of this set.

        Args:
            path: path of the directory.
            count: number of the keys.
            digest: of their set.
        """
        with self._lock:
            before = self._doubts.get(path)
            if before is not None and (before.kept, before.digest) != (count, digest):
                self._doubts[path] = replace(before, kept=count, digest=digest)
                self.version += 1

    def end_doubt(self, path: str, *, unless_accepted: bool = False) -> None:
        """End the doubt about a directory that is the remembered one.

        Args:
            path: the directory's absolute path.
            unless_accepted: whether a doubt that an operator has accepted goes on.
        """
        with self._lock:
            doubt = self._doubts.get(path)
            if doubt is not None and not (unless_accepted and doubt.accepted):
                del self._doubts[path]
                self.version += 1

    def end_acceptance(self, path: str) -> None:
        """End a doubt that an operator has accepted: the directory was the accepted one, and is it no more."""
        with self._lock:
            doubt = self._doubts.get(path)
            if doubt is not None and doubt.accepted:
                del self._doubts[path]
                self.version += 1

    def forget(self, path: str) -> None:
        """Forget a directory."""
        with self._lock:
            self._identities.pop(path, None)
            self._doubts.pop(path, None)
            self.version += 1
