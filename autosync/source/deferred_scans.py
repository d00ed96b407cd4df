"""Directories in doubt below which a file was not found. They are scanned when the doubt ends."""

from __future__ import annotations

import threading

from .roots import RootRegister


class DeferredScans:
    """The roots and mount points of one mirror that are scanned when they are the remembered ones again. Safe to use from many threads.

    Args:
        roots: the register of the mirror's roots.
    """

    def __init__(self, roots: RootRegister) -> None:
        self._roots = roots
        self._lock = threading.Lock()
        self._waiting: set[str] = set()

    def is_certain(self, path: str) -> bool:
        """Whether each root and mount point above a path is the remembered one at this moment, so that a file that was not found is gone.
        If not, the directory in doubt is scanned when the doubt ends. Call this after the file was not found."""
        self._roots.note_mounts()  # what was mounted over a directory since the last poll hides its files
        for top in self._roots.above(path):
            if not self._roots.is_confirmed(top):
                with self._lock:
                    self._waiting.add(top)
                return False
        return True

    def pop(self) -> list[str]:
        """Remove and return the directories that have to be scanned because their doubt has ended."""
        with self._lock:
            certain = [path for path in self._waiting if not self._roots.is_in_doubt(path)]
            self._waiting.difference_update(certain)
            return certain
