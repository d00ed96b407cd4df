"""A glance: what stands at one path now, and whether somebody is still writing to it. An event asks for a glance, doubt for a look."""

from __future__ import annotations

import os
import stat
import time
from typing import NamedTuple

from ..model.change import Kind
from ..model.file_state import QUIET_UNASKED, FileState
from ..model.keys import Source
from ..source.beneath import NotMirrored, open_root, resolve_beneath, root_paths
from ..source.open_writers import has_writer
from ..source.walk import Found, found_at
from .debounce import Pending

#: Who has a file open for writing and has changed nothing for this long is not waited for, in seconds.
_IDLE = 10.0


class PathState(NamedTuple):
    """What stands at a path.

    Attributes:
        found: a file, or something that is skipped; None: neither does.
        rests: whether it is fit to be sent: it was closed, or has been seen unchanged for the quiet time and nobody writes to it.
        sight: what was seen of a file that does not rest, and since when.
        is_idle: whether somebody has it open for writing, and has written nothing for a while.
        is_link: whether it is a link; `found` is then what it leads to.
        known: False if the disk does not tell.
    """

    found: Found | None
    rests: bool = True
    sight: FileState | None = None
    is_idle: bool = False
    is_link: bool = False
    known: bool = True


def glance(one: Pending, source: Source, *, quiet: float, follow: bool) -> PathState:
    """Look at the path of a change.

    Args:
        one: the change.
        source: that holds the path.
        quiet: for how long a file that was not closed must be seen unchanged, in seconds.
        follow: whether links are followed.
    """
    try:
        seen = os.lstat(one.path)
    except (FileNotFoundError, NotADirectoryError):
        return PathState(None)
    except OSError:
        return PathState(None, known=False)
    if stat.S_ISLNK(seen.st_mode):
        return _behind_link(one.path, source) if follow else PathState(None, is_link=True)
    found = found_at(one.path, seen)
    if found is None or found.skipped or one.is_closed:
        return PathState(found)
    return _seen(one, found, quiet)


def _seen(one: Pending, found: Found, quiet: float) -> PathState:
    sight = _sight(one, found)
    unchanged = time.monotonic() - sight.since if sight is one.sight else 0.0
    written = has_writer(one.path)
    if written:
        return PathState(found, rests=False, sight=sight, is_idle=unchanged >= _IDLE)  # it will be closed some day, and that will be seen
    if one.kind is Kind.CREATED and written is False:
        return PathState(found)  # a hard link, say: complete as it was made
    rests = sight is one.sight and unchanged >= max(quiet, QUIET_UNASKED if written is None else 0.0)
    return PathState(found, rests=rests, sight=sight)


def _sight(one: Pending, found: Found) -> FileState:
    """What is seen now, since it was seen first."""
    now = FileState(found.size, found.mtime_ns, found.changed, time.monotonic())
    before = one.sight
    return before if before is not None and before.is_like(now) else now


def _behind_link(path: str, source: Source) -> PathState:
    """A link counts as the file that it leads to. One that leads to a directory is none; the watcher goes into it. Nor is one that leads
    to nothing, but a link it is: the watcher waits for what it leads to."""
    found, known = None, True
    try:
        root = open_root(source.root)
        try:
            real, _ = resolve_beneath(root, root_paths(source.root), path[len(source.root) :].strip("/"))
            found = found_at(path, os.stat(real or ".", dir_fd=root, follow_symlinks=False))
        finally:
            os.close(root)
    except NotMirrored as reason:
        found = Found(path, 0, 0.0, 0, str(reason), keep_in_target=True)
    except OSError as error:
        known = isinstance(error, FileNotFoundError | NotADirectoryError)
    return PathState(found, is_link=True, known=known)
