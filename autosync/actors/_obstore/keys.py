"""Which keys obstore keeps. Of others it leaves out a slash at an end, or refuses to send or even to list them."""

from __future__ import annotations

import re

from .._names import has_dots, is_text

#: obstore takes none of the first kind. XML 1.0, in which both targets list, cannot carry the two of the last.
_NEVER = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")


def keeps(key: str) -> bool:
    """Whether obstore writes, lists and deletes an object of exactly this name."""
    return bool(key) and "//" not in f"/{key}/" and not has_dots(key) and not _NEVER.search(key) and is_text(key)
