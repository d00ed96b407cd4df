"""Detecting whether a process is writing to a file."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import time
from contextlib import suppress

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: File systems on which other hosts write, which this kernel does not know of. Most of them refuse every lease. From linux/magic.h: NFS,
#: SMB (three kinds), FUSE, 9P, Ceph, AFS, Lustre.
_SHARED = frozenset((0x6969, 0x517B, 0xFF534D42, 0xFE534D42, 0x65735546, 0x01021997, 0x00C36400, 0x5346414F, 0x0BD00BD0))

#: How long to wait for a write(2) on another host to end, in seconds.
_REMOTE_WRITE_SECONDS = 0.05

_libc = ctypes.CDLL(None, use_errno=True)
#: A buffer for struct statfs.
_Statfs = ctypes.c_long * 32


def has_writer(path: str) -> bool | None:
    """Whether a process of this host has a file open for writing.

    The kernel grants a read lease only on a file that no process has open for writing (fcntl(2), F_SETLEASE). The lease is released at
    once. A process that opens the file in between waits for that moment only.

    Args:
        path: the path of a regular file.

    Returns:
        None if the kernel does not say: the file is another user's, or its file system has no leases.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return None
    try:
        return None if is_shared(descriptor) else _refuses_lease(descriptor)
    finally:
        os.close(descriptor)  # this releases the lease


def is_being_written(descriptor: int, shared: bool) -> bool | None:
    """As `has_writer`, for a file that this process has open for reading only.

    Args:
        descriptor: an open descriptor of the file.
        shared: the result of `is_shared`.
    """
    written = None if shared else _refuses_lease(descriptor)
    if written is False:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return True  # the lease is gone: a process opened the file for writing, and the kernel did not wait for the release
    return written


def _refuses_lease(descriptor: int) -> bool | None:
    """Whether the kernel refuses a read lease because a process has the file open for writing; None if the kernel does not say. If False,
    the lease is in effect."""
    try:
        # When a lease is broken, the kernel sends SIGIO to its holder, which would end this process. SIGURG is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def is_shared(descriptor: int) -> bool:
    """Whether an open file is on a file system on which other hosts may write."""
    return _file_system(descriptor) in _SHARED


def lies_on_share(path: str) -> bool:
    """As `is_shared`, by path. False if the file cannot be opened."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return False
    try:
        return is_shared(descriptor)
    finally:
        os.close(descriptor)


def wait_for_writes(descriptor: int) -> None:
    """Wait until every write(2) that runs now has ended. Others may have begun meanwhile.

    The file systems of Linux lock a file for the length of a write. They also lock it to search for a hole (ext4, btrfs, tmpfs) or to read
    (XFS, ZFS). On a share, where other hosts write, this waits for a short time, and drops what this host has cached of the file.
    """
    if is_shared(descriptor):
        time.sleep(_REMOTE_WRITE_SECONDS)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    else:
        with suppress(OSError):  # ENXIO: the file is empty
            os.lseek(descriptor, 0, os.SEEK_HOLE)


def _file_system(descriptor: int) -> int:
    """`f_type` of statfs(2), which is the first field of the structure; 0 if the call fails."""
    buffer = _Statfs()
    return (buffer[0] & 0xFFFFFFFF) if _libc.fstatfs(descriptor, buffer) == 0 else 0
