"""Opening files and directories below a source root, so that no path and no symbolic link leads out of it."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from ..model.paths import is_at_or_below

#: Flags with which a file is opened for reading. O_NONBLOCK: opening a FIFO must not wait for its other end.
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Flags with which a directory is opened, to list or watch it. A link is refused.
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_SYS_OPENAT2 = 437  # the same on every architecture (include/uapi/asm-generic/unistd.h)
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08

#: The most links that are followed on the way to one file, as in linux/limits.h and path_resolution(7).
_MOST_LINKS = 40

_LEADS_OUT = "is a link that leads out of the source"


class NotMirrored(Exception):  # noqa: N818 - a finding, not an error
    """autosync does not send what is at this path, and the target keeps what it has under this name.

    Args:
        reason: why, as the end of a sentence about the path ("is a link that ...").
        passed: the links on the way, relative to the root.
    """

    def __init__(self, reason: str, passed: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.passed = tuple(passed)


class Resolved(NamedTuple):
    """A path after all links on its way were followed. Nothing needs to exist at `real`.

    Attributes:
        real: the path without links, relative to the root.
        passed: the links on the way, relative to the root.
    """

    real: str
    passed: tuple[str, ...]


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def open_root(path: str) -> int:
    """Open a source root. Links in its own path are followed, since its operator wrote that path.

    Args:
        path: absolute path of the root.

    Returns:
        A descriptor of the directory; the caller closes it.

    Raises:
        OSError: the path does not exist, is not a directory, or may not be read.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def newest_link_time(path: str) -> float:
    """When the newest of the links on the way to a path was created, also where the path itself is one.

    Args:
        path: absolute path of a root. Its links may lead anywhere.

    Returns:
        In seconds since the epoch; 0.0 if there is no link, or if that cannot be found out.
    """
    try:
        top = os.open("/", DIRECTORY_FLAGS)
    except OSError:
        return 0.0
    try:
        try:
            passed = resolve_beneath(top, ("/",), path.strip("/")).passed
        except NotMirrored as reason:
            passed = reason.passed
        return link_time(top, passed)
    except OSError:
        return 0.0
    finally:
        os.close(top)


def link_time(root: int, links: Iterable[str]) -> float:
    """When the newest of some links was created, in seconds since the epoch; 0.0 for none.

    Args:
        root: descriptor of a directory.
        links: paths relative to it.

    Raises:
        OSError: a link has vanished, or a directory on the way to it cannot be searched.
    """
    return max((os.stat(link, dir_fd=root, follow_symlinks=False).st_ctime for link in links), default=0.0)


def open_beneath(root: int, relative: str, flags: int = FILE_FLAGS) -> int:
    """Open a path below a root without leaving it: `..`, absolute paths and links on the way are refused.

    Args:
        root: descriptor of the root directory.
        relative: path below it, without a leading slash; "" or "." is the root itself.
        flags: as for open(2). The default opens a file for reading, and refuses a link.

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
    """Open a directory below a root, to list or watch it. Arguments, result and errors are those of `open_beneath`."""
    return open_beneath(root, relative, DIRECTORY_FLAGS)


def root_paths(root: str) -> tuple[str, ...]:
    """The paths of a root that an absolute link may begin with.

    Args:
        root: path of the root, as the user wrote it.

    Returns:
        This path, and the same without links, if that differs.
    """
    return tuple(dict.fromkeys((root, os.path.realpath(root))))


def resolve_beneath(root: int, roots: Sequence[str], relative: str) -> Resolved:
    """Follow the links on the way to a path, as long as they stay beneath the root.

    The result is only a name. It has to be opened with `open_beneath`, which refuses a link that was put in its way since.

    Args:
        root: descriptor of the root directory.
        roots: paths of the root; an absolute link that begins with one of them stays inside.
        relative: path below the root.

    Raises:
        NotMirrored: a link leads out of the root, in a circle, or to a directory that it lies in.
        OSError: a directory on the way cannot be searched.
    """
    done: list[str] = []
    passed: list[str] = []
    above: set[str] = set()
    for component in relative.split("/"):
        above.add("/".join(done))
        before, parent = len(passed), done
        done = _follow(root, roots, done, component, passed)
        if len(passed) > before and ("/".join(done) in above or done == parent[: len(done)]):
            raise NotMirrored("is a link to a directory that it lies in", passed)
    return Resolved("/".join(done), tuple(passed))


def leads_through_link(root: str, path: str) -> bool:
    """Whether a path is that of a link, or leads through one, below a root. Links in the path of the root do not count.

    Args:
        root: path of the root.
        path: a path at or below the root; "" is the root directory.
    """
    below = path[len(root.rstrip("/")) :]
    return os.path.realpath(path or "/") != (os.path.realpath(root).rstrip("/") + below or "/")


def _follow(root: int, roots: Sequence[str], done: list[str], component: str, passed: list[str]) -> list[str]:
    """Append one component to a resolved path, and follow the links that it leads to. They are added to `passed`."""
    done, rest = done.copy(), [component]
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if not done:
                raise NotMirrored(_LEADS_OUT, passed)
            done.pop()
            continue
        done.append(name)
        link = _read_link(root, "/".join(done))
        if link is None:
            continue
        passed.append("/".join(done))
        if len(passed) > _MOST_LINKS:
            raise NotMirrored("is a link that leads to itself", passed)
        done.pop()
        if link.startswith("/"):
            inside = _relative_to_root(roots, link)
            if inside is None:
                raise NotMirrored(_LEADS_OUT, passed)
            link, done = inside, []
        rest += link.split("/")[::-1]
    return done


def _read_link(root: int, relative: str) -> str | None:
    """The target of a link; None if the path is no link, or does not exist."""
    try:
        return os.readlink(relative, dir_fd=root)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def _relative_to_root(roots: Sequence[str], link: str) -> str | None:
    """An absolute path relative to the root; None if it is outside."""
    for top in roots:
        if is_at_or_below(link, top):
            return link[len(top) :].lstrip("/")
    return None


def _openat2(root: int, relative: str, flags: int) -> int:
    how = _OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS)
    found: int = _libc.syscall(_SYS_OPENAT2, root, os.fsencode(relative), ctypes.byref(how), ctypes.sizeof(how))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), relative)
    return found


@cache
def _has_openat2() -> bool:
    """Kernels before 5.6 lack the call (ENOSYS), and older container runtimes forbid unknown calls (EPERM)."""
    root = os.open("/", DIRECTORY_FLAGS)
    try:
        os.close(_openat2(root, ".", DIRECTORY_FLAGS))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


def _open_step_by_step(root: int, relative: str, flags: int) -> int:
    """Do what openat2 does: open one component after the other, and refuse links."""
    parts = relative.split("/")
    if {"", ".", ".."}.intersection(parts):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), relative)
    here = os.dup(root)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, DIRECTORY_FLAGS, dir_fd=here)
            os.close(here)
            here = deeper
        return os.open(parts[-1], flags | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)
