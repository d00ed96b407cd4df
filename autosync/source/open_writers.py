"""Whether somebody is writing to a file, asked of the kernel."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import time
from contextlib import suppress

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: File systems on which others write whom this kernel does not see; most of them refuse every lease (linux/magic.h): NFS, SMB of three
#: kinds, FUSE, 9P, Ceph, AFS, Lustre.
_SHARED = frozenset((0x6969, 0x517B, 0xFF534D42, 0xFE534D42, 0x65735546, 0x01021997, 0x00C36400, 0x5346414F, 0x0BD00BD0))

#: How long a write(2) is given that cannot be waited for, in seconds.
_MOMENT = 0.05

_libc = ctypes.CDLL(None, use_errno=True)
#: Room for struct statfs.
_Statfs = ctypes.c_long * 32


def has_writer(path: str) -> bool | None:
    """Whether some process of this host has a file open for writing.

    The kernel grants a read lease only on a file that nobody has open for writing (fcntl(2), F_SETLEASE). The lease is given back at once;
    a writer that comes in between waits for that moment and no longer.

    Args:
        path: of a regular file.

    Returns:
        None if the kernel does not tell: another user's file, or a file system without leases.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return None
    try:
        return None if is_shared(descriptor) else _refuses_lease(descriptor)
    finally:
        os.close(descriptor)  # with it goes the lease


def is_being_written(descriptor: int, shared: bool) -> bool | None:
    """The same of a file that is open for reading only.

    Args:
        descriptor: of the file.
        shared: what `is_shared` says of it.
    """
    written = None if shared else _refuses_lease(descriptor)
    if written is False:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return True  # it is not there any more: somebody came to write, and the kernel did not wait for this
    return written


def _refuses_lease(descriptor: int) -> bool | None:
    """Whether the kernel refuses a read lease since somebody writes; None if it does not tell. If False, the lease was taken."""
    try:
        # Who breaks a lease sends its holder SIGIO, which would end this process; SIGURG is passed over where nobody asks for it.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def is_shared(descriptor: int) -> bool:
    """Whether a file lies on a file system on which others write whom this kernel does not see."""
    return _file_system(descriptor) in _SHARED


def lies_on_share(path: str) -> bool:
    """The same by path. False if the file cannot be opened."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return False
    try:
        return is_shared(descriptor)
    finally:
        os.close(descriptor)


def let_writes_end(descriptor: int) -> None:
    """Return when no write(2) is under way any more that was when this was called; others may have begun since.

    This kernel's file systems hold the lock of a file for the length of a write, and take it as well to look for a hole (ext4, btrfs,
    tmpfs) or to read (XFS, ZFS). On a share, where others write, a moment has to do, and what is in this host's cache is dropped.
    """
    if is_shared(descriptor):
        time.sleep(_MOMENT)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    else:
        with suppress(OSError):  # ENXIO: it is empty
            os.lseek(descriptor, 0, os.SEEK_HOLE)


def _file_system(descriptor: int) -> int:
    """`f_type` of statfs(2), which is the first field of the structure; 0 if the kernel does not tell."""
    room = _Statfs()
    return (room[0] & 0xFFFFFFFF) if _libc.fstatfs(descriptor, room) == 0 else 0
