"""What can be said of a key wherever keys stand in URLs."""

from __future__ import annotations


def is_text(key: str) -> bool:
    """Whether it is UTF-8; names of files need not be, and carry surrogate escapes then (`os.fsdecode`)."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_dots(key: str) -> bool:
    """Whether . or .. is a part of its path. Clients and servers leave such parts out (RFC 3986, 5.2.4), so it would arrive as another."""
    return bool({".", ".."} & {*key.split("/")})
