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
from itertools import pairwise
from operator import lt
from typing import NamedTuple

from ..errors import OutOfOrder
from ..files import File, Page
from ..source.walk import Found, Run

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

    def differ(self, size: int, changed: float, page: Page, number: int) -> tuple[bool, str | None]:
        """Whether a file of this size, changed then, may differ from one that is listed; and the etag to compare it with first."""
        if size != page.sizes[number]:
            return True, None
        if self.by is Compare.SIZE:
            return False, None
        if self.by is Compare.CHECKSUM and self.tells(page.file(number)):
            return True, page.etags[number]
        return self._is_suspect(changed, page.times[number] - self.ahead), page.etags[number]

    def spares(self, changed: float, times: list[float]) -> bool:
        """Whether of files of equal sizes, the last of which changed then, and which were made at these times, none can differ. False: they
        have to be asked one by one."""
        if self.by is Compare.TIME:
            made = min(times) - self.ahead
            settled = self.cleared - MARGIN
            return changed < made - MARGIN or (changed < settled and max(times) - self.ahead < settled)
        return self.by is Compare.SIZE

    def _is_suspect(self, changed: float, made: float) -> bool:
        if changed < made - MARGIN:
            return False
        return not (changed < self.cleared - MARGIN and made < self.cleared - MARGIN)


class Difference(NamedTuple):
    """A key that is not the same on both sides. `found` is None if the source has no such file. `etag` is set if only times differ.
    `listed`: the target has something under this key."""

    key: str
    found: Found | None
    etag: str | None = None
    listed: bool = False


def in_order(pages: Iterable[Page]) -> Iterator[Page]:
    """Pass a listing through, checking that each key comes behind the one before it.

    Raises:
        OutOfOrder: one does not.
    """
    last: str | None = None
    for page in pages:
        keys = page.keys
        if not keys:
            continue
        if (last is not None and keys[0] <= last) or not all(map(lt, keys, keys[1:])):
            before = ([] if last is None else [last]) + keys
            bad = next(number for number, (one, other) in enumerate(pairwise(before)) if other <= one)
            good = bad + (last is None)
            if good:
                yield page.cut(good)
            raise OutOfOrder(f"the target listed {keys[good]!r} behind {before[bad]!r}")
        last = keys[-1]
        yield page


class _Listed:
    """Where a comparison is in a listing: the file `at` in `page` comes next."""

    def __init__(self, pages: Iterable[Page]) -> None:
        self._pages = iter(pages)
        self.page = Page([], [], [], [])
        self.at = 0
        #: Files that were listed.
        self.count = 0

    def left(self) -> int:
        """How many files there are in this page, or in the next one if this one is through. 0: there is no more."""
        while self.at == len(self.page.keys):
            page = next(self._pages, None)
            if page is None:
                return 0
            self.page, self.at = page, 0
            self.count += len(page.keys)
        return len(self.page.keys) - self.at


Ours = tuple[list[str], Run] | tuple[str, Found]


class Merge:
    """One comparison. Iterating over it merges the two sides, once.

    Args:
        source: files that follow one another, with their keys, or one that was found with its key, in the order of the keys.
        target: what the target lists, in the same order.
        rule: what counts as different.

    Yields:
        The differences, in order.

    Raises:
        OutOfOrder: (from the target's stream, see `in_order`) nothing that comes later can be believed.
    """

    def __init__(self, source: Iterable[Ours], target: Iterable[Page], rule: Rule) -> None:
        self._source = source
        self._listed = _Listed(target)
        self._rule = rule

    @property
    def listed(self) -> int:
        """How many files the target has listed; all of them, once the end is reached."""
        return self._listed.count

    def __iter__(self) -> Iterator[Difference]:
        for ours in self._source:
            if isinstance(ours[1], Found):
                yield from self._one(*ours)
            else:
                yield from self._many(*ours)
        while self._listed.left():
            yield self._gone()

    def _many(self, keys: list[str], run: Run) -> Iterator[Difference]:
        """Most files are equal. So as many as may stand on both sides are compared at once; one by one, if that shows a difference."""
        listed, sizes, changed = self._listed, run.sizes(), run.changed()
        start, end = 0, len(keys)
        while start < end and (left := listed.left()):
            page, at = listed.page, listed.at
            count = min(end - start, left)
            if (
                page.keys[at : at + count] == keys[start : start + count]
                and page.sizes[at : at + count] == sizes[start : start + count]
                and self._rule.spares(changed, page.times[at : at + count])
            ):
                start += count
                listed.at += count
                continue
            while start < end and listed.at < len(page.keys):
                ours, theirs = keys[start], page.keys[listed.at]
                if ours == theirs:
                    found = run.found(start)
                    differs, etag = self._rule.differ(found.size, found.changed, page, listed.at)
                    start += 1
                    listed.at += 1
                    if differs:
                        yield Difference(ours, found, etag, listed=True)
                elif ours < theirs:
                    yield Difference(ours, run.found(start))
                    start += 1
                else:
                    yield self._gone()
        for number in range(start, end):
            yield Difference(keys[number], run.found(number))

    def _one(self, key: str, found: Found) -> Iterator[Difference]:
        listed = self._listed
        while listed.left() and listed.page.keys[listed.at] < key:
            yield self._gone()
        there = listed.page.keys[listed.at] if listed.left() else None
        if not found.keep_in_target:
            if there != key:
                yield Difference(key, found)
                return
            differs, etag = self._rule.differ(found.size, found.changed, listed.page, listed.at)
            listed.at += 1
            if differs:
                yield Difference(key, found, etag, listed=True)
            return
        while there is not None and (there == key or (found.path.endswith("/") and there.startswith(key))):
            listed.at += 1
            there = listed.page.keys[listed.at] if listed.left() else None

    def _gone(self) -> Difference:
        key = self._listed.page.keys[self._listed.at]
        self._listed.at += 1
        return Difference(key, None, listed=True)
