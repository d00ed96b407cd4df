"""URLs of servers: checks of options, and their form in error messages."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..errors import ConfigurationError

#: Error messages leave out a path of at least this many characters.
_LONGEST_PATH = 200


def check_url(option: str, url: str, example: str) -> None:
    """Check that the value of an option is an HTTP URL with a host, and without credentials, query and fragment.

    Args:
        option: the option's name, with its dashes.
        url: the value. It is not in the error, since it may have a password.
        example: a URL that could be used.

    Raises:
        ConfigurationError: it is not such a URL.
    """
    if not _is_plain(url):
        raise ConfigurationError(f"{option} cannot be used", f"give one like {example}, without credentials")


def public_url(url: str) -> str:
    """A URL for error messages, without user, password, query and fragment; "" if the text is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""
    return origin + (parts.path if len(parts.path) < _LONGEST_PATH else "")


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment or parts.username)
