"""Pages of a listing: https://cloud.google.com/storage/docs/xml-api/get-bucket-list"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ...files import Page
from .._clock import parse_iso_time
from .._list_page import UnreadablePage, entries_of, text_of, times_of, unescaped, value_of
from .._object_store import ListedPage

_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_TIME = re.compile(rb"<LastModified>([^<]*)</LastModified>")
_SIZE = re.compile(rb"<Size>([0-9]{1,18})</Size>")
_ETAG = re.compile(rb"<ETag>([^<]*)</ETag>")
_IS_TRUNCATED = re.compile(rb"<IsTruncated>\s*(true|false)\s*</IsTruncated>")
_NEXT = re.compile(rb"<NextContinuationToken>([^<]+)</NextContinuationToken>")
_IS_ENCODED = b"<EncodingType>url</EncodingType>"


def page_query(prefix: str, token: str, limit: int | None) -> dict[str, str]:
    """The query for a page. Keys come URL-encoded, since XML cannot carry all characters.

    Args:
        prefix: only keys that begin with it are listed.
        token: the continuation token that the page before has; "" for the first page.
        limit: the most objects on the page; None for as many as Google lists.
    """
    optional = {"prefix": prefix, "continuation-token": token, "max-keys": str(limit or "")}
    return {"list-type": "2", "encoding-type": "url"} | {name: value for name, value in optional.items() if value}


def parse_page(page: bytes) -> ListedPage:
    """Read a page.

    Raises:
        UnreadablePage: this is no page of a listing.
    """
    is_encoded = _IS_ENCODED in page
    keys, sizes, times, etags = list[str](), list[int](), list[bytes](), list[str | None]()
    for entry in entries_of(page, b"Contents", b"ListBucketResult"):
        keys.append(decode_key(value_of(entry, _KEY, "Key"), is_encoded=is_encoded))
        sizes.append(int(value_of(entry, _SIZE, "Size")))
        times.append(value_of(entry, _TIME, "LastModified"))
        etag = _ETAG.search(entry)
        etags.append(text_of(unescaped(etag[1])).strip('"') or None if etag else None)
    return ListedPage(Page(keys, sizes, times_of(times, parse_iso_time), etags), _next_token(page))


def decode_key(value: bytes, *, is_encoded: bool) -> str:
    """Decode a key of a page.

    Raises:
        UnreadablePage: it is empty, or not UTF-8.
    """
    if not value:
        raise UnreadablePage("an object has no name")
    return text_of(unquote_to_bytes(value.replace(b"+", b" ")) if is_encoded else value)


def _next_token(page: bytes) -> str:
    is_truncated = _IS_TRUNCATED.search(page)
    if page.count(b"<IsTruncated") > 1:
        raise UnreadablePage("it has two values of IsTruncated")
    if is_truncated is None:
        raise UnreadablePage("it has no IsTruncated")
    if is_truncated[1] == b"false":
        return ""
    token = _NEXT.search(page)
    if token is None:
        raise UnreadablePage("it has no NextContinuationToken")
    return text_of(unescaped(token[1]))
