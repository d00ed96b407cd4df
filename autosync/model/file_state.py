"""The state of a file as lstat(2) returns it, and since when it has been so: a file rests if its state has not changed for some time.

That time is measured on this host's monotonic clock. The times of a file are compared with each other only, never with this host's clock:
a camera or the server of a share may have set them, and they may lie in the future.
"""

from __future__ import annotations

from typing import NamedTuple

#: How long a file must be unchanged if the kernel does not say whether a process writes to it, in seconds.
QUIET_IF_WRITERS_UNKNOWN = 2.0


class FileState(NamedTuple):
    """The result of lstat(2) for a file.

    Attributes:
        size: the file's size in bytes.
        mtime_ns: modification time in nanoseconds.
        changed: the later one of modification time and ctime, in seconds.
        since: when this state was first seen, in seconds on the monotonic clock.
    """

    size: int
    mtime_ns: int
    changed: float
    since: float

    def is_like(self, later: FileState) -> bool:
        """Whether a later state shows no change. `changed` of the earlier state may be later than any time of the file, since it counts
        renames of the directories above."""
        return (self.size, self.mtime_ns) == (later.size, later.mtime_ns) and later.changed <= self.changed
