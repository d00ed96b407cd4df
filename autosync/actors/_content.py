"""Media type, chunks and MD5 of a file's content."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import posixpath
from collections.abc import Iterator
from functools import lru_cache

from ..source.source_file import SourceFile

_UNKNOWN_TYPE = "application/octet-stream"
_CHUNK = 1 << 20


def guess_content_type(key: str) -> str:
    """The media type that belongs to the suffix of a key."""
    if "." not in key:
        return _UNKNOWN_TYPE
    stem, last = posixpath.splitext(key)
    return _type_of_suffixes(posixpath.splitext(stem)[1] + last)  # the last may be an encoding: `.tar.gz`


@lru_cache(4096)
def _type_of_suffixes(suffixes: str) -> str:
    # With a directory in front, `mimetypes` never reads `data:text/plain,...` as a URL that contains its type.
    return mimetypes.guess_type(f"./x{suffixes}", strict=False)[0] or _UNKNOWN_TYPE


def chunks(file: SourceFile, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Read content to compute something from it. It is not sent, so no bandwidth limit applies.

    Args:
        file: the file to read.
        offset: where to begin, in bytes.
        length: how many bytes to read; None for all.

    Raises:
        FileChanged: the file has become shorter.
        SourceUnsure: the share failed.
    """
    end = file.size if length is None else offset + length
    while offset < end:
        chunk = file.peek(offset, min(_CHUNK, end - offset))
        file.on_read(0)  # raises if the transfer was stopped meanwhile
        offset += len(chunk)
        yield chunk


def md5_of(file: SourceFile, offset: int = 0, length: int | None = None) -> str:
    """The MD5 of content of one version of the file, in hexadecimal digits. Arguments are those of `chunks`.

    Raises:
        FileChanged: the file changed.
        SourceUnsure: the share failed.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks(file, offset, length):
        digest.update(chunk)
    file.verify()
    return digest.hexdigest()


def content_md5(content: bytes) -> str:
    """The value of the header Content-MD5 (RFC 1864) for a body."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
