"""Two sorted streams, what the disk has and what the target has, become the differences between them. Constant memory, no I/O.

What counts as different, with no index that could go stale: the size, or a source that changed when, or after, the object was made. The
ctime counts as a change too, so a file that was renamed or copied over another, with an older mtime and the same size, is seen. Where only
times speak for a difference, the object's etag goes along, so that the worker can compare the content before it sends anything.

A link that leads out of the source is on the disk and is not sent: what the target has under its name stays as it is.

"When the object was made" has the precision of the target's clock, so an object made right after its file was saved stays suspect. What
settles it is the time of the last look after which everything was made right: neither side changed since then, so they are still equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from .errors import OutOfOrder
from .files import File
from .tree import Found

#: Clocks and rounding: an object must be newer than its file by this to be taken as made after it, in seconds.
MARGIN = 2.0


class Compare(Enum):
    """What speaks for a difference, besides the size."""

    #: Nothing.
    SIZE = "size"
    #: The times; where they do, the content decides if the target can tell it.
    TIME = "time"
    #: The content, where the target can tell it, and else the times.
    CHECKSUM = "checksum"


@dataclass(frozen=True, slots=True)
class Rule:
    """How two files of one key are compared.

    Attributes:
        by: what counts.
        cleared: when the last look began after which all was made right, in seconds since the epoch; 0 if there was none.
        ahead: by how many seconds the target's clock is ahead of this host's.
        tells: whether the target's etag of a listed file lets a worker compare the content.
    """

    by: Compare = Compare.TIME
    cleared: float = 0.0
    ahead: float = 0.0
    tells: Callable[[File], bool] = lambda _: False

    def differ(self, found: Found, listed: File) -> tuple[bool, str | None]:
        """Whether a file may differ from what is listed, and the etag to compare it with first."""
        if found.size != listed.size:
            return True, None
        if self.by is Compare.SIZE:
            return False, None
        if self.by is Compare.CHECKSUM and self.tells(listed):
            return True, listed.etag
        return self._is_suspect(found, listed.mtime - self.ahead), listed.etag

    def _is_suspect(self, found: Found, made: float) -> bool:
        if found.changed < made - MARGIN:
            return False
        return not (found.changed < self.cleared - MARGIN and made < self.cleared - MARGIN)


class Difference(NamedTuple):
    """A key that is not the same on both sides. `found` is None if the source has no such file. `etag` is set if only times differ."""

    key: str
    found: Found | None
    etag: str | None = None


def in_order(files: Iterable[File]) -> Iterator[File]:
    """Pass a listing through, checking that each key comes behind the one before it.

    Raises:
        OutOfOrder: one does not.
    """
    last = None
    for file in files:
        if last is not None and file.key <= last:
            raise OutOfOrder(f"the target listed {file.key!r} behind {last!r}")
        last = file.key
        yield file


def compare(source: Iterable[tuple[str, Found]], target: Iterable[File], rule: Rule) -> Iterator[Difference]:
    """Merge the two sides.

    Args:
        source: (key, what was found) in the order of the keys.
        target: what the target lists, in the same order.
        rule: what counts as different.

    Yields:
        The differences, in order.

    Raises:
        OutOfOrder: (from the target's stream, see `in_order`) nothing that comes later can be believed.
    """
    ours, theirs = iter(source), iter(target)
    have, listed = next(ours, None), next(theirs, None)
    while have is not None or listed is not None:
        if have is not None and have[1].stays and (listed is None or listed.key >= have[0]):
            if listed is not None and (listed.key == have[0] or (have[1].path.endswith("/") and listed.key.startswith(have[0]))):
                listed = next(theirs, None)
            else:
                have = next(ours, None)
        elif listed is None or (have is not None and have[0] < listed.key):
            assert have is not None
            yield Difference(have[0], have[1])
            have = next(ours, None)
        elif have is None or listed.key < have[0]:
            yield Difference(listed.key, None)
            listed = next(theirs, None)
        else:
            differs, etag = rule.differ(have[1], listed)
            if differs:
                yield Difference(have[0], have[1], etag)
            have, listed = next(ours, None), next(theirs, None)
