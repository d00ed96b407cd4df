"""Walking the tree on disk, in the order in which object stores list their keys."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import closing, suppress
from functools import partial

from ..model.file_rules import FileRules
from .beneath import open_root, root_paths
from .directory_reader import DirectoryReader, RootObserver
from .disk_speed import DiskSpeed
from .entry import Entry, Run
from .link_limit import LinkLimit
from .name_reader import NameReader
from .read_ahead import ReadAhead
from .walk_level import Level, Step, StepResult

#: The most errors of one walk that are stored.
_MOST_ERRORS = 10_000

_NO_LINKS = FileRules(follow_links=False)


class Walk:
    """The files below a directory, in the order of their paths' code points.

    Names are sorted per directory with "/" appended to those of directories, so `a-b` comes before `a/c` and that before `a0`: the order
    in which object stores list keys. A directory that vanishes meanwhile is ignored. FIFOs, sockets, devices, and links that lead out
    of the root or back to a directory on the way, are found as `skipped`; of the links, the target keeps what it has. Every error is added
    to `errors`, and then the walk is incomplete; after `_MOST_ERRORS`, one last entry represents all others.

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
        root_changed: returns when the path of the root began to name this directory, in seconds since the epoch; 0.0 if that is unknown.
            It is called after the root was opened, so that a switch of the root's link in between changes the files rather than none.
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
        root_changed: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._link_limit = link_limit
        self._root_changed = root_changed
        self._observer = observer
        self._inner_paths = inner_paths
        self.errors: list[OSError] = []
        self._root = root
        self._directory = directory
        self._enters = enters
        self._accepts = accepts
        self._spill = spill
        self._in_order = in_order
        self._state = state
        self._rules = rules

    def __iter__(self) -> Iterator[Entry]:
        with closing(self.runs()) as runs:
            for one in runs:
                if isinstance(one, Entry):
                    yield one
                else:
                    yield from map(one.entry, range(len(one.names)))

    def runs(self) -> Generator[Run | Entry, None, None]:
        """Yield the same, with consecutive files of a directory as one `Run`. Skipped files and links come as single `Entry`s."""
        try:
            root = open_root(self._root)
        except OSError as error:
            self._add_error(error, self._root)
            return
        try:
            start = self._directory[len(self._root) :].strip("/")
            disk = DiskSpeed(is_measured=self._in_order)
            reader = self._reader(root, start, disk)
            top = reader.open(Level(root, "", "", self._root_changed()), start, self._directory)
            self._add_errors(top.errors)
            yield from top.found
            if top.level is not None:
                yield from self._below(top.level, ReadAhead(partial(self._work, reader), disk))
        finally:
            os.close(root)

    def _reader(self, root: int, start: str, disk: DiskSpeed) -> DirectoryReader:
        roots = root_paths(self._root) if self._rules.follow_links else ()
        devices = {os.fstat(root).st_dev, *_devices(self._inner_paths)} if self._rules.one_file_system else None
        names = NameReader(disk, self._spill, in_order=self._in_order, follow_links=bool(roots))
        return DirectoryReader(
            root, self._root, roots, start, names, self._rules, devices=devices, state=self._state, observer=self._observer
        )  # fmt: skip

    def _work(self, reader: DirectoryReader, level: Level, step: Step) -> Callable[[], StepResult] | None:
        """The function that carries out a step; None if `enters` or `accepts` leaves it out."""
        if isinstance(step, str):
            path = level.path + step[:-1]
            return partial(reader.open, level, step[:-1], path) if self._enters(path) else None
        names = self._accepts(level.path, step)
        return partial(reader.stat_files, level, names) if names else None

    def _below(self, top: Level, results: ReadAhead) -> Iterator[Run | Entry]:
        """Walk depth first, with a stack instead of recursion, which Python limits."""
        levels = [top]
        try:
            if not self._may_enter(top):
                yield self._beyond_limit(top.path)
                return
            while levels:
                level = levels[-1]
                done = results.next_result(levels)
                self._add_errors(level.errors)
                if done is None:
                    levels.pop().close()
                    continue
                if done.level is not None:
                    if self._may_enter(done.level):
                        levels.append(done.level)
                    else:
                        results.discard(done.level)
                        yield self._beyond_limit(done.level.path)
                self._add_errors(done.errors)
                if done.found:
                    yield from done.found if self._link_limit is None else self._within_limit(self._link_limit, level, done.found)
        finally:
            results.close()
            for level in levels:
                level.close()

    # The limit of paths behind links. It is applied in the order of the walk, not where a thread reads ahead.

    def _may_enter(self, level: Level) -> bool:
        if self._link_limit is None:
            return True
        if level.behind_link:
            return self._link_limit.allow_directory(level.path)
        self._link_limit.count(directories=1)
        return True

    def _within_limit(self, limit: LinkLimit, level: Level, found: list[Run | Entry]) -> Iterable[Run | Entry]:
        """The files of a directory that are within the limit. The others are found as `skipped`."""
        if level.behind_link:
            return self._allowed(limit, level, found)
        limit.count(files=sum([len(one.names) if isinstance(one, Run) else not one.skipped for one in found]))
        return found

    def _allowed(self, limit: LinkLimit, level: Level, found: list[Run | Entry]) -> Iterator[Run | Entry]:
        for one in found:
            names = one.names if isinstance(one, Run) else [] if one.skipped else [one.path[len(level.path) :]]
            allowed = limit.allow_files(level.path, names)
            if allowed == len(names):
                yield one
            elif isinstance(one, Run) and allowed:
                yield one.first(allowed)
            yield from (self._beyond_limit(level.path + name) for name in names[allowed:])

    def _beyond_limit(self, path: str) -> Entry:
        return Entry(path, 0, 0.0, 0, self._rules.beyond_links, keep_in_target=True)

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


def _devices(paths: Iterable[str]) -> Iterator[int]:
    for path in paths:
        with suppress(OSError):
            yield os.stat(path).st_dev
