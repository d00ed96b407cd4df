"""The contents of files: which version one is of can be read off each of its lines."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

_LINE = 64


def content(number: int, size: int) -> bytes:
    """The content of a version: each line says which version it is of, and where it stands, so that a mixture can be read off."""
    lines = (f"{number:08d} {offset:012d} ".encode().ljust(_LINE - 1, b".") + b"\n" for offset in range(0, size, _LINE))
    return b"".join(lines)[:size]


def told(data: bytes) -> str:
    """Which versions a content is made of, for people: runs of lines."""
    numbers = [data[at : at + 8].decode(errors="replace") for at in range(0, len(data), _LINE)]
    runs = [f"{len(list(same))} lines of version {number}" for number, same in itertools.groupby(numbers)]
    return f"{len(data)} bytes: {', '.join(runs[:12]) or 'empty'}"


def digest(data: bytes | bytearray) -> str:
    """The MD5 of a content: what an S3 server gives as the ETag of an object that was sent in one request."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def pieces(data: bytes, count: int) -> Iterator[bytes]:
    """A content in so many pieces, of the same size but for the last."""
    step = max(-(-len(data) // count), 1)
    for at in range(0, len(data), step):
        yield data[at : at + step]
