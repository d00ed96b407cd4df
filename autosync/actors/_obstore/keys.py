"""Which keys obstore keeps. Of others it leaves out a slash at an end, or refuses to send or even to list them."""

from __future__ import annotations

import re

#: obstore takes none of the first kind. XML 1.0, in which both targets list, cannot carry the two of the last.
_NEVER = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")


def keeps(key: str) -> bool:
    """Whether obstore writes, lists and deletes an object of exactly this name."""
    framed = f"/{key}/"
    if not key or "//" in framed or "/./" in framed or "/../" in framed or _NEVER.search(key):
        return False
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
