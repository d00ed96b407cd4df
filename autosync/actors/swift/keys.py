"""Which keys Swift keeps."""

from __future__ import annotations

from ...errors import PermanentError
from .._names import has_dots, is_text

#: Swift's own limit, in bytes, which few change.
LONGEST_NAME = 1024


def can_be_there(key: str) -> bool:
    """Whether there may be an object of this name, whoever made it."""
    return _refusal(key) is None


def check_key(key: str) -> None:
    """Check that Swift stores an object under exactly this key.

    Raises:
        PermanentError: it does not.
    """
    reason = _refusal(key)
    if reason is None and has_dots(key):
        reason = "its path has . or .. as a part, which HTTP leaves out"
    if reason is not None:
        raise PermanentError(f"{key!r} cannot be a key in Swift: {reason}", "rename the file, or use --source-prefix")


def _refusal(key: str) -> str | None:
    if not key:
        return "it is empty"
    if not is_text(key) or "\0" in key:
        return "it is not UTF-8 without NUL"
    length = len(key.encode())
    return f"it has {length:,} bytes, and {LONGEST_NAME:,} are allowed" if length > LONGEST_NAME else None
