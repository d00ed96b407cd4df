"""The changes that the watcher reports: one small value for each thing that may have happened below a source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """The kinds of change."""

    #: A file is complete: it was closed after writing, or moved to this name.
    SAVED = "saved"
    #: A file was created and is not yet closed. Its close will be reported.
    CREATED = "created"
    #: A file was found in a new directory. A process may still be writing to it.
    APPEARED = "appeared"
    #: The name is gone.
    DELETED = "deleted"
    #: The kernel reported that a directory is gone: compare what the target has below it.
    LEFT = "left"
    #: What is at or below this path is uncertain: compare it with the target.
    SCAN = "scan"


class Change(NamedTuple):
    """One change. `path` is absolute, without a trailing slash. For `SCAN`, "" is the whole source of the mirror."""

    kind: Kind
    path: str


#: Receives changes; must not block.
Push = Callable[[Iterable[Change]], None]

#: The whole source is uncertain: at the start, after a queue overflow, after the broker lost its memory.
SCAN_ALL = Change(Kind.SCAN, "")
