"""A file as a target lists it and as an actor is given it: the value that actors and autosync share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, NamedTuple

#: Files that are listed one by one are compared so many at a time.
_PAGE = 1000


@dataclass(slots=True)
class File:
    """One file of a mirror.

    Attributes:
        key: its name in the target. Names that are not UTF-8 carry surrogate escapes, as `os.fsdecode` makes them.
        size: in bytes.
        mtime: seconds since the epoch. In a listing: when the target last changed the object, or None or 0.0 where it cannot tell. On
            the way up: when the file was last modified at the source.
        etag: the target's own checksum of the content, without quotes; None where it has none.
    """

    key: str
    size: int = 0
    mtime: float = 0.0
    etag: str | None = None

    def open(self) -> BinaryIO:
        """Open the content for reading. Only the files that autosync hands to `Actor.upload` have one."""
        raise NotImplementedError(f"{self.key} is a listed file; only a file to be uploaded can be read")

    def begun(self, token: str, instead: str = "") -> None:
        """For actors that send in parts: say that from now on the target may hold an upload of this file open, before any part is sent. If
        this process is killed, another one gives the token to `Actor.abandon`.

        Args:
            token: by which the actor knows the upload again; one line of text.
            instead: a token that was given before and that this one replaces.

        Raises:
            BrokerError: this could not be noted. End the upload, and let the error through.
        """

    def ended(self, token: str) -> None:
        """For actors that send in parts: say that the upload is complete, or that the target has forgotten it. Raises nothing."""


class Page(NamedTuple):
    """Files that follow one another in a listing, by columns: a look compares most of them all at once, and needs no `File` for each. The
    meaning is that of the attributes of `File`."""

    keys: list[str]
    sizes: list[int]
    times: list[float]
    etags: list[str | None]

    def file(self, number: int) -> File:
        """One of them."""
        return File(self.keys[number], self.sizes[number], self.times[number], self.etags[number])

    def cut(self, end: int) -> Page:
        """The first of them."""
        return Page(self.keys[:end], self.sizes[:end], self.times[:end], self.etags[:end])


def paged(files: Iterable[File]) -> Iterator[Page]:
    """Files as they come, by pages."""
    source = iter(files)
    while some := list(islice(source, _PAGE)):
        yield Page([one.key for one in some], [one.size for one in some], [one.mtime or 0.0 for one in some], [one.etag for one in some])


class Listing:
    """An iterable of `File` that says whether it is sorted.

    Args:
        files: what the target holds.
        already_sorted: True if the keys come in the order of their UTF-8 bytes (RFC 3629, part 1: the same as the order
            of code points). Where this is False, autosync sorts on disk before it compares.
    """

    def __init__(self, files: Iterable[File], *, already_sorted: bool) -> None:
        self._files = files
        self.already_sorted = already_sorted

    def __iter__(self) -> Iterator[File]:
        return iter(self._files)

    def pages(self) -> Iterator[Page]:
        """The same, by pages."""
        return paged(self)


class PagedListing(Listing):
    """A listing that comes by pages.

    Args:
        pages: what the target holds.
        already_sorted: see `Listing`.
    """

    def __init__(self, pages: Iterable[Page], *, already_sorted: bool) -> None:
        super().__init__((page.file(number) for page in pages for number in range(len(page.keys))), already_sorted=already_sorted)
        self._pages = pages

    def pages(self) -> Iterator[Page]:
        """See `Listing`."""
        return iter(self._pages)
