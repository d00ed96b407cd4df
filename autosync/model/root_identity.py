"""What identifies the directory at the root of a source, or at a mount point below it, also after a restart."""

from __future__ import annotations

import os
from dataclasses import dataclass

#: The numbers below this are those of root directories of file systems (ext4 has 2, XFS 128, btrfs 256), so another file system at the same
#: place most often has the same one.
_LARGEST_OF_ROOTS = 256


@dataclass(frozen=True, slots=True)
class RootIdentity:
    """What is remembered of a directory.

    Attributes:
        device: `st_dev`. It may change with each mount, so it identifies nothing.
        inode: `st_ino`.
        filesystem: `f_fsid` of statvfs(3); 0 where the file system has none, such as FUSE and NFS.
        names: some of the names in it; None: unknown.
        real_path: the path without links, if its path leads through some; else "".
    """

    device: int
    inode: int
    filesystem: int = 0
    names: tuple[str, ...] | None = None
    real_path: str = ""

    @property
    def identifies_filesystem(self) -> bool:
        """Whether `filesystem` is more than the number of the device, which another disk may have after the next mount."""
        return self.filesystem not in (0, _number_of(self.device))

    def is_same(self, now: RootIdentity, names_found: int) -> bool:
        """Whether a directory is surely the one that is remembered.

        Args:
            now: what the directory is now.
            names_found: how many of the remembered names are in it.
        """
        has_names = self.names is None or names_found * 2 >= len(self.names)
        if self.inode != now.inode:
            # Some file systems without a number of their own have other inode numbers after each mount.
            return not self.filesystem and not now.filesystem and bool(self.names) and has_names
        if self.identifies_filesystem and now.identifies_filesystem:
            return self.filesystem == now.filesystem
        return self.inode > _LARGEST_OF_ROOTS or has_names


def _number_of(device: int) -> int:
    """`f_fsid` of the file systems (XFS, FAT, F2FS and others) that make it of the device number, with the kernel's encoding."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
