"""Pages of a listing (ListObjectsV2): the query that requests one, and what is read from it.

Regular expressions extract the four values that are needed of each object. A page in which they do not find each of them for every object
is read by expat (`list_xml`), which takes ten times as long.
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
_REFERENCE = re.compile(r"&(?:#x([0-9A-Fa-f]{1,6})|#([0-9]{1,7})|(amp|lt|gt|quot|apos));")
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
#: How often the name of an element is in a page that has the element once; where an XML declaration begins and ends at the latest.
_TAGS, _DECLARATION, _HEAD = 2, 8, 128
#: Parameters of every request for a page, in the order in which they are signed.
_PARAMETERS = {"encoding-type": "url", "list-type": "2"}


def page_query(prefix: str, token: str) -> str:
    """The canonical query for a page. Keys come URL-encoded, since XML cannot carry control characters.

    Args:
        prefix: only keys that begin with it are listed.
        token: the continuation token that the page before contained; "" for the first page.
    """
    first = {"continuation-token": token} if token else {}
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in {**first, **_PARAMETERS, "prefix": prefix}.items())


def any_page(text: str) -> Page:
    """Read a page, in whatever form.

    Raises:
        ResponseError: it is not a page of a listing, or not all of it is there.
    """
    page = parse_page(text)
    if page is None:
        from .list_xml import parse_xml

        return parse_xml(text).page
    return page


def token_after(text: str) -> str | None:
    """The continuation token for the next page, of a page in whatever form; None if there is no next page.

    Raises:
        ResponseError: it is not a page of a listing, or not all of it is there.
    """
    is_truncated = _is_truncated(text)
    if is_truncated is False:
        return None
    token = _NEXT.search(text) if is_truncated and text.count("NextContinuationToken") == _TAGS else None
    if token is None:
        from .list_xml import parse_xml

        return parse_xml(text).token
    return token[1]


def next_token(text: str) -> str | None:
    """The continuation token for the next page; None if there is no next page, or the page has to be read by expat."""
    is_truncated, token = _is_truncated(text), _NEXT.search(text)
    return token[1] if is_truncated and token is not None else None


def parse_page(text: str) -> Page | None:
    """Read a page.

    Args:
        text: the body of the response.

    Returns:
        The objects; None if the page has to be read by expat.
    """
    is_truncated = _is_truncated(text)
    if is_truncated is None or (is_truncated and _NEXT.search(text) is None) or "</ListBucketResult>" not in text:
        return None
    keys, times, etags, sizes = _KEY.findall(text), _TIME.findall(text), _ETAG.findall(text), _SIZE.findall(text)
    if not text.count("<Contents") == text.count("<Contents>") == len(keys) == len(times) == len(etags) == len(sizes):
        return None
    try:
        decoded = _decode_keys(keys, is_url_encoded="<EncodingType>url</EncodingType>" in text)
        return Page(decoded, list(map(int, sizes)), _parse_times(times), [etag or None for etag in etags]) if all(decoded) else None
    except (ValueError, OverflowError):
        return None


def _is_truncated(text: str) -> bool | None:
    """Whether a page follows; None if expat has to read this one: it has comments, or the like, in which regular expressions find tags."""
    found = _IS_TRUNCATED.search(text)
    if found is None or text.count("IsTruncated") != _TAGS:
        return None
    # One character is found in a fiftieth of the time of two.
    if text.find("<?", _DECLARATION, _HEAD + 1) >= 0 or (text.find("?", _HEAD) >= 0 and text.find("<?", _HEAD) >= 0):
        return None
    if "!" in text and "<!" in text:
        return None
    return found[1] == "true"


def _decode_keys(keys: list[str], *, is_url_encoded: bool) -> list[str]:
    """Undo the escapes of XML, and the URL encoding, if the server supports it."""
    together = "".join(keys)
    if "&#" in together:
        keys = [_REFERENCE.sub(_character, key) for key in keys]
    elif "&" in together:
        keys = [unescape(key, _QUOTES) for key in keys]
    if is_url_encoded and ("%" in together or "+" in together):
        keys = [unquote_plus(key, errors="surrogateescape") for key in keys]
    return keys


def _character(reference: re.Match[str]) -> str:
    """The character of a reference. Some servers so write control characters, which XML 1.0 forbids and expat refuses."""
    hexadecimal, decimal, name = reference.groups()
    return _NAMED[name] if name else chr(int(hexadecimal, 16) if hexadecimal else int(decimal))


def _parse_times(times: list[str]) -> list[float]:
    """Convert ISO 8601 to seconds since the epoch. Many objects of a page have the same time, so each distinct one is parsed once."""
    parsed = {text: parse_iso_time(text) for text in set(times)}
    return [parsed[text] for text in times]
