"""Pages of a listing (List Blobs): https://learn.microsoft.com/rest/api/storageservices/list-blobs"""

from __future__ import annotations

import base64
import binascii
import re
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes

from ...files import Page
from .._list_page import UnreadablePage, entries_of, text_of, times_of, unescaped, value_of
from .._object_store import ListedPage

#: A name that XML cannot carry is percent-encoded, and marked.
_NAME = re.compile(rb'<Name(?: Encoded="(true|false)")?>([^<]*)</Name>')
_TIME = re.compile(rb"<Last-Modified>([^<]*)</Last-Modified>")
_SIZE = re.compile(rb"<Content-Length>([0-9]{1,18})</Content-Length>")
_ETAG = re.compile(rb"<Etag>([^<]*)</Etag>")
_MD5 = re.compile(rb"<Content-MD5>([^<]*)</Content-MD5>")
#: Accounts with a hierarchical namespace list directories too.
_DIRECTORY = b"<ResourceType>directory</ResourceType>"
_NEXT = re.compile(rb"<NextMarker>([^<]*)</NextMarker>|<NextMarker ?/>")


def parse_page(page: bytes) -> ListedPage:
    """Read a page.

    Raises:
        UnreadablePage: it is none.
    """
    entries = [_Entry(entry) for entry in entries_of(page, b"Blob", b"EnumerationResults") if _DIRECTORY not in entry]
    following = _NEXT.search(page, max(0, page.rfind(b"</Blob>")))
    if following is None:
        raise UnreadablePage("it has no NextMarker")
    files = Page(
        [entry.key for entry in entries],
        [entry.size for entry in entries],
        times_of((entry.time for entry in entries), lambda text: parsedate_to_datetime(text).timestamp()),
        [entry.etag for entry in entries],
    )
    return ListedPage(files, text_of(unescaped(following[1] or b"")))


class _Entry:
    """The values of one blob."""

    __slots__ = ("etag", "key", "size", "time")

    def __init__(self, entry: bytes) -> None:
        self.key = _key(entry)
        self.size = int(value_of(entry, _SIZE, "Content-Length"))
        self.time = value_of(entry, _TIME, "Last-Modified")
        self.etag = _etag(entry)


def _key(entry: bytes) -> str:
    found = _NAME.search(entry)
    name = unescaped(found[2]) if found else b""
    if found is None or not name:
        raise UnreadablePage("a blob has no name")
    return text_of(unquote_to_bytes(name) if found[1] == b"true" else name)


def _etag(entry: bytes) -> str | None:
    """The MD5 in hexadecimal digits, which Azure computes of a blob that is sent with one request; else Azure's own Etag."""
    md5 = _MD5.search(entry)
    if md5 and md5[1]:
        try:
            return base64.b64decode(unescaped(md5[1]), validate=True).hex()
        except binascii.Error:
            pass
    etag = _ETAG.search(entry)
    return text_of(unescaped(etag[1])).strip('"') or None if etag else None
