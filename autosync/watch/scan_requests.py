"""Requests to compare parts of the source with the target. Requests for parts that contain each other are merged."""

from __future__ import annotations

from os.path import commonpath
from typing import NamedTuple

from ..model.paths import is_at_or_below

#: More requests than this become one request for their common directory.
MAX_SCANS = 256
#: How long a request waits for others that can be merged with it, in seconds. One for the whole source does not wait.
SCAN_DELAY = 0.2


class ScanRequest(NamedTuple):
    """A part of the source that is to be compared with the target.

    Attributes:
        path: a directory's absolute path; "" is the whole source.
        has_left: whether the kernel has reported that this directory is gone.
    """

    path: str
    has_left: bool = False

    def covers(self, other: ScanRequest) -> bool:
        """Whether this request makes another one needless. A request for a directory that has left covers no ordinary one, and no ordinary
        one covers it, since its scan may delete more."""
        if self.has_left != other.has_left:
            return False
        return not self.path or is_at_or_below(other.path, self.path)


class ScanRequests:
    """The requests that wait. Times are of one monotonic clock, in seconds. Not safe to use from many threads at once.

    `len()` is the number of requests.
    """

    def __init__(self) -> None:
        self._due: dict[ScanRequest, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def add(self, request: ScanRequest, now: float) -> bool:
        """Add a request, and remove those that it covers.

        Returns:
            Whether the request was added; False if another one covers it.
        """
        if any(other.covers(request) for other in self._due):
            return False
        for other in [other for other in self._due if request.covers(other)]:
            del self._due[other]
        self._due[request] = now + (SCAN_DELAY if request.path else 0.0)
        if len(self._due) > MAX_SCANS:
            paths = [one.path for one in self._due]
            common = "" if "" in paths else commonpath(paths)
            self._due = {ScanRequest(common): now + SCAN_DELAY}
        return True

    def next_due(self) -> float | None:
        """When the first request is due; None if there is none."""
        return min(self._due.values(), default=None)

    def pop_due(self, now: float) -> ScanRequest | None:
        """Remove and return a request that is due; None if none is. Directories that have left come first."""
        due = [request for request, at in self._due.items() if at <= now]
        if not due:
            return None
        first = max(due, key=lambda request: request.has_left)
        del self._due[first]
        return first
