"""URLs of servers: checks of options, and their form in error messages."""

from __future__ import annotations

from urllib.parse import urlsplit

#: Error messages leave out a path of at least this many characters.
_LONGEST_PATH = 200


def is_plain_url(url: str) -> bool:
    """Whether this is an HTTP URL with a host, and without credentials, query and fragment."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment or parts.username)


def public_url(url: str) -> str:
    """A URL for error messages, without user, password, query and fragment; "" if the text is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""
    return origin + (parts.path if len(parts.path) < _LONGEST_PATH else "")
