"""What kind of content a file has, as far as its name tells."""

from __future__ import annotations

import mimetypes

_UNKNOWN_TYPE = "application/octet-stream"


def type_of(key: str) -> str:
    """The media type that a name suggests."""
    # Without what is before it, `data:text/plain,…` is taken for a URL that says its type, with any characters in it.
    return mimetypes.guess_type(f"./{key}", strict=False)[0] or _UNKNOWN_TYPE
