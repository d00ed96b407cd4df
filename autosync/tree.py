"""The tree on disk: walked in the order in which object stores list, and opened so that no path leads out of it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from .disksort import disksort

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: How a file is opened for reading. O_NONBLOCK: opening a FIFO must not wait for its other end.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: A directory with more names than this is sorted on disk.
_NAMES_IN_MEMORY = 100_000

#: So many errors of one walk are noted.
_MOST_ERRORS = 10_000

_SYS_OPENAT2 = 437  # the same on every architecture (include/uapi/asm-generic/unistd.h)
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08


#: linux/limits.h and path_resolution(7): so many links are followed on the way to one file.
_MOST_LINKS = 40

_LEADS_OUT = "is a link that leads out of the source"

#: What is not a regular file, in words.
_SPECIAL = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}


class Found(NamedTuple):
    """A file found on the disk. `changed` is max(mtime, ctime), in seconds since the epoch, and `mtime_ns` its modification time in
    nanoseconds. `skipped` is empty, or the reason why it is not sent; then `stays` says whether what the target has under this name stays
    as it is. A `path` with a slash at its end stands for all that may be below it."""

    path: str
    size: int
    changed: float
    mtime_ns: int
    skipped: str = ""
    stays: bool = False


class Withheld(Exception):  # noqa: N818 - a finding, not an error
    """There is something at this path that autosync does not send, and what the target has under its name stays.

    Args:
        reason: why.
        passed: the links on the way, relative to the root.
    """

    def __init__(self, reason: str, passed: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.passed = tuple(passed)


class Resolved(NamedTuple):
    """Where a path leads: `real` has no link in it, and `passed` are the links on the way; all relative to the root. There may be nothing
    at `real`."""

    real: str
    passed: tuple[str, ...]


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


def open_beneath(root: int, relative: str, flags: int = FILE) -> int:
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


def resolve_beneath(root: int, tops: Sequence[str], relative: str) -> Resolved:
    """Follow the links on the way to a path, as long as they stay beneath the root.

    The answer is a name and no more: whoever opens it does so with `open_beneath`, so that a link that is put in its way afterwards leads
    nowhere.

    Args:
        root: descriptor of the root directory.
        tops: paths of the root; an absolute link that begins with one of them stays inside.
        relative: path below the root.

    Raises:
        Withheld: a link leads out of the root, in a circle, or to a directory that it lies in.
        OSError: a directory on the way cannot be searched.
    """
    done: list[str] = []
    passed: list[str] = []
    above: set[str] = set()
    for component in relative.split("/"):
        above.add("/".join(done))
        before = len(passed)
        done = _followed(root, tops, done, component, passed)
        if len(passed) > before and "/".join(done) in above:
            raise Withheld("is a link to a directory that it lies in", passed)
    return Resolved("/".join(done), tuple(passed))


def _followed(root: int, tops: Sequence[str], done: list[str], component: str, passed: list[str]) -> list[str]:
    """Where one more component leads to; the links on the way are added to `passed`."""
    done, rest = done.copy(), [component]
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if not done:
                raise Withheld(_LEADS_OUT, passed)
            done.pop()
            continue
        done.append(name)
        link = _link_at(root, "/".join(done))
        if link is None:
            continue
        passed.append("/".join(done))
        if len(passed) > _MOST_LINKS:
            raise Withheld("is a link that leads to itself", passed)
        done.pop()
        if link.startswith("/"):
            inside = _inside(tops, link)
            if inside is None:
                raise Withheld(_LEADS_OUT, passed)
            link, done = inside, []
        rest += link.split("/")[::-1]
    return done


def _link_at(root: int, relative: str) -> str | None:
    try:
        return os.readlink(relative, dir_fd=root)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
            return None  # no link, or nothing there
        raise


def _inside(tops: Sequence[str], link: str) -> str | None:
    for top in tops:
        if link == top or link.startswith(top.rstrip("/") + "/"):
            return link[len(top) :].lstrip("/")
    return None


def tops_of(root: str) -> tuple[str, ...]:
    """The names under which a root may stand in an absolute link: as it was given, and without links of its own."""
    return tuple(dict.fromkeys((root, os.path.realpath(root))))


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


@dataclass(slots=True)
class _Level:
    """A directory that the walk is in: `path` with a slash at its end, as it was reached; `real` without links, relative to the root;
    `placed` is when the way to it became what it is, as far as that can be told, in seconds since the epoch."""

    descriptor: int
    path: str
    real: str
    placed: float
    names: Iterator[tuple[str]]


class Walk:
    """The files below a directory, in the order of their paths' code points.

    Names are sorted per directory with "/" appended to those of directories, so `a-b` comes before `a/c` and that before `a0`: the order
    in which object stores list keys. A directory that vanishes on the way is passed over. FIFOs, sockets, devices, and links that lead out
    of the root or back to a directory on the way, are found as `skipped`; for the links, what the target has stays. Any error is noted in
    `errors`, and then the walk has not seen everything; beyond so many errors, the last one stands for all that is not noted.

    Args:
        root: path of the source root.
        directory: path of `root` or of a directory below it, where the walk starts.
        enters: asked for each directory below; False leaves it out.
        accepts: asked for each file; False leaves it out.
        spill: where very large directories are sorted; None for the system's temporary directory.
        follow: whether links are followed to files and directories beneath the root; if not, they are passed over.
    """

    def __init__(
        self,
        root: str,
        directory: str,
        enters: Callable[[str], bool] = lambda _: True,
        accepts: Callable[[str], bool] = lambda _: True,
        spill: str | None = None,
        *,
        follow: bool = False,
    ) -> None:
        self.errors: list[OSError] = []
        self._root = root
        self._directory = directory
        self._enters = enters
        self._accepts = accepts
        self._spill = spill
        self._tops = tops_of(root) if follow else ()

    def __iter__(self) -> Iterator[Found]:
        try:
            root = open_root(self._root)
        except OSError as error:
            self._note(error, self._root)
            return
        try:
            start = self._directory[len(self._root) :].strip("/")
            above = self._above(root, start)
            top = self._open(root, _Level(root, "", "", 0.0, iter(())), start, self._directory, above)
            if isinstance(top, Found):
                yield top
            elif top is not None:
                yield from self._below(root, top, above)
        finally:
            os.close(root)

    def _above(self, root: int, start: str) -> set[str]:
        """Where the directories above the start really are: a link back to one of them makes a circle, wherever the walk begins."""
        parts = start.split("/") if start and self._tops else []
        above = set()
        for count in range(len(parts)):
            with suppress(Withheld, OSError):
                above.add(resolve_beneath(root, self._tops, "/".join(parts[:count])).real)
        return above

    def _below(self, root: int, top: _Level, above: set[str]) -> Iterator[Found]:
        """Depth first with a stack of our own, so that depth costs no recursion."""
        levels = [top]
        try:
            while levels:
                level = levels[-1]
                row = next(level.names, None)
                if row is None:
                    os.close(level.descriptor)
                    levels.pop()
                    continue
                name = row[0]
                path = level.path + name
                if not name.endswith("/"):
                    found = self._stat(root, level, name) if self._accepts(path) else None
                    if found is not None:
                        yield found
                elif self._enters(path[:-1]):
                    deeper = self._open(root, level, name[:-1], path[:-1], above, levels)
                    if isinstance(deeper, Found):
                        yield deeper
                    elif deeper is not None:
                        levels.append(deeper)
        finally:
            for level in levels:
                os.close(level.descriptor)

    def _sorted_names(self, directory: int, path: str) -> Iterator[tuple[str]]:
        return iter(disksort(self._names(directory, path), self._spill, _NAMES_IN_MEMORY))

    def _names(self, directory: int, path: str) -> Iterator[tuple[str]]:
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield (entry.name + "/",)
                    elif not entry.is_symlink():
                        yield (entry.name,)
                    elif self._tops:
                        yield from ((name,) for name in _names_of_link(entry))
        except OSError as error:
            self._note(error, path)

    def _open(
        self, root: int, parent: _Level, name: str, path: str, above: set[str], levels: Sequence[_Level] = ()
    ) -> _Level | Found | None:
        """Open a directory below another. None if it cannot be; something `skipped` if a link is not to be followed."""
        real = f"{parent.real}/{name}" if parent.real else name
        placed = parent.placed
        try:
            try:
                descriptor = open_directory_beneath(parent.descriptor, name)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not self._tops:
                    raise
                real, passed = resolve_beneath(root, self._tops, real)
                if passed and (real in above or any(real == level.real for level in levels)):
                    raise Withheld("is a link to a directory that it lies in") from error
                placed = max(placed, _made(root, passed))
                descriptor = open_directory_beneath(root, real)
        except Withheld as reason:
            return Found(path + "/", 0, 0.0, 0, str(reason), stays=True)
        except OSError as error:
            self._note(error, path)
            return None
        try:
            placed = max(placed, _moved(descriptor))
        except OSError as error:  # ESTALE: removed on the server since it was opened
            os.close(descriptor)
            self._note(error, path)
            return None
        path = path.rstrip("/") + "/"
        return _Level(descriptor, path, real, placed, self._sorted_names(descriptor, path))

    def _stat(self, root: int, level: _Level, name: str) -> Found | None:
        path = level.path + name
        try:
            seen = os.stat(name, dir_fd=level.descriptor, follow_symlinks=False)
        except PermissionError as error:
            self._note(error, level.path)  # the directory may not be searched: it is the same with all of its names
            return None
        except OSError as error:
            self._note(error, path)
            return None
        try:
            if stat.S_ISLNK(seen.st_mode):
                return self._stat_linked(root, level, name)
        except Withheld as reason:
            return Found(path, 0, 0.0, 0, str(reason), stays=True)
        except OSError as error:
            self._note(error, path)
            return None
        return _not_before(level.placed, found_at(path, seen))

    def _stat_linked(self, root: int, level: _Level, name: str) -> Found | None:
        if not self._tops:
            return None
        real, passed = resolve_beneath(root, self._tops, f"{level.real}/{name}")
        found = found_at(level.path + name, os.stat(real, dir_fd=root, follow_symlinks=False))
        return _not_before(max(level.placed, _made(root, passed)), found)

    def _note(self, error: OSError, path: str) -> None:
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and path != self._root:
            return
        last = self.errors[-1] if self.errors else None
        if last is not None and (last.filename, last.errno) == (path, error.errno):
            return
        if len(self.errors) < _MOST_ERRORS:
            error.filename = path
            self.errors.append(error)
        elif len(self.errors) == _MOST_ERRORS:
            self.errors.append(OSError(errno.EOVERFLOW, "this and others cannot be read, too many to keep in mind", path))


def found_at(path: str, seen: os.stat_result) -> Found | None:
    """What lstat(2) saw at a path: a file, something that is skipped, or None for what is passed over (a directory, a link)."""
    if stat.S_ISREG(seen.st_mode):
        return Found(path, seen.st_size, max(seen.st_mtime, seen.st_ctime), seen.st_mtime_ns)
    found = _SPECIAL.get(stat.S_IFMT(seen.st_mode), "")
    return Found(path, 0, 0.0, 0, f"is {found}") if found else None


def _made(root: int, links: Iterable[str]) -> float:
    """When the last of some links was made, in seconds since the epoch."""
    return max((os.stat(link, dir_fd=root, follow_symlinks=False).st_ctime for link in links), default=0.0)


def _moved(directory: int) -> float:
    """When a directory was renamed, as far as can be told: then its ctime is later than its mtime, until a name in it comes or goes."""
    seen = os.fstat(directory)
    return seen.st_ctime if seen.st_ctime_ns > seen.st_mtime_ns else 0.0


def _not_before(placed: float, found: Found | None) -> Found | None:
    """A directory that was put in the place of another, or a link that was made to lead elsewhere, changes what all names below hold,
    whatever the times of the files."""
    return found._replace(changed=max(found.changed, placed)) if found and placed else found


def _names_of_link(entry: os.DirEntry[str]) -> tuple[str, ...]:
    """A link counts as what it leads to. One of which that cannot be said, as long as a disk outside is away, may stand for either."""
    try:
        return (entry.name + "/",) if stat.S_ISDIR(entry.stat().st_mode) else (entry.name,)
    except OSError:
        return entry.name, entry.name + "/"
