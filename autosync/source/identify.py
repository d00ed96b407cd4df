"""Identifies directories on the disk, see `RootIdentity`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice

from ..model.mirror import Identity
from ..model.root_identity import RootIdentity

#: The most names of a directory that are remembered, and the most that are read to choose them.
_NAMES, _NAMES_READ = 10, 1000
#: Names that any directory may have. A directory with nothing else counts as empty.
_EVERYWHERE = frozenset({"lost+found", ".DS_Store", ".snapshot", ".snapshots", "System Volume Information", "$RECYCLE.BIN", "@eaDir"})


def identify(path: str) -> RootIdentity | None:
    """The identity of the directory at a path now; None if there is none, or if it cannot be opened."""
    with suppress(OSError), _opened(path) as descriptor:
        return identify_open(descriptor, path)
    return None


def identify_open(descriptor: int, path: str) -> RootIdentity:
    """The identity of an open directory.

    Args:
        descriptor: an open descriptor of the directory.
        path: the directory's absolute path.

    Raises:
        OSError: its attributes cannot be read.
    """
    stats = os.fstat(descriptor)
    filesystem = 0
    with suppress(OSError):
        filesystem = os.fstatvfs(descriptor).f_fsid
    real = os.path.realpath(path)
    return RootIdentity(stats.st_dev, stats.st_ino, filesystem, names_of(descriptor), "" if real == path else real)


def identity_at(path: str) -> Identity | None:
    """Device and inode of what is at a path now; None if there is nothing, or if that cannot be read."""
    try:
        stats = os.stat(path)
    except OSError:
        return None
    return Identity(stats.st_dev, stats.st_ino)


def is_same_directory(remembered: RootIdentity, found: RootIdentity, path: str) -> bool:
    """Whether the directory at a path is certainly the remembered one."""
    with suppress(OSError), _opened(path) as descriptor:
        return is_same_open(remembered, found, descriptor)
    return False


def is_same_open(remembered: RootIdentity, found: RootIdentity, descriptor: int) -> bool:
    """Whether an open directory is certainly the remembered one."""
    names_found = 0
    for name in remembered.names or ():
        with suppress(OSError):
            os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            names_found += 1
    return remembered.is_same(found, names_found)


def names_of(descriptor: int) -> tuple[str, ...]:
    """Some names in an open directory, directories first: they change less often. Names that any directory may have are left out."""
    try:
        with os.scandir(descriptor) as entries:
            some = [(not entry.is_dir(follow_symlinks=False), entry.name) for entry in islice(entries, _NAMES_READ)]
    except OSError:
        return ()
    return tuple(name for _, name in sorted(some) if name not in _EVERYWHERE and not name.startswith(".Trash"))[:_NAMES]


def is_mount_point(path: str) -> bool:
    """Whether a directory is on another device than the one above: a mount point, or the top of a btrfs subvolume."""
    here, above = identity_at(path), identity_at(path.rpartition("/")[0] or "/")
    return here is not None and above is not None and here.device != above.device


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
