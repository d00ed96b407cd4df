"""Merging two sorted streams, the files of the source and those of the target, into the differences. Constant memory, no I/O.

There is no index that could become stale. A file is different if its size is, or if it changed when its object was created, or later. The
ctime is a change too: it reveals a file that was renamed or copied over another, with an older mtime and the same size. If only the times
differ, the object's etag is part of the difference, so that the worker can compare the content before it sends anything.

A link that leads out of the source is not sent, and the target keeps what it has under the name of the link.

The time at which an object was created is as precise as the target's clock, so an object that was created right after its file was saved
may differ. The time of the last scan after which both sides were in sync decides then: if neither side has changed since, they are equal.
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
from ..source.entry import Entry, Run

#: An object counts as created after its file changed if it is newer by this, in seconds. This allows for clocks and rounding.
MARGIN = 2.0


class Compare(Enum):
    """What is compared besides the size."""

    #: Nothing.
    SIZE = "size"
    #: The times. If they differ, the content decides, where the target's etag allows to compare it.
    TIME = "time"
    #: The content, where the target's etag allows to compare it; else the times.
    CHECKSUM = "checksum"


@dataclass(frozen=True, slots=True)
class Rule:
    """How two files of one key are compared.

    Attributes:
        by: what is compared.
        last_in_sync: when the last scan began after which both sides were in sync, in seconds since the epoch; 0.0: never.
        clock_ahead: by how many seconds the target's clock is ahead of this host's.
        can_match: whether a worker can compare the content of a file with the target's etag.
    """

    by: Compare = Compare.TIME
    last_in_sync: float = 0.0
    clock_ahead: float = 0.0
    can_match: Callable[[File], bool] = lambda _: False

    def differ(self, size: int, changed: float, page: Page, number: int) -> tuple[bool, str | None]:
        """Compare a file with one that is listed.

        Args:
            size: the file's size in bytes.
            changed: when the file changed, in seconds since the epoch.
            page: contains the listed file.
            number: the index of the listed file in the page.

        Returns:
            Whether they may differ, and the etag to compare the content with first; None if the sizes differ.
        """
        if size != page.sizes[number]:
            return True, None
        if self.by is Compare.SIZE:
            return False, None
        if self.by is Compare.CHECKSUM and self.can_match(page.file(number)):
            return True, page.etags[number]
        return self._may_differ(changed, page.times[number] - self.clock_ahead), page.etags[number]

    def are_equal(self, changed: float, times: list[float]) -> bool:
        """Whether files are all equal to the listed ones of the same keys and sizes. False: compare them one by one.

        Args:
            changed: when the last of the files changed, in seconds since the epoch.
            times: when the listed ones were created, in seconds since the epoch.
        """
        if self.by is Compare.TIME:
            created = min(times) - self.clock_ahead
            settled = self.last_in_sync - MARGIN
            return changed < created - MARGIN or (changed < settled and max(times) - self.clock_ahead < settled)
        return self.by is Compare.SIZE

    def _may_differ(self, changed: float, created: float) -> bool:
        if changed < created - MARGIN:
            return False
        settled = self.last_in_sync - MARGIN
        return not (changed < settled and created < settled)


class Difference(NamedTuple):
    """A key that is not the same on both sides.

    Attributes:
        key: the key.
        found: the file of the source; None if there is none.
        etag: the object's ETag, if only the times differ; else None.
        listed: whether the target has an object with this key.
    """

    key: str
    found: Entry | None
    etag: str | None = None
    listed: bool = False


def in_order(pages: Iterable[Page]) -> Iterator[Page]:
    """Yield the pages of a listing, and check that its keys are in order.

    Raises:
        OutOfOrder: a key is not behind the one before it. The pages up to that one have been yielded.
    """
    last: str | None = None
    for page in pages:
        keys = page.keys
        if not keys:
            continue
        if (last is not None and keys[0] <= last) or not all(map(lt, keys, keys[1:])):
            before = ([] if last is None else [last]) + keys
            first_bad = next(number for number, (one, other) in enumerate(pairwise(before)) if other <= one)
            good = first_bad + (last is None)
            if good:
                yield page.cut(good)
            raise OutOfOrder(f"the target listed {keys[good]!r} behind {before[first_bad]!r}")
        last = keys[-1]
        yield page


class _ListingCursor:
    """A position in a listing: the next file is number `at` of `page`."""

    def __init__(self, pages: Iterable[Page]) -> None:
        self._pages = iter(pages)
        self.page = Page([], [], [], [])
        self.at = 0
        #: Number of files in the pages until now.
        self.count = 0

    def remaining(self) -> int:
        """The number of files that remain in the page, or in the next one if none remains. 0: the end of the listing."""
        while self.at == len(self.page.keys):
            page = next(self._pages, None)
            if page is None:
                return 0
            self.page, self.at = page, 0
            self.count += len(page.keys)
        return len(self.page.keys) - self.at


#: Consecutive files of the source with their keys, or one file with its key.
KeyedFiles = tuple[list[str], Run] | tuple[str, Entry]


class Merge:
    """One comparison. It can be iterated over once.

    Args:
        source: files of the source, in the order of their keys.
        target: listing of the target, in the same order.
        rule: what counts as different.

    Yields:
        The differences, in order.

    Raises:
        OutOfOrder: by the target's stream, see `in_order`. Differences from before are valid, and later ones cannot be found.
    """

    def __init__(self, source: Iterable[KeyedFiles], target: Iterable[Page], rule: Rule) -> None:
        self._source = source
        self._listed = _ListingCursor(target)
        self._rule = rule

    @property
    def listed(self) -> int:
        """Number of files that the target has listed until now."""
        return self._listed.count

    def __iter__(self) -> Iterator[Difference]:
        for files in self._source:
            if isinstance(files[1], Entry):
                yield from self._merge_one(*files)
            else:
                yield from self._merge_run(*files)
        while self._listed.remaining():
            yield self._missing_file()

    def _merge_run(self, keys: list[str], run: Run) -> Iterator[Difference]:
        """Merge consecutive files. Most files are equal, so as many as possible are compared together, and one by one only if that finds a
        difference."""
        listed, sizes, changed = self._listed, run.sizes(), run.changed()
        start, end = 0, len(keys)
        while start < end and (remaining := listed.remaining()):
            page, at = listed.page, listed.at
            count = min(end - start, remaining)
            if (
                page.keys[at : at + count] == keys[start : start + count]
                and page.sizes[at : at + count] == sizes[start : start + count]
                and self._rule.are_equal(changed, page.times[at : at + count])
            ):
                start += count
                listed.at += count
                continue
            while start < end and listed.at < len(page.keys):
                key, listed_key = keys[start], page.keys[listed.at]
                if key == listed_key:
                    found = run.entry(start)
                    differs, etag = self._rule.differ(found.size, found.changed, page, listed.at)
                    start += 1
                    listed.at += 1
                    if differs:
                        yield Difference(key, found, etag, listed=True)
                elif key < listed_key:
                    yield Difference(key, run.entry(start))
                    start += 1
                else:
                    yield self._missing_file()
        for number in range(start, end):
            yield Difference(keys[number], run.entry(number))

    def _merge_one(self, key: str, found: Entry) -> Iterator[Difference]:
        listed = self._listed
        while listed.remaining() and listed.page.keys[listed.at] < key:
            yield self._missing_file()
        listed_key = listed.page.keys[listed.at] if listed.remaining() else None
        if not found.keep_in_target:
            if listed_key != key:
                yield Difference(key, found)
                return
            differs, etag = self._rule.differ(found.size, found.changed, listed.page, listed.at)
            listed.at += 1
            if differs:
                yield Difference(key, found, etag, listed=True)
            return
        while listed_key is not None and (listed_key == key or (found.path.endswith("/") and listed_key.startswith(key))):
            listed.at += 1
            listed_key = listed.page.keys[listed.at] if listed.remaining() else None

    def _missing_file(self) -> Difference:
        """The difference for the next listed key, which the source does not have."""
        key = self._listed.page.keys[self._listed.at]
        self._listed.at += 1
        return Difference(key, None, listed=True)
