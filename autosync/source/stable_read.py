"""A file that never rests: its content is one version if two readings agree.

Let T be the moment between two readings. A byte that was the same before T and after T had that value at T, unless it was changed and
changed back. So the content is that of the file at T, however often the file changed before and after. (Two collects make a snapshot: Afek
et al., Atomic Snapshots of Shared Memory, 1993, part 3.) Writes behind the end of what is read do not matter, so a recording that grows is
sent up to the size that it had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from ..errors import FileChanged
from .open_writers import wait_for_writes
from .source_file import Part, SourceFile

_CHUNK = 1 << 20


class StableReader(SourceFile):
    """A file that is being written to, with its size of now. The last byte of the whole is returned only after a second reading. Parts are
    returned after one reading; together they are one version if `verify` succeeds afterwards.

    Args:
        file: the same file. Its descriptor is used, and closed by `file`.
    """

    __slots__ = ("_digests", "_verified")

    def __init__(self, file: SourceFile) -> None:
        super().__init__(file.key, file.descriptor, file.on_read, file.begun, file.ended)
        self.limiter = file.limiter
        self._digests: dict[tuple[int, int], bytes] = {}
        self._verified: dict[tuple[int, int], bytes] = {}

    def content(self) -> bytes:
        """See `SourceFile.content`; it is read twice."""
        with _DigestedPart(self, 0, self.size, is_limited=False) as source:
            return source.read()

    def part(self, offset: int, length: int) -> BinaryIO:
        """See `SourceFile.part`; only a part that is the whole file is read twice before its last byte is returned."""
        return cast(BinaryIO, _DigestedPart(self, offset, length))

    def verify(self) -> None:
        """Read all parts that were read until now once more.

        Raises:
            FileChanged: some parts have changed; `parts` has their offsets and lengths. They are forgotten, so that they can be read and
                sent again.
            SourceUnsure: the share failed.
        """
        if self._digests == self._verified:
            return
        wait_for_writes(self.descriptor)
        digests = dict(self._digests)
        changed = [part for part, digest in digests.items() if self._digest(*part) != digest]
        if changed:
            for part in changed:
                del self._digests[part]
            raise FileChanged(f"{self.key} changed while it was read", parts=changed)
        self._verified = digests

    def add_digest(self, offset: int, length: int, digest: bytes) -> None:
        """Note the digest of a part that was read.

        Raises:
            FileChanged: an earlier reading of the part had another digest, and either content may have been sent.
        """
        if self._digests.setdefault((offset, length), digest) != digest:
            raise FileChanged(f"{self.key} changed while it was read")

    def discard(self, offset: int, length: int) -> None:
        """Discard what was read of this part: it was not sent, or the target will use only the content that is read from now on."""
        self._digests.pop((offset, length), None)

    def _digest(self, offset: int, length: int) -> bytes:
        digest = hashlib.blake2b()
        for data in self._chunks(offset, length):
            digest.update(data)
        return digest.digest()

    def _chunks(self, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        while offset < end:
            data = self.peek(offset, min(_CHUNK, end - offset))
            self.on_read(0)
            offset += len(data)
            yield data


class _DigestedPart(Part):
    """Computes the digest of its content."""

    _file: StableReader

    def __init__(self, file: StableReader, offset: int, length: int, *, is_limited: bool = True) -> None:
        super().__init__(file, offset, length, is_limited=is_limited)
        self._digest = hashlib.blake2b()
        self._digested = offset

    def _next(self, count: int) -> bytes:
        if self._at == self._start:
            self._digest, self._digested = hashlib.blake2b(), self._start
        if self._at != self._digested:
            raise FileChanged(f"{self._file.key} is being written, and cannot be read out of turn")
        data = super()._next(count)
        self._digest.update(data)
        self._digested = self._at
        return data

    def _verify_end(self) -> None:
        self._file.add_digest(self._start, len(self), self._digest.digest())
        if len(self) == self._file.size:
            self._file.verify()
