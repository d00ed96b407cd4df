"""Mount points that autofs(5) mounts when they are used, and unmounts when they are not."""

from __future__ import annotations

import os
from contextlib import suppress

from ..model.paths import is_at_or_below
from .mount_watch import MountWatch
from .remembered_roots import RememberedRoots


class Automounts:
    """The remembered automount points of one mirror.

    Args:
        remembered: what is remembered of the mount points.
        mounts: what is mounted now.
    """

    def __init__(self, remembered: RememberedRoots, mounts: MountWatch) -> None:
        self._remembered = remembered
        self._mounts = mounts

    def use(self, top: str) -> None:
        """Open those at or below a directory that are not mounted, so that they are mounted when a walk comes to them.

        Args:
            top: path of the directory; "" is the whole source.
        """
        for path in [path for path in self._remembered.identities() if self.is_expired(path)]:
            if not top or is_at_or_below(path, top):
                with suppress(OSError):
                    os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def is_expired(self, path: str) -> bool:
        """Whether a remembered mount point was unmounted because it was not used. It is mounted when it is used again."""
        is_mounted = path in self._mounts and not self._mounts.is_trigger(path)
        return path in self._remembered and not is_mounted and self._mounts.is_waiting_for_use(path)
