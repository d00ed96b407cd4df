"""A disk of one's own: ext4 in a file, through a loop device. Nobody else makes or removes files on it."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

from .servers import Missing, wait_until

_MIB = 1 << 20


class Disk:
    """An ext4 file system that can be mounted.

    Args:
        image: the file that it lies in; made here, with holes.
        size: in MiB.

    Raises:
        Missing: there is no mkfs.ext4, or no loop device can be had, which needs root.
    """

    def __init__(self, image: Path, size: int = 8) -> None:
        self._image = image
        self._mounted: Path | None = None
        self._device = ""
        image.touch()
        os.truncate(image, size * _MIB)
        if not _done("/sbin/mkfs.ext4", "-q", "-E", "root_owner", str(image)):
            raise Missing("mkfs.ext4")
        attached = subprocess.run(["losetup", "--find", "--show", str(image)], check=False, capture_output=True, text=True)
        if attached.returncode:
            raise Missing("a loop device, or root to attach it,")
        self._device = attached.stdout.strip()  # the same for each mount: it is part of what a directory is known by

    def mount(self, at: Path) -> None:
        """Mount it.

        Raises:
            Missing: it may not be mounted here.
        """
        if not _done("mount", self._device, str(at)):
            raise Missing("a disk that may be mounted")
        self._mounted = at

    def unmount(self) -> None:
        """Unmount it as soon as nobody reads from it."""
        wait_until(lambda: _done("umount", str(self._mounted)), 60, "nobody reads from the disk")
        self._mounted = None

    def insert_instead(self, other: Disk) -> None:
        """Attach the image of another disk to the device of this one. Neither may be mounted."""
        for device in (self._device, other._device):
            wait_until(partial(_detached, device), 30, f"{device} is free")
        wait_until(lambda: _done("losetup", self._device, str(other._image)), 30, "the other disk is attached")

    def close(self) -> None:
        """Unmount the disk, even if processes still use it."""
        if self._mounted is not None:
            _done("umount", "--lazy", str(self._mounted))
        _done("losetup", "--detach", self._device)  # with the last user, if there is one yet


def _detached(device: str) -> bool:
    return not _done("losetup", device) or _done("losetup", "--detach", device)


def _done(*command: str) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
