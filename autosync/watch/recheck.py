"""Checking one path again after an event: what is on the disk now, and whether a process is still writing to it."""

from __future__ import annotations

import os
import stat
import time
from typing import NamedTuple

from ..model.change import Kind
from ..model.file_rules import FileRules
from ..model.file_state import QUIET_IF_WRITERS_UNKNOWN, FileState
from ..model.keys import Source
from ..source.beneath import NotMirrored, open_root, resolve_beneath, root_paths
from ..source.entry import Entry, entry_at, on_other_file_system
from ..source.open_writers import has_writer
from .debounce import UnsentChange

#: A process that has a file open for writing, and has changed nothing for this long, is not waited for, in seconds.
_IDLE_SECONDS = 10.0


class PathState(NamedTuple):
    """What is at a path.

    Attributes:
        found: a file, or something that is skipped; None: neither.
        rests: whether the file can be sent: it was closed, or it has been unchanged for the quiet time and no process writes to it.
        file_state: the state of a file that does not rest, and since when it has been in this state.
        is_idle: whether a process has the file open for writing, and has written nothing for a while.
        is_link: whether the path is a link; `found` is then the file that the link leads to.
        is_certain: False if the disk does not say what is at the path.
    """

    found: Entry | None
    rests: bool = True
    file_state: FileState | None = None
    is_idle: bool = False
    is_link: bool = False
    is_certain: bool = True


def recheck(change: UnsentChange, source: Source, *, quiet: float, rules: FileRules) -> PathState:
    """Check what is at the path of a change now.

    Args:
        change: names the path.
        source: contains the path.
        quiet: how long a file that was not closed must be unchanged, in seconds.
        rules: which files are sent.
    """
    try:
        stats = os.lstat(change.path)
    except (FileNotFoundError, NotADirectoryError):
        return PathState(None)
    except OSError:
        return PathState(None, is_certain=False)
    if stat.S_ISLNK(stats.st_mode):
        return _state_behind_link(change.path, source, rules) if rules.follow_links else PathState(None, is_link=True)
    found = entry_at(change.path, stats, rules)
    if found is None or found.skipped or change.is_closed:
        return PathState(found)
    return _state_of_unclosed(change, found, quiet)


def entry_behind_links(path: str, source: Source, rules: FileRules) -> Entry | None:
    """What is at a path after the links on its way: a file, or something that is skipped; None: neither.

    Args:
        path: below the root of the source.
        source: contains the path.
        rules: which files are sent. Links are followed in any case.

    Raises:
        OSError: nothing is at the path, or a directory on the way cannot be searched.
    """
    root = open_root(source.root)
    try:
        real, _ = resolve_beneath(root, root_paths(source.root), path[len(source.root) :].strip("/"))
        stats = os.stat(real or ".", dir_fd=root, follow_symlinks=False)
        if rules.one_file_system and stats.st_dev != os.fstat(root).st_dev:
            return on_other_file_system(path)
        return entry_at(path, stats, rules)
    except NotMirrored as reason:
        return Entry(path, 0, 0.0, 0, str(reason), keep_in_target=True)
    finally:
        os.close(root)


def _state_of_unclosed(change: UnsentChange, found: Entry, quiet: float) -> PathState:
    file_state = _current_state(change, found)
    is_same = file_state is change.file_state
    unchanged = time.monotonic() - file_state.since if is_same else 0.0
    written = has_writer(change.path)
    if written:  # its close will give an event
        return PathState(found, rests=False, file_state=file_state, is_idle=unchanged >= _IDLE_SECONDS)
    if change.kind is Kind.CREATED and written is False:
        return PathState(found)  # for example a hard link, which is complete when it is created
    rests = is_same and unchanged >= max(quiet, QUIET_IF_WRITERS_UNKNOWN if written is None else 0.0)
    return PathState(found, rests=rests, file_state=file_state)


def _current_state(change: UnsentChange, found: Entry) -> FileState:
    """The state of the file before, with its `since`, if the file has not changed; else a new state."""
    now = FileState(found.size, found.mtime_ns, found.changed, time.monotonic())
    before = change.file_state
    return before if before is not None and before.is_like(now) else now


def _state_behind_link(path: str, source: Source, rules: FileRules) -> PathState:
    """A link counts as the file that it leads to. For a link to a directory, or to nothing, `found` is None: the watcher enters the
    directory, or waits for the missing name."""
    found, is_certain = None, True
    try:
        found = entry_behind_links(path, source, rules)
    except OSError as error:
        is_certain = isinstance(error, FileNotFoundError | NotADirectoryError)
    return PathState(found, is_link=True, is_certain=is_certain)
