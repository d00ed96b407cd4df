"""Two sorted streams, what the disk has and what the target has, become the differences between them. Constant memory, no I/O.

What counts as different, with no index that could go stale: the size, or a source that changed when, or after, the object was made. The
ctime counts as a change too, so a file that was renamed or copied over another, with an older mtime and the same size, is seen. Where only
times speak for a difference, the object's etag goes along, so that the worker can compare the content before it sends anything.

"When the object was made" has the precision of the target's clock, so an object made right after its file was saved stays suspect. What
settles it is the time of the last look after which everything was made right: neither side changed since then, so they are still equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .errors import OutOfOrder
from .files import File
from .tree import Found

#: Clocks and rounding: an object must be newer than its file by this to be taken as made after it, in seconds.
MARGIN = 2.0


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


def compare(source: Iterable[tuple[str, Found]], target: Iterable[File], cleared: float = 0.0) -> Iterator[Difference]:
    """Merge the two sides.

    Args:
        source: (key, file found) in the order of the keys.
        target: what the target lists, in the same order.
        cleared: when the last look began after which all was made right, in seconds since the epoch; 0 if there was none.

    Yields:
        The differences, in order.

    Raises:
        OutOfOrder: (from the target's stream, see `in_order`) nothing that comes later can be believed.
    """
    ours, theirs = iter(source), iter(target)
    have, listed = next(ours, None), next(theirs, None)
    while have is not None or listed is not None:
        if listed is None or (have is not None and have[0] < listed.key):
            assert have is not None
            yield Difference(have[0], have[1])
            have = next(ours, None)
        elif have is None or listed.key < have[0]:
            yield Difference(listed.key, None)
            listed = next(theirs, None)
        else:
            if have[1].size != listed.size:
                yield Difference(have[0], have[1])
            elif _suspect(have[1], listed, cleared):
                yield Difference(have[0], have[1], listed.etag)
            have, listed = next(ours, None), next(theirs, None)


def _suspect(found: Found, listed: File, cleared: float) -> bool:
    if found.changed < listed.mtime - MARGIN:
        return False
    return not (found.changed < cleared - MARGIN and listed.mtime < cleared - MARGIN)
