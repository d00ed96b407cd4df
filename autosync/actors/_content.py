"""What can be told of the content of a file: its type, as far as the name says it, and what it is, read for itself."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterator

from ..source.source_file import SourceFile

_UNKNOWN_TYPE = "application/octet-stream"
_PIECE = 1 << 20


def type_of(key: str) -> str:
    """The media type that a name suggests."""
    # Without what is before it, `data:text/plain,…` is taken for a URL that says its type, with any characters in it.
    return mimetypes.guess_type(f"./{key}", strict=False)[0] or _UNKNOWN_TYPE


def pieces(file: SourceFile, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """The content, read for itself: none of it is sent, and it goes at no pace.

    Args:
        file: whose content it is.
        offset: where to begin.
        length: how much of it; None: all.

    Raises:
        FileChanged: the file has become shorter.
        SourceUnsure: the share failed.
    """
    end = file.size if length is None else offset + length
    while offset < end:
        piece = file.look_at(offset, min(_PIECE, end - offset))
        file.passing(0)  # a large file takes long, and the transfer may be stopped meanwhile
        offset += len(piece)
        yield piece


def md5_of(file: SourceFile, offset: int = 0, length: int | None = None) -> str:
    """The MD5 of the content, in hexadecimal digits. Takes and raises what `pieces` does."""
    digest = hashlib.md5(usedforsecurity=False)
    for piece in pieces(file, offset, length):
        digest.update(piece)
    return digest.hexdigest()
