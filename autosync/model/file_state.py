"""What was seen of a file, and since when: a file rests if it still is the same after a while.

The while is measured on this host's monotonic clock. The times of a file are compared with each other only, never with this host's clock:
they may be a camera's, or those of the server that has the share, and lie in the future.
"""

from __future__ import annotations

from typing import NamedTuple

#: For how long a file must be seen unchanged where the kernel does not say whether somebody writes to it, in seconds.
QUIET_UNASKED = 2.0


class FileState(NamedTuple):
    """What lstat(2) saw of a file.

    Attributes:
        size: in bytes.
        mtime_ns: modification time in nanoseconds.
        changed: the later one of modification time and ctime, in seconds.
        since: since when nothing else was seen, in seconds on the monotonic clock.
    """

    size: int
    mtime_ns: int
    changed: float
    since: float

    def is_like(self, later: FileState) -> bool:
        """Whether a later sight shows no change. `changed` of the earlier one may be later than any time of the file: it counts what was
        renamed above it, too."""
        return (self.size, self.mtime_ns) == (later.size, later.mtime_ns) and later.changed <= self.changed
