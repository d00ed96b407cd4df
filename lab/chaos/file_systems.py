"""The file systems of a laboratory with mounts: that of the source, and those that are mounted below it. They need root."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ..disks import Disk
from .mount_table import count_at, mount, unmount

#: Sizes of disks, in MiB. Their images have holes.
_SOURCE_SIZE, _SHARE_SIZE = 4096, 512


class SourceDisk:
    """A disk with the source and a directory beside it. A directory of the disk is mounted at the path of the source.

    Args:
        directory: for the image, and for the mount points.

    Attributes:
        top: the path of the source, a mount point.
        backing: the same directory on the disk.
        beside: a directory beside it on the disk.
        mounts: the directory with all mount points. What is mounted in it is mounted in namespaces of its own too that were made as slaves.

    Raises:
        Missing: this machine or user may not mount.
    """

    def __init__(self, directory: Path) -> None:
        self.mounts = directory / "mounts"
        self._at = self.mounts / "disk"
        self.top = self.mounts / "source"
        self.backing, self.beside = self._at / "source", self._at / "beside"
        self._disk = Disk(directory / "source.ext4", _SOURCE_SIZE)
        self._directory = directory
        self._shares = 0
        self._is_closed = False
        for made in (self.mounts, self._at, self.top):
            made.mkdir()
        mount(self.mounts, "--bind", str(self.mounts))
        _propagate(self.mounts, "--make-private", "--make-shared")
        self.mount(is_first=True)

    def mount(self, *, is_first: bool = False) -> None:
        """Mount what is not mounted of the disk and of the source."""
        if not count_at(self._at):
            self._disk.mount(self._at)
            assert count_at(self._at)
            # So what is mounted on the source is not mounted on its other path too.
            _propagate(self._at, "--make-private")
        if is_first:
            self.backing.mkdir()
            self.beside.mkdir()
        mount(self.top, "--bind", str(self.backing))

    def unmount(self, *, with_disk: bool) -> None:
        """Unmount the source, and maybe the disk. Nothing may be mounted below it."""
        unmount(self.top)
        if with_disk:
            unmount(self._at)

    def share(self, at: Path, *, has_disk: bool) -> Share:
        """Make a file system for a mount point.

        Args:
            at: the mount point.
            has_disk: whether it is a disk of its own; else a directory of a tmpfs, which stays when it is unmounted.
        """
        self._shares += 1
        if has_disk:
            return DiskShare(at, self._directory / f"share-{self._shares}.ext4")
        return BoundShare(at, self._directory / f"share-{self._shares}")

    def close(self) -> None:
        """Unmount everything below `mounts`, even if it is used. Further calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        while count_at(self.mounts):
            unmount(self.mounts, "--recursive", "--lazy")
        self._disk.close()


class Share(Protocol):
    """A file system for one mount point.

    Attributes:
        at: the mount point.
    """

    at: Path

    def mount(self) -> None:
        """Mount it."""

    def close(self) -> None:
        """Remove it; it is not mounted any more."""


class DiskShare:
    """A disk of its own. When it is unmounted, the kernel ends the watches on it (IN_UNMOUNT)."""

    def __init__(self, at: Path, image: Path) -> None:
        self.at = at
        self._disk = Disk(image, _SHARE_SIZE)

    def mount(self) -> None:
        self._disk.mount(self.at)
        assert count_at(self.at)

    def close(self) -> None:
        self._disk.close()


class BoundShare:
    """A bind mount. When it is unmounted, the watches on its directories stay: these are still mounted elsewhere."""

    def __init__(self, at: Path, elsewhere: Path) -> None:
        self.at = at
        self._elsewhere = elsewhere
        elsewhere.mkdir()
        mount(elsewhere)

    def mount(self) -> None:
        mount(self.at, "--bind", str(self._elsewhere))

    def close(self) -> None:
        with suppress(AssertionError):
            unmount(self._elsewhere, "--lazy")


def _propagate(at: Path, *options: str) -> None:
    for option in options:
        subprocess.run(["mount", option, str(at)], check=True, capture_output=True)
