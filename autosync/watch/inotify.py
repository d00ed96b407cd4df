"""The calls of inotify(7): add a watch, read events, close. Names are exact, whatever bytes they contain.

The calls and constants are pyinotify's. Its reader is not used: it decodes names as UTF-8, and one name that is not UTF-8 makes it drop all
events that were read together. Its call to add a watch is not used: it takes longer than the kernel.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import sys
import termios
import warnings
from typing import NamedTuple

with warnings.catch_warnings():
    # pyinotify imports asyncore (pyasyncore on Python 3.12 and later) for a class that is not used here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import pyinotify

IN_ATTRIB: int = pyinotify.IN_ATTRIB
IN_CLOSE_WRITE: int = pyinotify.IN_CLOSE_WRITE
IN_CREATE: int = pyinotify.IN_CREATE
IN_DELETE: int = pyinotify.IN_DELETE
IN_IGNORED: int = pyinotify.IN_IGNORED
IN_ISDIR: int = pyinotify.IN_ISDIR
IN_MASK_ADD: int = pyinotify.IN_MASK_ADD
IN_MOVED_FROM: int = pyinotify.IN_MOVED_FROM
IN_MOVED_TO: int = pyinotify.IN_MOVED_TO
IN_ONLYDIR: int = pyinotify.IN_ONLYDIR
IN_Q_OVERFLOW: int = pyinotify.IN_Q_OVERFLOW
IN_UNMOUNT: int = pyinotify.IN_UNMOUNT

_HEADER = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, len
_BUFFER = 256 * 1024
_LARGEST = _HEADER.size + 256
#: How os.fsdecode decodes; it is called for each event.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """One event of the kernel. `name` is "" for events of the watched directory itself."""

    wd: int
    mask: int
    cookie: int
    name: str


class Inotify:
    """One inotify instance. Reading never blocks; wait on `fileno()` first.

    Raises:
        OSError: EMFILE when the user has too many instances (sysctl fs.inotify.max_user_instances).
    """

    def __init__(self) -> None:
        calls = pyinotify.INotifyWrapper.create()
        if calls is None:
            raise OSError("this system's C library has no inotify calls")
        self._calls = calls
        self._fd: int = calls.inotify_init()
        if self._fd < 0:
            raise OSError(calls.get_errno(), os.strerror(calls.get_errno()))
        os.set_blocking(self._fd, False)
        os.set_inheritable(self._fd, False)

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._fd

    def add(self, directory: int, mask: int) -> int:
        """Watch an open directory. A descriptor instead of a path works with any name, and with no link in its place.

        Args:
            directory: descriptor of the directory.
            mask: `IN_` flags of the events to report.

        Returns:
            The watch descriptor; the same one as before if the directory is watched already.

        Raises:
            OSError: ENOSPC when the user's limit of watches is reached (sysctl fs.inotify.max_user_watches).
        """
        wd: int = _libc.inotify_add_watch(self._fd, b"/proc/self/fd/%d" % directory, mask | IN_ONLYDIR)
        if wd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return wd

    def remove(self, wd: int) -> None:
        """Remove a watch. It is no error if the kernel has removed it already."""
        self._calls.inotify_rm_watch(self._fd, wd)

    def read(self) -> list[Event]:
        """Read events that are in the kernel's queue, in order; an empty list if there are none."""
        try:
            data = os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return []
        events: list[Event] = []
        unpack, header, end = _HEADER.unpack_from, _HEADER.size, len(data)
        offset = 0
        while offset < end:
            wd, mask, cookie, length = unpack(data, offset)
            offset += header
            name = data[offset : data.index(0, offset)].decode(_ENCODING, _ERRORS) if length else ""
            offset += length
            events.append(Event(wd, mask, cookie, name))
        return events

    def reads_waiting(self) -> int:
        """The number of calls of `read` that read all events which are in the kernel's queue now."""
        waiting: int = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))[0]
        return -(-waiting // (_BUFFER - _LARGEST))

    def close(self) -> None:
        """Close the instance, which removes all its watches."""
        os.close(self._fd)
