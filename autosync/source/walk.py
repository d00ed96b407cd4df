"""Walking the tree on disk, in the order in which object stores list their keys."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import NamedTuple, Protocol

from ..model.file_rules import FileRules
from ..process.prefetch import Prefetcher
from .beneath import NotMirrored, open_directory_beneath, open_root, resolve_beneath, root_paths
from .external_sort import disksort
from .found import Found, Run, found_at, on_other_file_system
from .link_limit import LinkLimit

#: A directory with more names than this is sorted on disk.
_NAMES_IN_MEMORY = 100_000

#: The most names of a directory that are read before the walk reaches it.
_NAMES_AHEAD = 4000
#: Sizes of the portions in which the files of a directory are examined: the small one while it is unknown how long that takes, or if
#: several threads share the work.
_FILES_AT_FIRST, _FILES_AT_ONCE = 32, 1000
#: A disk is slow if a call takes longer than the first (in seconds), on average over the second (in seconds).
_SLOW_CALL, _MEASURED_SECONDS = 50e-6, 0.05
#: How many calls opening a directory takes, and how many names are read in the time of one call.
_CALLS_TO_OPEN, _NAMES_PER_CALL = 4, 10
#: Number of threads that read ahead of the walk on a slow disk,
_HELPERS = 16
#: and the most open directories and portions of files that they hold.
_DIRECTORIES_AHEAD, _FILES_AHEAD = 32, 128

#: The most errors of one walk that are stored.
_MOST_ERRORS = 10_000

_NO_LINKS = FileRules(follow_links=False)


class RootObserver(Protocol):
    """Checks roots and mount points during a walk. It is called from several threads."""

    @property
    def paths(self) -> Collection[str]:
        """The directories about which `opened` is called."""

    def opened(self, path: str, real: str, descriptor: int, stats: os.stat_result) -> None:
        """The walk has opened one of `paths`, or a directory on another device than the one above. `real` is its path without links below
        the root."""

    def follows_link(self, path: str, real: str) -> None:
        """The walk reaches a directory through a link that leads to `real`."""

    def error_of_link(self, path: str, real: str) -> OSError | None:
        """The error of a link whose target was not found; None: the target does not exist."""


@dataclass(slots=True)
class _Level:
    """A directory that the walk is in, or will enter.

    Attributes:
        descriptor: of the directory.
        path: by which the walk reached it, with a slash at its end.
        real: its path without links, relative to the root.
        path_changed: when the way to it changed last (a directory was renamed, a link was created), in seconds since the epoch; 0.0 if
            that is unknown.
        parent: the directory from which the walk reached it.
        device: `st_dev`; None: unknown.
        behind_link: whether its path leads through a link.
        is_large: whether not all of its names have been read.
        steps: the work in it, in order: a directory to enter (with a slash at its end), or files to examine.
        put_back: a step that could not begin yet.
        ahead: steps that were begun ahead of the walk, with their results.
        errors: that occurred while its names were read.
    """

    descriptor: int
    path: str
    real: str
    path_changed: float
    parent: _Level | None = None
    device: int | None = None
    behind_link: bool = False
    is_large: bool = False
    steps: Iterator[_Step] = field(default_factory=lambda: iter(()))
    put_back: _Step | None = None
    ahead: deque[tuple[_Step, Future[_StepResult]]] = field(default_factory=deque)
    errors: list[tuple[OSError, str]] = field(default_factory=list)

    def next_step(self) -> _Step | None:
        """Remove and return the next step; None if there is none."""
        step, self.put_back = self.put_back, None
        return next(self.steps, None) if step is None else step


_Step = str | list[str]


class _StepResult(NamedTuple):
    """The result of a step.

    Attributes:
        found: files, in order.
        level: the directory that is walked next; None if the step opened none.
        errors: with the paths that they are about.
        calls: roughly how many system calls the step took.
    """

    found: list[Run | Found]
    level: _Level | None
    errors: list[tuple[OSError, str]]
    calls: int = _CALLS_TO_OPEN


class Walk:
    """The files below a directory, in the order of their paths' code points.

    Names are sorted per directory with "/" appended to those of directories, so `a-b` comes before `a/c` and that before `a0`: the order
    in which object stores list keys. A directory that vanishes meanwhile is ignored. FIFOs, sockets, devices, and links that lead out
    of the root or back to a directory on the way, are found as `skipped`; of the links, the target keeps what it has. Every error is added
    to `errors`, and then the walk is incomplete; after `_MOST_ERRORS`, one last entry represents all others.

    Where each call takes long, as on a network share, several threads read ahead of the walk; on a fast disk they would only be in each
    other's way.

    Args:
        root: path of the source root.
        directory: path of `root` or of a directory below it, where the walk starts.
        enters: called with the path of each directory below; False leaves the directory out.
        accepts: called with a directory's path, with a slash at its end, and names of files in it; returns the names to include.
        spill: directory in which very large directories are sorted; None for the system's temporary directory.
        rules: which files are found; links that are not followed are ignored.
        in_order: False for any order, which finds the first file soonest.
        state: directories in which autosync keeps its own state, relative to the root; a link into one of them is `skipped` too.
        observer: checks roots and mount points.
        inner_paths: directories whose file systems are walked as well as that of the root (`FileRules.one_file_system`).
        link_limit: paths behind links and beyond this limit are found as `skipped`; None: there is no limit.
    """

    def __init__(
        self,
        root: str,
        directory: str,
        enters: Callable[[str], bool] = lambda _: True,
        accepts: Callable[[str, list[str]], list[str]] = lambda _, names: names,
        spill: str | None = None,
        *,
        rules: FileRules = _NO_LINKS,
        in_order: bool = True,
        state: Collection[str] = (),
        observer: RootObserver | None = None,
        inner_paths: Collection[str] = (),
        link_limit: LinkLimit | None = None,
    ) -> None:
        self._link_limit = link_limit
        self._observer = observer
        self._inner_paths = inner_paths
        self._devices: set[int] | None = None
        self.errors: list[OSError] = []
        self._root = root
        self._directory = directory
        self._enters = enters
        self._accepts = accepts
        self._spill = spill
        self._in_order = in_order
        self._state = state
        self._rules = rules
        self._roots = root_paths(root) if rules.follow_links else ()
        self._files_at_once = _FILES_AT_FIRST if in_order else 1
        self._disk = _SlowDiskDetector()
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
        """Yield the same, with consecutive files of a directory as one `Run`. Skipped files and links come as single `Found`s."""
        try:
            root = open_root(self._root)
        except OSError as error:
            self._add_error(error, self._root)
            return
        try:
            if self._rules.one_file_system:
                self._devices = {os.fstat(root).st_dev, *_devices(self._inner_paths)}
            start = self._directory[len(self._root) :].strip("/")
            above = self._above(root, start)
            top = self._open(root, above, _Level(root, "", "", 0.0), start, self._directory)
            self._add_errors(top.errors)
            yield from top.found
            if top.level is not None:
                yield from self._below(root, above, top.level)
        finally:
            os.close(root)

    def _above(self, root: int, start: str) -> set[str]:
        """The real paths of the directories above the start: a link back to one of them makes a circle."""
        parts = start.split("/") if start and self._roots else []
        above = set()
        for count in range(len(parts)):
            with suppress(NotMirrored, OSError):
                above.add(resolve_beneath(root, self._roots, "/".join(parts[:count])).real)
        return above

    def _below(self, root: int, above: set[str], top: _Level) -> Iterator[Run | Found]:
        """Walk depth first, with a stack instead of recursion, which Python limits."""
        levels = [top]
        try:
            if not self._may_enter(top):
                yield self._beyond_limit(top.path)
                return
            while levels:
                level = levels[-1]
                done = self._next_result(root, above, levels)
                self._add_errors(level.errors)
                if done is None:
                    _close(levels.pop())
                    continue
                if done.level is not None:
                    if self._may_enter(done.level):
                        levels.append(done.level)
                    else:
                        self._discard(done.level)
                        yield self._beyond_limit(done.level.path)
                self._add_errors(done.errors)
                if done.found:
                    yield from done.found if self._link_limit is None else self._within_limit(self._link_limit, level, done.found)
        finally:
            if self._helpers is not None:
                self._helpers.close(wait=True)  # no helper may use a descriptor after it is closed
                self._helpers = None
            for level in levels:
                _close(level)

    # The limit of paths behind links. It is applied in the order of the walk, not where a thread reads ahead.

    def _may_enter(self, level: _Level) -> bool:
        if self._link_limit is None:
            return True
        if level.behind_link:
            return self._link_limit.allow_directory(level.path)
        self._link_limit.count(directories=1)
        return True

    def _within_limit(self, limit: LinkLimit, level: _Level, found: list[Run | Found]) -> Iterable[Run | Found]:
        """The files of a directory that are within the limit. The others are found as `skipped`."""
        if level.behind_link:
            return self._allowed(limit, level, found)
        limit.count(files=sum([len(one.names) if isinstance(one, Run) else not one.skipped for one in found]))
        return found

    def _allowed(self, limit: LinkLimit, level: _Level, found: list[Run | Found]) -> Iterator[Run | Found]:
        for one in found:
            names = one.names if isinstance(one, Run) else [] if one.skipped else [one.path[len(level.path) :]]
            allowed = limit.allow_files(level.path, names)
            if allowed == len(names):
                yield one
            elif isinstance(one, Run) and allowed:
                yield one.first(allowed)
            yield from (self._beyond_limit(level.path + name) for name in names[allowed:])

    def _beyond_limit(self, path: str) -> Found:
        return Found(path, 0, 0.0, 0, self._rules.beyond_links, keep_in_target=True)

    def _discard(self, level: _Level) -> None:
        """Close a directory that is not entered, after the steps that were begun ahead of the walk."""
        for step, future in level.ahead:
            self._count_ahead(step, -1)
            with suppress(Exception):
                below = future.result().level
                if below is not None:
                    self._discard(below)
        level.ahead.clear()
        _close(level)

    # One step after the other, on a fast disk

    def _next_result(self, root: int, above: set[str], levels: list[_Level]) -> _StepResult | None:
        """Carry out the next step of the last level; None if it has no more."""
        level = levels[-1]
        if self._helpers is not None or level.ahead:
            return self._next_begun(root, above, levels)
        while (step := level.next_step()) is not None:
            work = self._work(root, above, level, step)
            if work is not None:
                began = time.perf_counter()
                done = work()
                self._adapt_to_disk(done.calls, time.perf_counter() - began)
                return done
        return None

    def _work(self, root: int, above: set[str], level: _Level, step: _Step) -> Callable[[], _StepResult] | None:
        """The function that carries out a step; None if `enters` or `accepts` leaves it out."""
        if isinstance(step, str):
            path = level.path + step[:-1]
            return partial(self._open, root, above, level, step[:-1], path) if self._enters(path) else None
        names = self._accepts(level.path, step)
        return partial(self._stat_files, root, level, names) if names else None

    def _adapt_to_disk(self, calls: int, seconds: float) -> None:
        """Start helpers if the disk is slow, and choose how many files are examined at once.

        Args:
            calls: roughly how many system calls the last step took.
            seconds: how long it took.
        """
        if not self._in_order:
            return
        self._disk.add(calls, seconds)
        if self._disk.is_slow:
            self._helpers = Prefetcher(_HELPERS, "autosync-walk")
            self._files_at_once = _FILES_AT_FIRST
        elif calls >= _FILES_AT_FIRST:
            self._files_at_once = _FILES_AT_ONCE if seconds < calls * _SLOW_CALL else _FILES_AT_FIRST

    # Many steps at once, on a slow disk

    def _next_begun(self, root: int, above: set[str], levels: list[_Level]) -> _StepResult | None:
        """Begin the steps that come next in the order of the walk, as many as there is room for, and wait for the first result."""
        for level in reversed(levels):
            if not self._begin_more(root, above, level, is_here=level is levels[-1]):
                break
        if not levels[-1].ahead:
            return None
        step, future = levels[-1].ahead.popleft()
        self._count_ahead(step, -1)
        return future.result()

    def _begin_more(self, root: int, above: set[str], level: _Level, *, is_here: bool) -> bool:
        """Begin steps of a level, and of the open levels below it. Returns whether there is room for more."""
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
                level.ahead.append((step, self._helpers.submit(work)))
                self._count_ahead(step, 1)
        return True

    def _has_room(self, level: _Level, step: _Step, *, is_here: bool) -> bool:
        """Whether a step may begin. Results that wait are bounded in number, except that the walk must always go on where it is."""
        if isinstance(step, str):
            return self._directories_ahead < _DIRECTORIES_AHEAD or (is_here and not level.ahead)
        return self._files_ahead < _FILES_AHEAD or (is_here and len(level.ahead) < _HELPERS)

    def _count_ahead(self, step: _Step, count: int) -> None:
        if isinstance(step, str):
            self._directories_ahead += count
        else:
            self._files_ahead += count

    # Directories

    def _open(self, root: int, above: set[str], parent: _Level, name: str, path: str) -> _StepResult:
        """Open a directory below another, and read its names. A link that may not be followed is found as `skipped`."""
        real = f"{parent.real}/{name}" if parent.real else name
        path_changed, behind_link = parent.path_changed, parent.behind_link
        try:
            try:
                self._refuse_state(real)
                descriptor = open_directory_beneath(parent.descriptor, name)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not self._roots:
                    raise
                real, passed = resolve_beneath(root, self._roots, real)
                self._refuse_state(real)
                if self._observer is not None:
                    self._observer.follows_link(path, self._path_of(real))
                if passed and (real in above or _is_inside(parent, real)):
                    raise NotMirrored("is a link to a directory that it lies in") from error
                path_changed, behind_link = max(path_changed, _newest_link_time(root, passed)), behind_link or bool(passed)
                descriptor = open_directory_beneath(root, real)
        except NotMirrored as reason:
            return _StepResult([Found(path + "/", 0, 0.0, 0, str(reason), keep_in_target=True)], None, [])
        except OSError as error:
            return _StepResult([], None, [(self._error_of(error, path, real), path)])
        level = _Level(descriptor, path.rstrip("/") + "/", real, path_changed, parent, behind_link=behind_link)
        try:
            stats = os.fstat(descriptor)
            self._observe(path, level, stats)
            if self._devices is not None and stats.st_dev not in self._devices:
                os.close(descriptor)
                return _StepResult([on_other_file_system(path + "/")], None, [])
            level.path_changed = max(path_changed, _rename_time(stats))
            names = self._read_names(level)
        except OSError as error:  # ESTALE: removed on the server since it was opened
            os.close(descriptor)
            return _StepResult([], None, [(error, path)])
        except BaseException:
            os.close(descriptor)
            raise
        return _StepResult([], level, [], _CALLS_TO_OPEN + names // _NAMES_PER_CALL)

    def _observe(self, path: str, level: _Level, stats: os.stat_result) -> None:
        """Have the observer check a directory that was opened, if it is a root or a mount point."""
        level.device = stats.st_dev
        if self._observer is None:
            return
        is_other_device = level.parent is not None and level.parent.device not in (None, stats.st_dev)
        if is_other_device or path in self._observer.paths:
            self._observer.opened(path, self._path_of(level.real), level.descriptor, stats)

    def _path_of(self, real: str) -> str:
        """The absolute path of a path relative to the root."""
        return f"{self._root.rstrip('/')}/{real}" if real else self._root

    def _error_of(self, error: OSError, path: str, real: str) -> OSError:
        """The error of a path that could not be reached; another error if the path leads through a link to a directory in doubt."""
        if self._observer is None or error.errno not in (errno.ENOENT, errno.ENOTDIR) or path == self._path_of(real):
            return error
        return self._observer.error_of_link(path, self._path_of(real)) or error

    def _refuse_state(self, real: str) -> None:
        if any(real == one or real.startswith(f"{one}/") for one in self._state):
            raise NotMirrored("holds autosync's own state")

    def _read_names(self, level: _Level) -> int:
        """Read the first names of a directory; the rest is read when the walk is there. Returns how many were read."""
        names = self._names(level)
        first = list(islice(names, min(_NAMES_AHEAD, _NAMES_IN_MEMORY) if self._in_order else 1))
        level.is_large = len(first) >= min(_NAMES_AHEAD, _NAMES_IN_MEMORY) or not self._in_order
        level.steps = self._steps(self._sorted(chain(first, names)) if level.is_large else iter(sorted(first)))
        return len(first)

    def _sorted(self, names: Iterator[str]) -> Iterator[str]:
        """Sort names, lazily: nothing is read before the first result is requested."""
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
                    elif self._roots:
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

    def _stat_files(self, root: int, level: _Level, names: list[str]) -> _StepResult:
        try:
            # Most of the time of a walk is spent in this line.
            stats = [os.stat(name, dir_fd=level.descriptor, follow_symlinks=False) for name in names]
        except OSError:
            return self._stat_mixed(root, level, names)
        if all(map(stat.S_ISREG, [one.st_mode for one in stats])) and not self._skips_any(stats):
            return _StepResult([Run(level.path, names, stats, level.path_changed, level.behind_link)], None, [], len(names))
        return self._stat_mixed(root, level, names)

    def _skips_any(self, files: list[os.stat_result]) -> bool:
        return self._rules.has_size_bounds and any(self._rules.reason_to_skip(one.st_size) for one in files)

    def _stat_mixed(self, root: int, level: _Level, names: list[str]) -> _StepResult:
        """Examine names of which some are not regular files, are skipped, have vanished, or cannot be examined."""
        found: list[Run | Found] = []
        errors: list[tuple[OSError, str]] = []
        run = Run(level.path, [], [], level.path_changed, level.behind_link)
        for name in names:
            path = level.path + name
            try:
                stats = os.stat(name, dir_fd=level.descriptor, follow_symlinks=False)
            except PermissionError as error:
                errors.append((error, level.path))  # the directory may not be searched: one error for all its names
                continue
            except OSError as error:
                errors.append((error, path))
                continue
            if stat.S_ISREG(stats.st_mode) and not self._rules.reason_to_skip(stats.st_size):
                run.names.append(name)
                run.stats.append(stats)
                continue
            try:
                one = self._stat_linked(root, level, name) if stat.S_ISLNK(stats.st_mode) else found_at(path, stats, self._rules)
            except NotMirrored as reason:
                one = Found(path, 0, 0.0, 0, str(reason), keep_in_target=True)
            except OSError as error:
                errors.append((error, path))
                continue
            if one is not None:
                found += [run, one] if run.names else [one]
                run = Run(level.path, [], [], level.path_changed, level.behind_link)
        return _StepResult([*found, run] if run.names else found, None, errors, len(names))

    def _stat_linked(self, root: int, level: _Level, name: str) -> Found | None:
        if not self._roots:
            return None
        path = level.path + name
        real, passed = resolve_beneath(root, self._roots, f"{level.real}/{name}")
        try:
            stats = os.stat(real, dir_fd=root, follow_symlinks=False)
        except OSError as error:
            raise self._error_of(error, path, real) from error
        if self._devices is not None and stats.st_dev not in self._devices:
            return on_other_file_system(path)
        found = found_at(path, stats, self._rules)
        found = found._replace(behind_link=True) if found and level.behind_link else found
        return _not_before(max(level.path_changed, _newest_link_time(root, passed)), found)

    # Errors

    def _add_errors(self, errors: list[tuple[OSError, str]]) -> None:
        for error, path in errors:
            self._add_error(error, path)
        errors.clear()

    def _add_error(self, error: OSError, path: str) -> None:
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and path != self._root:
            return
        last = self.errors[-1] if self.errors else None
        if last is not None and (last.filename, last.errno) == (path, error.errno):
            return
        if len(self.errors) < _MOST_ERRORS:
            error.filename = path
            self.errors.append(error)
        elif len(self.errors) == _MOST_ERRORS:
            self.errors.append(OSError(errno.EOVERFLOW, "this and others cannot be read, too many to store", path))


class _SlowDiskDetector:
    """Measures whether system calls are slow. On a local disk one takes about 2 us, over a network hundreds."""

    def __init__(self) -> None:
        self.is_slow = False
        self._calls = 0
        self._seconds = 0.0

    def add(self, calls: int, seconds: float) -> None:
        """Add a measurement: a number of calls, and the seconds that they took."""
        self._calls += calls
        self._seconds += seconds
        if self._seconds > _MEASURED_SECONDS:
            self.is_slow = self._seconds > self._calls * _SLOW_CALL
            self._calls, self._seconds = 0, 0.0


def _close(level: _Level) -> None:
    """Close a directory, and those below it that were opened ahead of the walk."""
    os.close(level.descriptor)
    level.steps = iter(())  # ends the reading of further names
    for _, future in level.ahead:
        if future.done() and not future.cancelled() and future.exception() is None:
            below = future.result().level
            if below is not None:
                _close(below)


def _is_inside(level: _Level | None, real: str) -> bool:
    """Whether a level, or one above it, is the directory with this real path."""
    while level is not None:
        if level.parent is not None and level.real == real:
            return True
        level = level.parent
    return False


def _newest_link_time(root: int, links: Iterable[str]) -> float:
    """When the newest of some links was created, in seconds since the epoch; 0.0 for none."""
    return max((os.stat(link, dir_fd=root, follow_symlinks=False).st_ctime for link in links), default=0.0)


def _devices(paths: Iterable[str]) -> Iterator[int]:
    for path in paths:
        with suppress(OSError):
            yield os.stat(path).st_dev


def _rename_time(stats: os.stat_result) -> float:
    """When a directory was renamed, in seconds since the epoch; 0.0 if that cannot be seen.

    Renaming sets the ctime alone, so it is later than the mtime until a name in the directory is added or removed.
    """
    return stats.st_ctime if stats.st_ctime_ns > stats.st_mtime_ns else 0.0


def _not_before(path_changed: float, found: Found | None) -> Found | None:
    """Count a file as changed when the way to it changed. A directory that replaced another, or a link with a new target, changes the
    content of all names below, whatever the times of the files."""
    return found._replace(changed=max(found.changed, path_changed)) if found and path_changed else found


def _names_of_link(entry: os.DirEntry[str]) -> tuple[str, ...]:
    """The name of a link as that of a file or a directory, by its target. While the target cannot be reached, it may be either."""
    try:
        return (entry.name + "/",) if stat.S_ISDIR(entry.stat().st_mode) else (entry.name,)
    except OSError:
        return entry.name, entry.name + "/"
