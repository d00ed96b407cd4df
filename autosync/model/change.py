"""What the watcher says: one small value for each thing that may have happened below a source."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """The kinds of change."""

    #: The file has been completed: closed after writing, or moved to this name.
    SAVED = "saved"
    #: The file has been made, and whoever made it has yet to close it; that will be seen.
    CREATED = "created"
    #: The file was found in a new directory; somebody may still be writing to it.
    APPEARED = "appeared"
    #: The name is gone.
    DELETED = "deleted"
    #: The directory is gone, as the kernel has told; compare what the target has below it.
    LEFT = "left"
    #: Something at or below this path is uncertain; compare it with the target.
    LOOK = "look"


class Change(NamedTuple):
    """One change. `path` is absolute, without a trailing slash; for `LOOK`, "" means every source of the mirror."""

    kind: Kind
    path: str


#: Everything is uncertain: the start, a queue overflow, a broker that lost its memory.
LOOK_EVERYWHERE = Change(Kind.LOOK, "")
