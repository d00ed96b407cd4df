"""Reads a page of a listing. A page with anything unexpected is an error, never a shorter listing."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from ...errors import TargetError
from ...files import Page


class ListingPage(NamedTuple):
    """A page, whether the listing is sorted, and the cursor of the next page, or None for the last page."""

    page: Page
    is_sorted: bool
    next: str | None


def parse_page(content: bytes, url: str) -> ListingPage:
    """Read one page.

    Args:
        content: body of the response. JSON is UTF-8 (RFC 8259, 8.1), whatever a header says.
        url: the server's URL, for error messages.

    Raises:
        TargetError: the page does not have the specified form.
    """
    try:
        found = json.loads(content.decode())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("files"), list):
        raise TargetError(f"the listing at {url} is no JSON object with files")
    after = found.get("next")
    if after is not None and not isinstance(after, str):
        raise TargetError(f"the listing at {url}: next is {after!r}, and neither text nor null")
    page = Page([], [], [], [])
    for one in found["files"]:
        try:
            _append_file(page, one)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise TargetError(f"the listing at {url} has a file that is not understood: {type(error).__name__}: {error}") from error
    return ListingPage(page, found.get("sorted") is True, after or None)


def _append_file(page: Page, one: dict[str, Any]) -> None:
    key, size, changed, digest = one["key"], one["size"], one.get("mtime"), one.get("digest")
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is no text")
    key.encode()  # raises ValueError for half of a surrogate pair
    if type(size) is not int or size < 0:
        raise TypeError(f"the size {size!r} of {key!r} is no number of bytes")
    if changed is not None and (type(changed) not in (int, float) or not math.isfinite(changed)):
        raise TypeError(f"the mtime {changed!r} of {key!r} is no number of seconds")
    if digest is not None and not isinstance(digest, str):
        raise TypeError(f"the digest {digest!r} of {key!r} is no text")
    page.keys.append(key)
    page.sizes.append(size)
    page.times.append(float(changed or 0.0))
    page.etags.append(digest)
