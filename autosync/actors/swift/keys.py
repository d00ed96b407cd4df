"""Which keys Swift keeps."""

from __future__ import annotations

from ...errors import PermanentError
from .._names import has_dots, is_text

#: Swift's own limit, in bytes, which few change.
LONGEST_NAME = 1024


def can_be_there(key: str) -> bool:
    """Whether there may be an object of this name, whoever made it."""
    return _refusal(key) is None


def insist_on(key: str) -> None:
    """Say that a key arrives as it is.

    Raises:
        PermanentError: it does not.
    """
    said = _refusal(key)
    if said is None and has_dots(key):
        said = "its path has . or .. as a part, which HTTP leaves out"
    if said is not None:
        raise PermanentError(f"{key!r} cannot be a key in Swift: {said}", "rename the file, or use --source-prefix")


def _refusal(key: str) -> str | None:
    if not key:
        return "it is empty"
    if not is_text(key) or "\0" in key:
        return "it is not UTF-8 without NUL"
    length = len(key.encode())
    return f"it has {length:,} bytes, and {LONGEST_NAME:,} are allowed" if length > LONGEST_NAME else None
