"""Pages of a listing (ListObjectsV2): the query that requests one, and what is read from it.

boto3 takes ten times as long to read a page: it builds a tree of the XML, and dictionaries from that. Here regular expressions extract the
four values that are needed of each object. A page in which not every object has each of them is left to boto3.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_plus
from xml.sax.saxutils import unescape

from ....files import Page
from ..._clock import parse_iso_time

#: The values of each object, as columns: four passes build no tuples, and are faster than one.
_KEY = re.compile(r"<Key>([^<]*)</Key>")
_TIME = re.compile(r"<LastModified>([^<]*)</LastModified>")
_ETAG = re.compile(r"<ETag>(?:&quot;|&#34;|\")?([^<&\"]*)(?:&quot;|&#34;|\")?</ETag>")
_SIZE = re.compile(r"<Size>([0-9]+)</Size>")
_IS_TRUNCATED = re.compile(r"<IsTruncated>\s*(true|false)\s*</IsTruncated>")
_NEXT = re.compile(r"<NextContinuationToken>([^<&]+)</NextContinuationToken>")
_QUOTES = {"&quot;": '"', "&apos;": "'"}
#: Parameters of every request for a page, in the order in which they are signed.
_PARAMETERS = {"encoding-type": "url", "list-type": "2"}


def page_query(prefix: str, token: str) -> str:
    """The canonical query for a page. Keys come URL-encoded, since XML cannot carry control characters.

    Args:
        prefix: of the keys.
        token: the continuation token that the page before contained; "" for the first page.
    """
    first = {"continuation-token": token} if token else {}
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in {**first, **_PARAMETERS, "prefix": prefix}.items())


def next_token(text: str) -> str | None:
    """The continuation token for the next page; None if there is no next page, or the page is not understood."""
    is_truncated, token = _IS_TRUNCATED.search(text), _NEXT.search(text)
    return token[1] if is_truncated is not None and is_truncated[1] == "true" and token is not None else None


def parse_page(text: str) -> Page | None:
    """Read a page.

    Args:
        text: the body of the response.

    Returns:
        The objects; None if not all of the page is understood.
    """
    is_truncated = _IS_TRUNCATED.search(text)
    if is_truncated is None or (is_truncated[1] == "true" and next_token(text) is None) or "</ListBucketResult>" not in text:
        return None
    keys, times, etags, sizes = _KEY.findall(text), _TIME.findall(text), _ETAG.findall(text), _SIZE.findall(text)
    if not text.count("<Contents") == text.count("<Contents>") == len(keys) == len(times) == len(etags) == len(sizes):
        return None
    decoded = _decode_keys(keys, is_url_encoded="<EncodingType>url</EncodingType>" in text)
    if decoded is None or not all(decoded):
        return None
    try:
        return Page(decoded, list(map(int, sizes)), _parse_times(times), [etag or None for etag in etags])
    except ValueError:
        return None


def _decode_keys(keys: list[str], *, is_url_encoded: bool) -> list[str] | None:
    """Undo the escapes of XML, and the URL encoding, if the server supports it. None if there are numeric character references."""
    together = "".join(keys)
    if "&#" in together:
        return None
    if "&" in together:
        keys = [unescape(key, _QUOTES) for key in keys]
    if is_url_encoded and ("%" in together or "+" in together):
        keys = [unquote_plus(key, errors="surrogateescape") for key in keys]
    return keys


def _parse_times(times: list[str]) -> list[float]:
    """Convert ISO 8601 to seconds since the epoch. Many objects of a page have the same time, so each distinct one is parsed once."""
    parsed = {text: parse_iso_time(text) for text in set(times)}
    return [parsed[text] for text in times]
