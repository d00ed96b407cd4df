"""In what parts large files go up."""

from __future__ import annotations

from collections.abc import Iterator

from ..._parts import Piece

#: Size of the parts; S3 allows 10,000 of them, so very large files have larger ones.
PART = 8 << 20
_MOST_PARTS = 10_000


def pieces_of(size: int) -> Iterator[Piece]:
    """Offset and length of the parts of a file of this size."""
    most = -(-size // _MOST_PARTS)
    step = max(PART, -(-most // (1 << 20)) << 20)
    for offset in range(0, size, step):
        yield offset, min(step, size - offset)
