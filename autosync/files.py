"""A file in a listing of a target, or on its way to the target: the values that actors and autosync exchange."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, NamedTuple

#: Files of a page, if the target lists them one by one.
_PAGE = 1000


@dataclass(slots=True)
class File:
    """One file of a mirror.

    Attributes:
        key: the name in the target. Names that are not UTF-8 have surrogate escapes, as in `os.fsdecode`.
        size: the file's size in bytes.
        mtime: in seconds since the epoch. In a listing: when the target last changed the object; None or 0.0 if that is unknown. In an
            upload: the modification time of the file in the source.
        etag: the target's checksum of the content, without quotes; None if it has none.
    """

    key: str
    size: int = 0
    mtime: float = 0.0
    etag: str | None = None

    def open(self) -> BinaryIO:
        """Open the content for reading. Only files in a call of `Actor.upload` have content."""
        raise NotImplementedError(f"{self.key} is a listed file; only a file to be uploaded can be read")

    def begun(self, token: str, instead: str = "") -> None:
        """Note an upload in parts that the target may keep open. An actor calls this before it sends the first part. If this process is
        killed, another one passes the token to `Actor.abandon`.

        Args:
            token: identifies the upload for the actor; one line of text.
            instead: an earlier token that this one replaces.

        Raises:
            BrokerError: the note could not be stored. Abort the upload, and let the error through.
        """

    def ended(self, token: str) -> None:
        """Remove the note of an upload in parts: it is complete, aborted, or unknown to the target. Raises nothing."""


class Page(NamedTuple):
    """Consecutive files of a listing, as columns with the attributes of `File`. A scan compares whole columns, without a `File` object for
    each file."""

    keys: list[str]
    sizes: list[int]
    times: list[float]
    etags: list[str | None]

    def file(self, number: int) -> File:
        """The file with this index."""
        return File(self.keys[number], self.sizes[number], self.times[number], self.etags[number])

    def cut(self, end: int) -> Page:
        """A page of the first `end` files."""
        return Page(self.keys[:end], self.sizes[:end], self.times[:end], self.etags[:end])


def paged(files: Iterable[File]) -> Iterator[Page]:
    """Group files into pages."""
    source = iter(files)
    while some := list(islice(source, _PAGE)):
        yield Page([one.key for one in some], [one.size for one in some], [one.mtime or 0.0 for one in some], [one.etag for one in some])


class Listing:
    """An iterable of `File` with an attribute that says whether it is sorted.

    Args:
        files: the objects in the target.
        already_sorted: True if the keys are in the order of their UTF-8 bytes, which is the order of code points (RFC 3629, 1). If
            False, autosync sorts on disk before it compares.
    """

    def __init__(self, files: Iterable[File], *, already_sorted: bool) -> None:
        self._files = files
        self.already_sorted = already_sorted

    def __iter__(self) -> Iterator[File]:
        return iter(self._files)

    def pages(self) -> Iterator[Page]:
        """The same files in pages."""
        return paged(self)


class PagedListing(Listing):
    """A listing in pages.

    Args:
        pages: the objects in the target.
        already_sorted: see `Listing`.
    """

    def __init__(self, pages: Iterable[Page], *, already_sorted: bool) -> None:
        super().__init__((page.file(number) for page in pages for number in range(len(page.keys))), already_sorted=already_sorted)
        self._pages = pages

    def pages(self) -> Iterator[Page]:
        """See `Listing`."""
        return iter(self._pages)
