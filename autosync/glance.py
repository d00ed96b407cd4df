"""A glance: what stands at one path now, and whether somebody is still writing to it. An event asks for a glance, doubt for a look."""

from __future__ import annotations

import math
import os
import stat
import time
from typing import NamedTuple

from .change import Kind
from .keys import Source
from .settle import Pending
from .tree import Found, Withheld, found_at, open_root, resolve_beneath, tops_of
from .writers import has_writer

#: How long a file that was not closed must be quiet where the kernel does not tell whether somebody writes to it, in seconds.
_QUIET_UNASKED = 2.0
#: A file that changed within so many seconds may have a writer; the kernel is asked before a look sends it.
_LATELY = 600.0


class Glance(NamedTuple):
    """What stands at a path.

    Attributes:
        found: a file, or something that is skipped; None: neither does.
        busy_until: until when somebody is taken to be writing to it, in seconds since the epoch.
        is_link: whether it is a link; `found` is then what it leads to.
        known: False if the disk does not tell.
    """

    found: Found | None
    busy_until: float = 0.0
    is_link: bool = False
    known: bool = True


def glance(one: Pending, source: Source, *, quiet: float, follow: bool) -> Glance:
    """Look at the path of a change.

    Args:
        one: the change.
        source: that holds the path.
        quiet: how long a file that was not closed must be quiet, in seconds.
        follow: whether links are followed.
    """
    try:
        seen = os.lstat(one.path)
    except (FileNotFoundError, NotADirectoryError):
        return Glance(None)
    except OSError:
        return Glance(None, known=False)
    if stat.S_ISLNK(seen.st_mode):
        return _behind_link(one.path, source) if follow else Glance(None, is_link=True)
    found = found_at(one.path, seen)
    if found is None or found.skipped or one.is_closed:
        return Glance(found)
    return Glance(found, _busy_until(one, seen.st_mtime, quiet))


def is_busy(found: Found, quiet: float) -> bool:
    """Whether a file that a look found may still be written to; then it has to settle first, as one of which the kernel has told."""
    age = time.time() - found.changed
    return age < quiet or (age < _LATELY and has_writer(found.path) is True)


def _busy_until(one: Pending, modified: float, quiet: float) -> float:
    written = has_writer(one.path)
    if written:
        return math.inf  # it will be closed some day, and that will be seen
    if one.kind is Kind.CREATED and written is False:
        return 0.0  # a hard link, say: complete as it was made
    return modified + max(quiet, _QUIET_UNASKED if written is None else 0.0)


def _behind_link(path: str, source: Source) -> Glance:
    """A link counts as the file that it leads to. One that leads to a directory is none; the watcher goes into it. Nor is one that leads
    to nothing, but a link it is: the watcher waits for what it leads to."""
    found, known = None, True
    try:
        root = open_root(source.root)
        try:
            real, _ = resolve_beneath(root, tops_of(source.root), path[len(source.root) :].strip("/"))
            found = found_at(path, os.stat(real or ".", dir_fd=root, follow_symlinks=False))
        finally:
            os.close(root)
    except Withheld as reason:
        found = Found(path, 0, 0.0, 0, str(reason), stays=True)
    except OSError as error:
        known = isinstance(error, FileNotFoundError | NotADirectoryError)
    return Glance(found, is_link=True, known=known)
