"""The contents of files. Each line of a file contains its version."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

_LINE = 64


def content(number: int, size: int) -> bytes:
    """The content of a version. Each line has the number of the version and its own offset, so that a mixture can be recognized."""
    lines = (f"{number:08d} {offset:012d} ".encode().ljust(_LINE - 1, b".") + b"\n" for offset in range(0, size, _LINE))
    return b"".join(lines)[:size]


def describe(data: bytes) -> str:
    """The versions in a content, as runs of lines, for messages."""
    numbers = [data[at : at + 8].decode(errors="replace") for at in range(0, len(data), _LINE)]
    runs = [f"{len(list(same))} lines of version {number}" for number, same in itertools.groupby(numbers)]
    return f"{len(data)} bytes: {', '.join(runs[:12]) or 'empty'}"


def digest(data: bytes | bytearray) -> str:
    """The MD5 of a content, which is the ETag of an S3 object that was sent in one request."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def chunks(data: bytes, count: int) -> Iterator[bytes]:
    """A content in `count` chunks of the same size, except for the last."""
    step = max(-(-len(data) // count), 1)
    for at in range(0, len(data), step):
        yield data[at : at + step]
