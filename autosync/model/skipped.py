"""The list of the paths that a mirror skips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

#: The most paths in a list.
MOST_SKIPPED = 1000


class SkippedList(NamedTuple):
    """The paths that are not mirrored.

    Attributes:
        reasons: why a path is skipped, by path; at most `MOST_SKIPPED` paths. A reason is the end of a sentence about the path.
        unlisted: the number of skipped paths beyond those listed that a scan has counted.
    """

    reasons: Mapping[str, str]
    unlisted: int = 0

    @property
    def total(self) -> int:
        """The number of skipped paths, as far as they were counted."""
        return len(self.reasons) + self.unlisted

    @property
    def is_counted(self) -> bool:
        """Whether `total` is the true number. If not, there may be more: paths that events find while the list is full are not counted."""
        return len(self.reasons) < MOST_SKIPPED or self.unlisted > 0

    def total_text(self) -> str:
        """The number for people."""
        return str(self.total) if self.is_counted else f"{self.total} or more"
