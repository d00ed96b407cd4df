"""The tree on disk: walked in the order in which object stores list, and opened so that no path leads out of it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from .disksort import disksort

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: O_NONBLOCK: opening a FIFO must not wait for its other end.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: A directory with more names than this is sorted on disk.
_NAMES_IN_MEMORY = 100_000

_SYS_OPENAT2 = 437  # the same on every architecture (include/uapi/asm-generic/unistd.h)
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08


class Found(NamedTuple):
    """A regular file found on the disk. `changed` is max(mtime, ctime), in seconds since the epoch, and `mtime_ns` its
    modification time in nanoseconds."""

    path: str
    size: int
    changed: float
    mtime_ns: int


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def open_root(path: str) -> int:
    """Open a source root, following links in its own path, since its operator wrote that path.

    Returns:
        A descriptor of the directory; the caller closes it.

    Raises:
        OSError: it is not there, not a directory, or may not be read.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_beneath(root: int, relative: str, flags: int = _FILE) -> int:
    """Open a path below a root, without a way out of it: no `..`, no absolute path, no link on the way, as the walk follows none.

    Args:
        root: descriptor of the root directory.
        relative: path below it, without a leading slash; "" or "." is the root itself.
        flags: as for open(2). The default opens a file for reading and no link.

    Returns:
        A descriptor; the caller closes it.

    Raises:
        OSError: as openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS; EXDEV for a way out, ELOOP for a link.
    """
    if relative in ("", "."):
        return os.open(f"/proc/self/fd/{root}", flags & ~os.O_NOFOLLOW)
    if "\0" in relative:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), relative)
    return _openat2(root, relative, flags) if _has_openat2() else _open_step_by_step(root, relative, flags)


def open_directory_beneath(root: int, relative: str) -> int:
    """Like `open_beneath`, for a directory that is to be listed or watched."""
    return open_beneath(root, relative, _DIRECTORY)


def _openat2(root: int, relative: str, flags: int) -> int:
    how = _OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS)
    found: int = _libc.syscall(_SYS_OPENAT2, root, os.fsencode(relative), ctypes.byref(how), ctypes.sizeof(how))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), relative)
    return found


@cache
def _has_openat2() -> bool:
    """Kernels before 5.6 lack the call (ENOSYS), and older container runtimes forbid what they do not know (EPERM)."""
    root = os.open("/", _DIRECTORY)
    try:
        os.close(_openat2(root, ".", _DIRECTORY))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


def _open_step_by_step(root: int, relative: str, flags: int) -> int:
    """The same promise without openat2: one component at a time, and no link at all."""
    parts = relative.split("/")
    if {"", ".", ".."}.intersection(parts):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), relative)
    here = os.dup(root)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = deeper
        return os.open(parts[-1], flags | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)


class Walk:
    """The regular files below a directory, in the order of their paths' code points.

    Names are sorted per directory with "/" appended to those of directories, so `a-b` comes before `a/c` and that before
    `a0`: the order in which object stores list keys. A directory that vanishes on the way is passed over, as are links,
    FIFOs, sockets and devices. Any other error is noted in `errors`, and then the walk has not seen everything.

    Args:
        root: path of the source root.
        directory: path of `root` or of a directory below it, where the walk starts.
        enters: asked for each directory below; False leaves it out.
        accepts: asked for each file; False leaves it out.
        spill: where very large directories are sorted; None for the system's temporary directory.
    """

    def __init__(
        self,
        root: str,
        directory: str,
        enters: Callable[[str], bool] = lambda _: True,
        accepts: Callable[[str], bool] = lambda _: True,
        spill: str | None = None,
    ) -> None:
        self.errors: list[OSError] = []
        self._root = root
        self._directory = directory
        self._enters = enters
        self._accepts = accepts
        self._spill = spill

    def __iter__(self) -> Iterator[Found]:
        try:
            root = open_root(self._root)
        except OSError as error:
            self._note(error, self._root)
            return
        try:
            relative = self._directory[len(self._root) :].strip("/")
            top = self._open(relative, root, self._directory)
            if top is not None:
                yield from self._below(top, self._directory.rstrip("/") + "/")
        finally:
            os.close(root)

    def _below(self, top: int, prefix: str) -> Iterator[Found]:
        """Depth first with a stack of our own, so that depth costs no recursion. Each level is (fd, path, names)."""
        levels = [(top, prefix, self._sorted_names(top, prefix))]
        try:
            while levels:
                here, path, names = levels[-1]
                row = next(names, None)
                if row is None:
                    os.close(here)
                    levels.pop()
                    continue
                name = row[0]
                if name.endswith("/"):
                    below = path + name
                    if self._enters(below[:-1]):
                        deeper = self._open(name[:-1], here, below[:-1])
                        if deeper is not None:
                            levels.append((deeper, below, self._sorted_names(deeper, below)))
                elif self._accepts(path + name):
                    found = self._stat(name, here, path + name)
                    if found is not None:
                        yield found
        finally:
            for here, _, _ in levels:
                os.close(here)

    def _sorted_names(self, directory: int, path: str) -> Iterator[tuple[str]]:
        return iter(disksort(self._names(directory, path), self._spill, _NAMES_IN_MEMORY))

    def _names(self, directory: int, path: str) -> Iterator[tuple[str]]:
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield (entry.name + "/",)
                    elif entry.is_file(follow_symlinks=False):
                        yield (entry.name,)
        except OSError as error:
            self._note(error, path)

    def _open(self, name: str, parent: int, path: str) -> int | None:
        try:
            return open_directory_beneath(parent, name)
        except OSError as error:
            self._note(error, path)
            return None

    def _stat(self, name: str, directory: int, path: str) -> Found | None:
        try:
            seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            self._note(error, path)
            return None
        if not stat.S_ISREG(seen.st_mode):
            return None
        return Found(path, seen.st_size, max(seen.st_mtime, seen.st_ctime), seen.st_mtime_ns)

    def _note(self, error: OSError, path: str) -> None:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR) or path == self._root:
            error.filename = path
            self.errors.append(error)
