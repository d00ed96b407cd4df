"""The files that a look found to differ wait here until they have been seen unchanged for the quiet time."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..compare.diff import Difference
from ..model.file_state import QUIET_UNASKED, FileState
from ..source.open_writers import has_writer, lies_on_share
from ..source.walk import Found

#: So many files may wait at once; a look that finds more waits for the first of them.
MOST_WAITING = 20_000


class Rested(NamedTuple):
    """What became of a file that has waited.

    Attributes:
        difference: what the look found.
        sight: what was seen of the file first.
        rests: whether it has not changed since, and nobody writes to it.
    """

    difference: Difference
    sight: FileState
    rests: bool


class RestQueue:
    """Files in the order in which they were found.

    Args:
        quiet: for how long a file must be seen unchanged, in seconds.
        clock: monotonic time, in seconds.
    """

    def __init__(self, quiet: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._waiting: deque[tuple[Difference, FileState]] = deque()
        #: Of these the kernel does not say whether somebody writes to them.
        self._unasked: deque[tuple[Difference, FileState]] = deque()
        self._is_share: dict[int, bool] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._unasked)

    def add(self, difference: Difference, found: Found) -> None:
        """Have a file wait that was found just now."""
        self._waiting.append((difference, FileState(found.size, found.mtime_ns, found.changed, self._clock())))

    def seconds(self) -> float:
        """For how long none of them can have rested; 0.0 if there is none."""
        due = [waiting[0][1].since + quiet for waiting, quiet in self._queues() if waiting]
        return max(min(due) - self._clock(), 0.0) if due else 0.0

    def due(self) -> Iterator[Rested]:
        """Those that have waited for long enough; they are looked at once more."""
        for waiting, quiet in self._queues():
            while waiting and waiting[0][1].since + quiet <= self._clock():
                difference, sight = waiting.popleft()
                rests = self._rests(sight, difference.found, quiet)
                if rests is None:
                    self._unasked.append((difference, sight))
                else:
                    yield Rested(difference, sight, rests)

    def _queues(self) -> tuple[tuple[deque[tuple[Difference, FileState]], float], ...]:
        return (self._waiting, self._quiet), (self._unasked, max(self._quiet, QUIET_UNASKED))

    def _rests(self, sight: FileState, found: Found | None, quiet: float) -> bool | None:
        """Whether a file has rested for `quiet` seconds; None if it has to be seen unchanged for longer."""
        assert found is not None
        is_patient = quiet >= QUIET_UNASKED
        try:
            seen = os.stat(found.path)
        except OSError as error:  # the walk knows longer paths than may be named
            return (is_patient or None) if error.errno == errno.ENAMETOOLONG else False
        if not sight.is_like(FileState(seen.st_size, seen.st_mtime_ns, max(seen.st_mtime, seen.st_ctime), 0.0)):
            return False
        written = self._has_writer(found.path, seen.st_dev)
        return (is_patient or None) if written is None else not written

    def _has_writer(self, path: str, device: int) -> bool | None:
        """As `has_writer`; a file on a share is not opened for that, which would be a request to its server."""
        if device not in self._is_share:
            self._is_share[device] = lies_on_share(path)
        return None if self._is_share[device] else has_writer(path)
