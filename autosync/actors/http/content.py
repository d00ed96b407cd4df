"""The content of a file, which is read twice: for the digest, which goes ahead of it, and to be sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ...errors import FileChanged
from ...source.source_file import SourceFile
from .signing import as_field

_PIECE = 1 << 20


class SameAgain:
    """The content of a file as a stream with a length. Its end is given out only if all of it has this digest, whatever the times of the
    file say: one that somebody has mapped changes without them.

    Args:
        file: whose content it is.
        digest: what `digest_of` made of the first reading.
    """

    def __init__(self, file: SourceFile, digest: str) -> None:
        self._file = file
        self._digest = digest
        self._source = file.open()
        self._again = hashlib.sha256()
        self._left = file.size

    def __len__(self) -> int:
        """The whole length: requests takes Content-Length from it."""
        return self._file.size

    def __iter__(self) -> Iterator[bytes]:
        """By blocks; requests takes for a stream what has this."""
        return iter(lambda: self.read(_PIECE), b"")

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            FileChanged: the file changed.
            SourceUnsure: the share failed.
        """
        data = self._source.read(size)
        self._again.update(data)
        self._left -= len(data)
        if not self._left and as_field(self._again.digest()) != self._digest:
            raise FileChanged(f"{self._file.key} changed while it was read")
        return data
