"""Reads any page of a listing: also one with prefixes of namespaces, attributes, CDATA or references, or with objects that have no ETag.

`list_page` reads the usual form in a tenth of the time. Here expat calls a function for each tag, and no tree is made.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import unquote_plus
from xml.parsers import expat

from ....files import Page
from ..._clock import parse_iso_time
from ..._responses import ResponseError

#: Limits of a page, so that one of 64 MiB takes no multiple of that: how many elements are inside each other, how many characters
#: a text or a tag has, how many objects there are. S3 sends 1,000 objects.
_DEPTH, _CHARACTERS, _OBJECTS = 16, 64 << 10, 100_000
_LONG_TAG = re.compile(f"<[^<]{{{_CHARACTERS}}}")
#: The values of a page, and of each object in it.
_OF_PAGE = {"IsTruncated", "NextContinuationToken", "EncodingType"}
_OF_OBJECT = {"Key", "Size", "LastModified", "ETag"}


class ListXml(NamedTuple):
    """What a page contains.

    Attributes:
        page: the objects.
        token: the continuation token of the next page; None if this is the last one.
    """

    page: Page
    token: str | None


def parse_xml(text: str) -> ListXml:
    """Read a page.

    Args:
        text: the body of the response.

    Raises:
        ResponseError: it is not a page of a listing, or not all of it is there.
    """
    try:
        if _LONG_TAG.search(text):
            raise ValueError(f"a tag is longer than {_CHARACTERS} characters")
        return _Reader().read(text)
    except (ValueError, OverflowError, expat.ExpatError) as error:
        raise ResponseError(f"a page of the listing cannot be read: {error}") from error


class _Reader:
    """The functions that expat calls."""

    def __init__(self) -> None:
        #: Names of the elements that are open, without their prefixes.
        self._open: list[str] = []
        self._texts: list[str] | None = None
        self._length = 0
        self._of_page: dict[str, str] = {}
        self._of_object: dict[str, str] = {}
        self._page = Page([], [], [], [])

    def read(self, text: str) -> ListXml:
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        parser.Parse(text.encode("utf-8", "surrogateescape"), True)
        if self._of_page.get("EncodingType", "").strip() == "url":
            keys = self._page.keys
            keys[:] = [unquote_plus(key, errors="surrogateescape") for key in keys]
        if self._of_page.get("IsTruncated", "").strip() != "true":
            return ListXml(self._page, None)
        token = self._of_page.get("NextContinuationToken")
        if not token:
            raise ValueError("it is not the last one, and has no NextContinuationToken")
        return ListXml(self._page, token)

    def _start(self, name: str, _: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        if not self._open and not name.startswith("ListBucket"):
            raise ValueError(f"it is a {name[:40]!r}")
        self._open.append(name)
        if len(self._open) > _DEPTH:
            raise ValueError(f"more than {_DEPTH} elements are inside each other")
        is_value = (len(self._open) == 2 and name in _OF_PAGE) or (
            len(self._open) == 3 and self._open[1] == "Contents" and name in _OF_OBJECT
        )
        self._texts, self._length = [] if is_value else None, 0

    def _text(self, text: str) -> None:
        if self._texts is not None:
            self._length += len(text)
            if self._length > _CHARACTERS:
                raise ValueError(f"a text is longer than {_CHARACTERS} characters")
            self._texts.append(text)

    def _end(self, _: str) -> None:
        name = self._open.pop()
        if self._texts is not None:
            values = self._of_object if self._open[1:] else self._of_page
            if name in values:
                raise ValueError(f"there are two values of {name}")
            values[name] = "".join(self._texts)
            self._texts = None
        elif name == "Contents" and len(self._open) == 1:
            self._add(self._of_object)
            self._of_object = {}

    def _add(self, values: dict[str, str]) -> None:
        missing = _OF_OBJECT - {"ETag"} - values.keys()
        if missing:
            raise ValueError(f"an object has no {min(missing)}")
        if len(self._page.keys) == _OBJECTS:
            raise ValueError(f"it has more than {_OBJECTS} objects")
        self._page.keys.append(values["Key"])
        size = int(values["Size"])
        if size < 0:
            raise ValueError("an object has a negative size")
        self._page.sizes.append(size)
        self._page.times.append(parse_iso_time(values["LastModified"].strip()))
        self._page.etags.append(values.get("ETag", "").strip().strip('"') or None)

    def _doctype(self, *_: Any) -> None:
        raise ValueError("it has a document type")
