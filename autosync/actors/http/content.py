"""The body of an upload whose digest, computed by a first reading, was sent before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ...errors import FileChanged
from ...source.source_file import SourceFile
from .signing import digest_header

_BLOCK = 1 << 20


class VerifiedBody:
    """The content of a file as a stream with a length. The last block is returned only if the whole content has the expected digest: a
    file that a process has mapped into memory can change without a change of its times.

    Args:
        file: the file to read.
        digest: the expected digest, as `content_digest` returns it.
    """

    def __init__(self, file: SourceFile, digest: str) -> None:
        self._file = file
        self._digest = digest
        self._source = file.open()
        self._second_digest = hashlib.sha256()
        self._bytes_left = file.size

    def __len__(self) -> int:
        """The whole length in bytes; requests makes Content-Length of it."""
        return self._file.size

    def __iter__(self) -> Iterator[bytes]:
        """The content in blocks. requests streams a body that has this method."""
        return iter(lambda: self.read(_BLOCK), b"")

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            FileChanged: the file changed.
            SourceUnsure: the share failed.
        """
        data = self._source.read(size)
        self._second_digest.update(data)
        self._bytes_left -= len(data)
        if not self._bytes_left and digest_header(self._second_digest.digest()) != self._digest:
            raise FileChanged(f"{self._file.key} changed while it was read")
        return data
