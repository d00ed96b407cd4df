"""Files that a scan found to differ wait here until they have been unchanged for the quiet time."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..compare.diff import Difference
from ..model.file_state import QUIET_IF_WRITERS_UNKNOWN, FileState
from ..source.entry import Entry
from ..source.open_writers import has_writer, lies_on_share

#: The most files that may wait at once; a scan that finds more waits for the first of them.
MOST_WAITING = 20_000


class Rested(NamedTuple):
    """The result for a file that has waited.

    Attributes:
        difference: what the scan found.
        file_state: the file's state when the scan found it.
        rests: whether it has not changed since, and no process has it open for writing.
    """

    difference: Difference
    file_state: FileState
    rests: bool


class RestQueue:
    """Files in the order in which they were found.

    Args:
        quiet: for how long a file must be unchanged, in seconds.
        clock: monotonic time, in seconds.
    """

    def __init__(self, quiet: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._waiting: deque[tuple[Difference, FileState]] = deque()
        #: Files for which the kernel does not report whether a process has them open for writing.
        self._writers_unknown: deque[tuple[Difference, FileState]] = deque()
        self._is_share: dict[int, bool] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._writers_unknown)

    def add(self, difference: Difference, found: Entry) -> None:
        """Append a file that was found just now."""
        self._waiting.append((difference, FileState(found.size, found.mtime_ns, found.changed, self._clock())))

    def seconds(self) -> float:
        """Seconds until the first file is due; 0.0 if no file waits."""
        due = [waiting[0][1].since + quiet for waiting, quiet in self._queues() if waiting]
        return max(min(due) - self._clock(), 0.0) if due else 0.0

    def due(self) -> Iterator[Rested]:
        """The files that have waited for long enough, each checked once more."""
        for waiting, quiet in self._queues():
            while waiting and waiting[0][1].since + quiet <= self._clock():
                difference, file_state = waiting.popleft()
                rests = self._rests(file_state, difference.found, quiet)
                if rests is None:
                    self._writers_unknown.append((difference, file_state))
                else:
                    yield Rested(difference, file_state, rests)

    def _queues(self) -> tuple[tuple[deque[tuple[Difference, FileState]], float], ...]:
        return (self._waiting, self._quiet), (self._writers_unknown, max(self._quiet, QUIET_IF_WRITERS_UNKNOWN))

    def _rests(self, file_state: FileState, found: Entry | None, quiet: float) -> bool | None:
        """Whether a file has rested for `quiet` seconds; None if it must be unchanged for longer."""
        assert found is not None
        is_patient = quiet >= QUIET_IF_WRITERS_UNKNOWN
        try:
            seen = os.stat(found.path)
        except OSError as error:  # the walk knows longer paths than may be named
            return (is_patient or None) if error.errno == errno.ENAMETOOLONG else False
        if not file_state.is_like(FileState(seen.st_size, seen.st_mtime_ns, max(seen.st_mtime, seen.st_ctime), 0.0)):
            return False
        written = self._has_writer(found.path, seen.st_dev)
        return (is_patient or None) if written is None else not written

    def _has_writer(self, path: str, device: int) -> bool | None:
        """As `has_writer`; None on a network share, where opening the file would be a request to its server."""
        if device not in self._is_share:
            self._is_share[device] = lies_on_share(path)
        return None if self._is_share[device] else has_writer(path)
