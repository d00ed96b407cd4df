"""Mounts for tests. They need root; what is still mounted at the end is unmounted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .parts import permitted
from .servers import wait_until


class Mounts:
    """Mounts file systems, and unmounts them."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def mount(self, at: Path, *options: str) -> None:
        """Mount a file system.

        Args:
            at: the mount point; made if it is missing.
            options: of mount(8); tmpfs without.
        """
        at.mkdir(parents=True, exist_ok=True)
        permitted("mount", *(options or ("-t", "tmpfs", "tmpfs")), str(at))
        self._mounted.append(at)

    def bind(self, directory: Path, at: Path) -> None:
        """Mount a directory at a second place."""
        directory.mkdir(parents=True, exist_ok=True)
        self.mount(at, "--bind", str(directory))

    def unmount(self, at: Path) -> None:
        """Unmount a file system as soon as nobody reads from it. It must be mounted."""
        done = wait_until(lambda: _unmounted(at), 30, f"nobody reads from {at}")
        assert done, "or the fault has not happened"
        if at in self._mounted:
            self._mounted.remove(at)

    def move(self, directory: Path, to: Path) -> None:
        """Rename a directory with all mounts in it."""
        directory.rename(to)
        self._mounted = [to / at.relative_to(directory) if at.is_relative_to(directory) else at for at in self._mounted]

    def close(self) -> None:
        """Unmount all that is still mounted."""
        for at in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", str(at)], check=False, capture_output=True)


@contextmanager
def mounts_of_test() -> Iterator[Mounts]:
    """Mounts for the length of a with-block."""
    mounts = Mounts()
    try:
        yield mounts
    finally:
        mounts.close()


def _unmounted(at: Path) -> bool:
    return subprocess.run(["umount", str(at)], check=False, capture_output=True).returncode == 0
