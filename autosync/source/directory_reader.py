"""The steps of a walk: opening a directory below another, and examining files of a directory."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Protocol

from ..model import state_directory_mark as state_mark
from ..model.file_rules import FileRules
from ..model.paths import is_at_or_below
from .beneath import NotMirrored, link_time, open_directory_beneath, resolve_beneath
from .entry import Entry, Run, entry_at, on_other_file_system
from .name_reader import NameReader
from .walk_level import CALLS_TO_OPEN, Level, StepResult

#: How many names are read in the time of one system call.
_NAMES_PER_CALL = 10


class RootObserver(Protocol):
    """Checks roots and mount points during a walk. It is called from several threads."""

    @property
    def paths(self) -> Collection[str]:
        """The directories about which `opened` is called."""

    def opened(self, path: str, real: str, descriptor: int, stats: os.stat_result) -> bool:
        """The walk has opened one of `paths`, or a directory on another device than the one above. `real` is its path without links below
        the root. Returns whether another directory is remembered there: then all files below count as changed now."""

    def follows_link(self, path: str, real: str) -> None:
        """The walk reaches a directory through a link that leads to `real`."""

    def error_of_link(self, path: str, real: str) -> OSError | None:
        """The error of a link whose target was not found; None: the target does not exist."""


class DirectoryReader:
    """Opens directories and examines files for one walk. Its steps may be carried out by several threads.

    Args:
        descriptor: an open descriptor of the source root.
        root: the root's path.
        roots: paths of the root that an absolute link may begin with; none: links are not followed.
        start: path of the directory where the walk starts, relative to the root.
        names: reads the names in a directory.
        rules: which files are found.
        devices: the devices that are walked; None: all.
        state: directories in which autosync keeps its own state, relative to the root.
        observer: checks roots and mount points.
    """

    def __init__(
        self,
        descriptor: int,
        root: str,
        roots: tuple[str, ...],
        start: str,
        names: NameReader,
        rules: FileRules,
        *,
        devices: Collection[int] | None,
        state: Collection[str],
        observer: RootObserver | None,
    ) -> None:
        self._descriptor = descriptor
        self._root = root
        self._roots = roots
        self._names = names
        self._rules = rules
        self._devices = devices
        self._state = state
        self._observer = observer
        self._above = self._real_paths_above(start)

    def _real_paths_above(self, start: str) -> set[str]:
        """The real paths of the directories above the start: a link back to one of them makes a circle."""
        parts = start.split("/") if start and self._roots else []
        above = set()
        for count in range(len(parts)):
            with suppress(NotMirrored, OSError):
                above.add(resolve_beneath(self._descriptor, self._roots, "/".join(parts[:count])).real)
        return above

    # Directories

    def open(self, parent: Level, name: str, path: str) -> StepResult:
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
                real, passed = resolve_beneath(self._descriptor, self._roots, real)
                self._refuse_state(real)
                if self._observer is not None:
                    self._observer.follows_link(path, self._path_of(real))
                if passed and (real in self._above or parent.is_inside(real)):
                    raise NotMirrored("is a link to a directory that it lies in") from error
                path_changed, behind_link = max(path_changed, link_time(self._descriptor, passed)), behind_link or bool(passed)
                descriptor = open_directory_beneath(self._descriptor, real)
        except NotMirrored as reason:
            return StepResult([Entry(path + "/", 0, 0.0, 0, str(reason), keep_in_target=True)], None, [])
        except OSError as error:
            return StepResult([], None, [(self._error_of(error, path, real), path)])
        level = Level(descriptor, path.rstrip("/") + "/", real, path_changed, parent, behind_link=behind_link)
        try:
            stats = os.fstat(descriptor)
            has_changed = self._observe(path, level, stats)
            if self._devices is not None and stats.st_dev not in self._devices:
                os.close(descriptor)
                return StepResult([on_other_file_system(path + "/")], None, [])
            level.path_changed = time.time() if has_changed else max(path_changed, _rename_time(stats))
            names = self._names.read(level)
            if level.is_state and real:  # the root itself was named by the user
                level.close()
                return StepResult([Entry(path + "/", 0, 0.0, 0, state_mark.REASON, keep_in_target=True)], None, [])
        except OSError as error:  # ESTALE: removed on the server since it was opened
            os.close(descriptor)
            return StepResult([], None, [(error, path)])
        except BaseException:
            os.close(descriptor)
            raise
        return StepResult([], level, [], CALLS_TO_OPEN + names // _NAMES_PER_CALL)

    def _observe(self, path: str, level: Level, stats: os.stat_result) -> bool:
        """Have the observer check a directory that was opened, if it is a root or a mount point. Returns as `RootObserver.opened`."""
        level.device = stats.st_dev
        if self._observer is None:
            return False
        is_other_device = level.parent is not None and level.parent.device not in (None, stats.st_dev)
        if not is_other_device and path not in self._observer.paths:
            return False
        return self._observer.opened(path, self._path_of(level.real), level.descriptor, stats)

    def _path_of(self, real: str) -> str:
        """The absolute path of a path relative to the root."""
        return f"{self._root.rstrip('/')}/{real}" if real else self._root

    def _error_of(self, error: OSError, path: str, real: str) -> OSError:
        """The error of a path that could not be reached; another error if the path leads through a link to a directory in doubt."""
        if self._observer is None or error.errno not in (errno.ENOENT, errno.ENOTDIR) or path == self._path_of(real):
            return error
        return self._observer.error_of_link(path, self._path_of(real)) or error

    def _refuse_state(self, real: str) -> None:
        if any(is_at_or_below(real, one) for one in self._state):
            raise NotMirrored("holds autosync's own state")

    # Files

    def stat_files(self, level: Level, names: list[str]) -> StepResult:
        """Examine files of a directory. Links and special files are found one by one.

        Args:
            level: the directory.
            names: the names in it, in order.
        """
        try:
            # Most of the time of a walk is spent in this line.
            stats = [os.stat(name, dir_fd=level.descriptor, follow_symlinks=False) for name in names]
        except OSError:
            return self._stat_mixed(level, names)
        if all(map(stat.S_ISREG, [one.st_mode for one in stats])) and not self._skips_any(stats):
            return StepResult([Run(level.path, names, stats, level.path_changed, level.behind_link)], None, [], len(names))
        return self._stat_mixed(level, names)

    def _skips_any(self, files: list[os.stat_result]) -> bool:
        return self._rules.has_size_bounds and any(self._rules.reason_to_skip(one.st_size) for one in files)

    def _stat_mixed(self, level: Level, names: list[str]) -> StepResult:
        """Examine names. Some are not regular files, are skipped, have vanished, or cannot be examined."""
        found: list[Run | Entry] = []
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
                one = self._stat_linked(level, name) if stat.S_ISLNK(stats.st_mode) else entry_at(path, stats, self._rules)
            except NotMirrored as reason:
                one = Entry(path, 0, 0.0, 0, str(reason), keep_in_target=True)
            except OSError as error:
                errors.append((error, path))
                continue
            if one is not None:
                found += [run, one] if run.names else [one]
                run = Run(level.path, [], [], level.path_changed, level.behind_link)
        return StepResult([*found, run] if run.names else found, None, errors, len(names))

    def _stat_linked(self, level: Level, name: str) -> Entry | None:
        if not self._roots:
            return None
        path = level.path + name
        real, passed = resolve_beneath(self._descriptor, self._roots, f"{level.real}/{name}")
        try:
            stats = os.stat(real, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError as error:
            raise self._error_of(error, path, real) from error
        if self._devices is not None and stats.st_dev not in self._devices:
            return on_other_file_system(path)
        found = entry_at(path, stats, self._rules)
        found = found._replace(behind_link=True) if found and level.behind_link else found
        return _not_before(max(level.path_changed, link_time(self._descriptor, passed)), found)


def _rename_time(stats: os.stat_result) -> float:
    """When a directory was renamed, in seconds since the epoch; 0.0 if that cannot be seen.

    Renaming sets the ctime alone, so it is later than the mtime until a name in the directory is added or removed.
    """
    return stats.st_ctime if stats.st_ctime_ns > stats.st_mtime_ns else 0.0


def _not_before(path_changed: float, found: Entry | None) -> Entry | None:
    """Count a file as changed when the way to it changed. A directory that replaced another, or a link with a new target, changes the
    content of all names below, whatever the times of the files."""
    return found._replace(changed=max(found.changed, path_changed)) if found and path_changed else found
