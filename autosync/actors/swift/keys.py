"""Checks whether Swift can store a key."""

from __future__ import annotations

from ...errors import PermanentError
from .._key_checks import has_dots, is_text

#: Swift's default limit, in bytes. Few deployments change it.
LONGEST_NAME = 1024


def can_exist(key: str) -> bool:
    """Whether an object of this name may exist in a Swift with the default limits, also one that another program made."""
    return _refusal(key) is None


def is_long(key: str) -> bool:
    """Whether the key is a name in Swift but for its length. A deployment may allow longer names than Swift's default."""
    return bool(key) and is_text(key) and "\0" not in key and len(key.encode()) > LONGEST_NAME


def check_key(key: str) -> None:
    """Check that Swift stores an object under exactly this key.

    Raises:
        PermanentError: Swift does not.
    """
    reason = _refusal(key)
    if reason is None and has_dots(key):
        reason = "its path has . or .. as a part, which HTTP clients remove"
    if reason is not None:
        raise PermanentError(f"{key!r} cannot be a key in Swift: {reason}", "rename the file, or use --source-prefix")


def _refusal(key: str) -> str | None:
    if not key:
        return "it is empty"
    if not is_text(key) or "\0" in key:
        return "it is not UTF-8 without NUL"
    length = len(key.encode())
    return f"it has {length:,} bytes, and {LONGEST_NAME:,} are allowed" if length > LONGEST_NAME else None
