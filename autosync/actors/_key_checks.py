"""Checks of keys that several actors share."""

from __future__ import annotations

from ..errors import PermanentError


def is_text(key: str) -> bool:
    """Whether a key is UTF-8. Names of files need not be, and contain surrogate escapes then (`os.fsdecode`)."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_dots(key: str) -> bool:
    """Whether a path segment of the key is . or .., which HTTP clients and servers remove (RFC 3986, 5.2.4)."""
    return bool({".", ".."} & {*key.split("/")})


def path_segments(key: str) -> list[str]:
    """Split a key into the names of its directories and its file; the last is the file's.

    Raises:
        PermanentError: no file can have this key as its path.
    """
    segments = [segment for segment in key.split("/") if segment]
    if not segments or "\0" in key or {".", ".."}.intersection(segments) or key.endswith("/"):
        raise PermanentError(f"{key!r} cannot be the name of a file")
    return segments
