"""The tree on disk: walked in the order in which object stores list, and opened so that no path leads out of it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain, islice
from typing import NamedTuple

from ..process.prefetch import Prefetcher
from .external_sort import disksort

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: How a file is opened for reading. O_NONBLOCK: opening a FIFO must not wait for its other end.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: A directory with more names than this is sorted on disk.
_NAMES_IN_MEMORY = 100_000

#: Of a directory that the walk has yet to come to, so many names are read.
_NAMES_AHEAD = 4000
#: Files of a directory are looked at so many at a time: few until it is known how long that takes, or if several threads share in it.
_FILES_AT_FIRST, _FILES_AT_ONCE = 32, 1000
#: Calls that take longer than this (in seconds, on average over so many seconds) are made by several threads at once.
_SLOW_CALL, _PACE_SECONDS = 50e-6, 0.05
#: What it takes to open a directory, and names that are read in the time of one call.
_CALLS_TO_OPEN, _NAMES_PER_CALL = 4, 10
#: So many threads look ahead of a walk,
_HELPERS = 16
#: and so many directories, and portions of files, are held for it.
_DIRECTORIES_AHEAD, _FILES_AHEAD = 32, 128

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


class NotMirrored(Exception):  # noqa: N818 - a finding, not an error
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
        NotMirrored: a link leads out of the root, in a circle, or to a directory that it lies in.
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
            raise NotMirrored("is a link to a directory that it lies in", passed)
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
                raise NotMirrored(_LEADS_OUT, passed)
            done.pop()
            continue
        done.append(name)
        link = _link_at(root, "/".join(done))
        if link is None:
            continue
        passed.append("/".join(done))
        if len(passed) > _MOST_LINKS:
            raise NotMirrored("is a link that leads to itself", passed)
        done.pop()
        if link.startswith("/"):
            inside = _inside(tops, link)
            if inside is None:
                raise NotMirrored(_LEADS_OUT, passed)
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
class Run:
    """Files that follow one another in one directory.

    Attributes:
        directory: its path, with a slash at its end.
        names: of the files, in order.
        seen: what lstat(2) saw of each.
        placed: when the way to the directory became what it is (see `_Level`).
    """

    directory: str
    names: list[str]
    seen: list[os.stat_result]
    placed: float

    def found(self, number: int) -> Found:
        """One of them."""
        seen = self.seen[number]
        changed = max(seen.st_mtime, seen.st_ctime, self.placed)
        return Found(self.directory + self.names[number], seen.st_size, changed, seen.st_mtime_ns)

    def sizes(self) -> list[int]:
        """Their sizes."""
        return [seen.st_size for seen in self.seen]

    def changed(self) -> float:
        """When the last of them changed, as `Found.changed`."""
        return max(max([seen.st_mtime for seen in self.seen]), max([seen.st_ctime for seen in self.seen]), self.placed)


@dataclass(slots=True)
class _Level:
    """A directory that the walk is in, or will be.

    Attributes:
        descriptor: of the directory.
        path: as it was reached, with a slash at its end.
        real: without links, relative to the root.
        placed: when the way to it became what it is, as far as that can be told, in seconds since the epoch.
        parent: the directory that it was reached from.
        is_large: not all of its names were read yet.
        steps: what is to be done in it: a directory to go into (with a slash at its end), or files to look at.
        put_back: a step that could not be done yet.
        ahead: steps that are being done, or are done, ahead of the walk.
        errors: met while its names were read.
    """

    descriptor: int
    path: str
    real: str
    placed: float
    parent: _Level | None = None
    is_large: bool = False
    steps: Iterator[_Step] = field(default_factory=lambda: iter(()))
    put_back: _Step | None = None
    ahead: deque[tuple[_Step, Future[_Done]]] = field(default_factory=deque)
    errors: list[tuple[OSError, str]] = field(default_factory=list)

    def next_step(self) -> _Step | None:
        """What is to be done next."""
        step, self.put_back = self.put_back, None
        return next(self.steps, None) if step is None else step


_Step = str | list[str]


class _Done(NamedTuple):
    """What a step has brought: what was found, the directory that is to be walked next, errors with their paths; and how many calls to the
    system it took, roughly."""

    found: list[Run | Found]
    level: _Level | None
    errors: list[tuple[OSError, str]]
    calls: int = _CALLS_TO_OPEN


class Walk:
    """The files below a directory, in the order of their paths' code points.

    Names are sorted per directory with "/" appended to those of directories, so `a-b` comes before `a/c` and that before `a0`: the order
    in which object stores list keys. A directory that vanishes on the way is passed over. FIFOs, sockets, devices, and links that lead out
    of the root or back to a directory on the way, are found as `skipped`; for the links, what the target has stays. Any error is noted in
    `errors`, and then the walk has not seen everything; beyond so many errors, the last one stands for all that is not noted.

    Where each call takes its time, as on a network share, several threads look ahead of the walk; on a fast disk they would only be in
    each other's way.

    Args:
        root: path of the source root.
        directory: path of `root` or of a directory below it, where the walk starts.
        enters: asked for each directory below; False leaves it out.
        accepts: given a directory's path, with a slash at its end, and names of files in it; returns those that are not left out.
        spill: where very large directories are sorted; None for the system's temporary directory.
        follow: whether links are followed to files and directories beneath the root; if not, they are passed over.
        in_order: False if any order will do, to see whether there is anything.
        state: directories in which autosync keeps its own state, relative to the root; a way into them through a link is `skipped` too.
    """

    def __init__(
        self,
        root: str,
        directory: str,
        enters: Callable[[str], bool] = lambda _: True,
        accepts: Callable[[str, list[str]], list[str]] = lambda _, names: names,
        spill: str | None = None,
        *,
        follow: bool = False,
        in_order: bool = True,
        state: Collection[str] = (),
    ) -> None:
        self.errors: list[OSError] = []
        self._root = root
        self._directory = directory
        self._enters = enters
        self._accepts = accepts
        self._spill = spill
        self._in_order = in_order
        self._state = state
        self._tops = tops_of(root) if follow else ()
        self._files_at_once = _FILES_AT_FIRST if in_order else 1
        self._pace = _SlowDiskDetector()
        self._helpers: Prefetcher | None = None
        self._directories_ahead = self._files_ahead = 0

    def __iter__(self) -> Iterator[Found]:
        with closing(self.runs()) as runs:
            for one in runs:
                if isinstance(one, Found):
                    yield one
                else:
                    yield from map(one.found, range(len(one.names)))

    def runs(self) -> Generator[Run | Found, None, None]:
        """The same, with files that follow one another together. What is skipped, and links, come by themselves."""
        try:
            root = open_root(self._root)
        except OSError as error:
            self._note(error, self._root)
            return
        try:
            start = self._directory[len(self._root) :].strip("/")
            above = self._above(root, start)
            top = self._open(root, above, _Level(root, "", "", 0.0), start, self._directory)
            self._hear(top.errors)
            yield from top.found
            if top.level is not None:
                yield from self._below(root, above, top.level)
        finally:
            os.close(root)

    def _above(self, root: int, start: str) -> set[str]:
        """Where the directories above the start really are: a link back to one of them makes a circle, wherever the walk begins."""
        parts = start.split("/") if start and self._tops else []
        above = set()
        for count in range(len(parts)):
            with suppress(NotMirrored, OSError):
                above.add(resolve_beneath(root, self._tops, "/".join(parts[:count])).real)
        return above

    def _below(self, root: int, above: set[str], top: _Level) -> Iterator[Run | Found]:
        """Depth first with a stack of our own, so that depth costs no recursion."""
        levels = [top]
        try:
            while levels:
                level = levels[-1]
                done = self._do_next(root, above, levels)
                self._hear(level.errors)
                if done is None:
                    _close(levels.pop())
                    continue
                if done.level is not None:
                    levels.append(done.level)
                self._hear(done.errors)
                yield from done.found
        finally:
            if self._helpers is not None:
                self._helpers.close(wait=True)  # none of them may use a descriptor that is closed
                self._helpers = None
            for level in levels:
                _close(level)

    # One step after the other

    def _do_next(self, root: int, above: set[str], levels: list[_Level]) -> _Done | None:
        """The next step; None if the last of the levels has no more."""
        level = levels[-1]
        if self._helpers is not None or level.ahead:
            return self._take_next(root, above, levels)
        while (step := level.next_step()) is not None:
            work = self._work(root, above, level, step)
            if work is not None:
                began = time.perf_counter()
                done = work()
                self._set_pace(done.calls, time.perf_counter() - began)
                return done
        return None

    def _work(self, root: int, above: set[str], level: _Level, step: _Step) -> Callable[[], _Done] | None:
        """What a step is, if the caller does not leave it out."""
        if isinstance(step, str):
            path = level.path + step[:-1]
            return partial(self._open, root, above, level, step[:-1], path) if self._enters(path) else None
        names = self._accepts(level.path, step)
        return partial(self._look_at, root, level, names) if names else None

    def _set_pace(self, calls: int, seconds: float) -> None:
        if not self._in_order:
            return
        self._pace.add(calls, seconds)
        if self._pace.is_slow:
            self._helpers = Prefetcher(_HELPERS, "autosync-walk")
            self._files_at_once = _FILES_AT_FIRST
        elif calls >= _FILES_AT_FIRST:
            self._files_at_once = _FILES_AT_ONCE if seconds < calls * _SLOW_CALL else _FILES_AT_FIRST

    # Many steps at once

    def _take_next(self, root: int, above: set[str], levels: list[_Level]) -> _Done | None:
        """The next step, which was begun before, and others are begun meanwhile: those that come next in the order of the walk."""
        for level in reversed(levels):
            if not self._begin_more(root, above, level, is_here=level is levels[-1]):
                break
        if not levels[-1].ahead:
            return None
        step, future = levels[-1].ahead.popleft()
        self._count_ahead(step, -1)
        return future.result()

    def _begin_more(self, root: int, above: set[str], level: _Level, *, is_here: bool) -> bool:
        """Begin steps of a level, and of those below it that are open already. Returns whether there is room for more."""
        for _, future in level.ahead:
            below = future.result().level if future.done() else None
            if below is not None and not below.is_large and not self._begin_more(root, above, below, is_here=False):
                return False
        while (step := level.next_step()) is not None:
            if not self._has_room(level, step, is_here=is_here):
                level.put_back = step
                return False
            work = self._work(root, above, level, step)
            if work is not None:
                assert self._helpers is not None
                level.ahead.append((step, self._helpers.ask(work)))
                self._count_ahead(step, 1)
        return True

    def _has_room(self, level: _Level, step: _Step, *, is_here: bool) -> bool:
        """Whether a step may be begun: what is held is bounded, and where the walk is it must go on, whatever is held for later."""
        if isinstance(step, str):
            return self._directories_ahead < _DIRECTORIES_AHEAD or (is_here and not level.ahead)
        return self._files_ahead < _FILES_AHEAD or (is_here and len(level.ahead) < _HELPERS)

    def _count_ahead(self, step: _Step, count: int) -> None:
        if isinstance(step, str):
            self._directories_ahead += count
        else:
            self._files_ahead += count

    # Directories

    def _open(self, root: int, above: set[str], parent: _Level, name: str, path: str) -> _Done:
        """Open a directory below another, and read its names. What is found is `skipped`, if a link is not to be followed."""
        real = f"{parent.real}/{name}" if parent.real else name
        placed = parent.placed
        try:
            try:
                self._refuse_state(real)
                descriptor = open_directory_beneath(parent.descriptor, name)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not self._tops:
                    raise
                real, passed = resolve_beneath(root, self._tops, real)
                self._refuse_state(real)
                if passed and (real in above or _lies_in(parent, real)):
                    raise NotMirrored("is a link to a directory that it lies in") from error
                placed = max(placed, _made(root, passed))
                descriptor = open_directory_beneath(root, real)
        except NotMirrored as reason:
            return _Done([Found(path + "/", 0, 0.0, 0, str(reason), stays=True)], None, [])
        except OSError as error:
            return _Done([], None, [(error, path)])
        level = _Level(descriptor, path.rstrip("/") + "/", real, placed, parent)
        try:
            level.placed = max(placed, _moved(descriptor))
            names = self._read_names(level)
        except OSError as error:  # ESTALE: removed on the server since it was opened
            os.close(descriptor)
            return _Done([], None, [(error, path)])
        except BaseException:
            os.close(descriptor)
            raise
        return _Done([], level, [], _CALLS_TO_OPEN + names // _NAMES_PER_CALL)

    def _refuse_state(self, real: str) -> None:
        if any(real == one or real.startswith(f"{one}/") for one in self._state):
            raise NotMirrored("holds autosync's own state")

    def _read_names(self, level: _Level) -> int:
        """Read the names of a directory, as far as they are few; the rest follows when the walk is there. Returns how many were read."""
        names = self._names(level)
        first = list(islice(names, min(_NAMES_AHEAD, _NAMES_IN_MEMORY) if self._in_order else 1))
        level.is_large = len(first) >= min(_NAMES_AHEAD, _NAMES_IN_MEMORY) or not self._in_order
        level.steps = self._steps(self._sorted(chain(first, names)) if level.is_large else iter(sorted(first)))
        return len(first)

    def _sorted(self, names: Iterator[str]) -> Iterator[str]:
        """Names in order. Nothing is read before the first of them is asked for."""
        if not self._in_order:
            yield from names
            return
        first = list(islice(names, _NAMES_IN_MEMORY))
        if len(first) < _NAMES_IN_MEMORY:
            yield from sorted(first)
            return
        rows = ((name,) for some in (first, names) for name in some)
        del first
        yield from (name for (name,) in disksort(rows, self._spill, _NAMES_IN_MEMORY))

    def _names(self, level: _Level) -> Iterator[str]:
        try:
            with os.scandir(level.descriptor) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield entry.name + "/"
                    elif not entry.is_symlink():
                        yield entry.name
                    elif self._tops:
                        yield from _names_of_link(entry)
        except OSError as error:
            level.errors.append((error, level.path))

    def _steps(self, names: Iterator[str]) -> Iterator[_Step]:
        while some := list(islice(names, self._files_at_once)):
            start = 0
            for at in [number for number, name in enumerate(some) if name[-1] == "/"]:
                if start < at:
                    yield some[start:at]
                yield some[at]
                start = at + 1
            if start < len(some):
                yield some[start:]

    # Files

    def _look_at(self, root: int, level: _Level, names: list[str]) -> _Done:
        try:
            # What is asked for each file is the same short line of C, since this is most of what a walk costs.
            seen = [os.stat(name, dir_fd=level.descriptor, follow_symlinks=False) for name in names]
        except OSError:
            return self._look_closely(root, level, names)
        if all(map(stat.S_ISREG, [one.st_mode for one in seen])):
            return _Done([Run(level.path, names, seen, level.placed)], None, [], len(names))
        return self._look_closely(root, level, names)

    def _look_closely(self, root: int, level: _Level, names: list[str]) -> _Done:
        """Look at names of which not all are regular files, or some are gone or cannot be looked at."""
        found: list[Run | Found] = []
        errors: list[tuple[OSError, str]] = []
        run = Run(level.path, [], [], level.placed)
        for name in names:
            path = level.path + name
            try:
                seen = os.stat(name, dir_fd=level.descriptor, follow_symlinks=False)
            except PermissionError as error:
                errors.append((error, level.path))  # the directory may not be searched: it is the same with all of its names
                continue
            except OSError as error:
                errors.append((error, path))
                continue
            if stat.S_ISREG(seen.st_mode):
                run.names.append(name)
                run.seen.append(seen)
                continue
            try:
                one = self._stat_linked(root, level, name) if stat.S_ISLNK(seen.st_mode) else found_at(path, seen)
            except NotMirrored as reason:
                one = Found(path, 0, 0.0, 0, str(reason), stays=True)
            except OSError as error:
                errors.append((error, path))
                continue
            if one is not None:
                found += [run, one] if run.names else [one]
                run = Run(level.path, [], [], level.placed)
        return _Done([*found, run] if run.names else found, None, errors, len(names))

    def _stat_linked(self, root: int, level: _Level, name: str) -> Found | None:
        if not self._tops:
            return None
        real, passed = resolve_beneath(root, self._tops, f"{level.real}/{name}")
        found = found_at(level.path + name, os.stat(real, dir_fd=root, follow_symlinks=False))
        return _not_before(max(level.placed, _made(root, passed)), found)

    # Errors

    def _hear(self, errors: list[tuple[OSError, str]]) -> None:
        for error, path in errors:
            self._note(error, path)
        errors.clear()

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


class _SlowDiskDetector:
    """Finds out whether the calls of a walk take their time. A call on a local disk takes some 2 us, and over a network hundreds."""

    def __init__(self) -> None:
        self.is_slow = False
        self._calls = 0
        self._seconds = 0.0

    def add(self, calls: int, seconds: float) -> None:
        """So many calls took so long."""
        self._calls += calls
        self._seconds += seconds
        if self._seconds > _PACE_SECONDS:
            self.is_slow = self._seconds > self._calls * _SLOW_CALL
            self._calls, self._seconds = 0, 0.0


def _close(level: _Level) -> None:
    """Close a directory, and those below it that were opened ahead."""
    os.close(level.descriptor)
    level.steps = iter(())  # if there are more names to be read, this ends that
    for _, future in level.ahead:
        if future.done() and not future.cancelled() and future.exception() is None:
            below = future.result().level
            if below is not None:
                _close(below)


def _lies_in(level: _Level | None, real: str) -> bool:
    while level is not None:
        if level.parent is not None and level.real == real:
            return True
        level = level.parent
    return False


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
