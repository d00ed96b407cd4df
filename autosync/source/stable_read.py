"""A file that never rests: what was read of it is one version if it reads the same once more.

Let T be the moment between two readings. Every byte that was found the same before T and after it had that value at T, so what was read is
the file as it stood at T, however often it changed before and after. (Two collects make a snapshot: Afek et al., Atomic Snapshots of
Shared Memory, 1993, part 3. Only a byte that is changed and changed back could deceive.) Nothing written behind the end of what is read
matters, so a recording that grows is sent as far as it had come.
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
    """A file that is being written to, opened anew as it is now. The last byte of the whole is given out only after it was read a second
    time; the parts are given out as they are, and are one version together once `verify` has said so.

    Args:
        file: the same file; its descriptor is used, and stays the other's to close.
    """

    __slots__ = ("_noted", "_proved")

    def __init__(self, file: SourceFile) -> None:
        super().__init__(file.key, file.descriptor, file.passing, file.begun, file.ended)
        self.meter = file.meter
        self._noted: dict[tuple[int, int], bytes] = {}
        self._proved: dict[tuple[int, int], bytes] = {}

    def content(self) -> bytes:
        """See `SourceFile.content`; read twice, by way of the one part that is the whole."""
        with _NotedPart(self, 0, self.size, is_metered=False) as source:
            return source.read()

    def part(self, offset: int, length: int) -> BinaryIO:
        """See `SourceFile.part`; no part waits for the verdict but the one that is the whole file."""
        return cast(BinaryIO, _NotedPart(self, offset, length))

    def verify(self) -> None:
        """Read what was read until now once more.

        Raises:
            FileChanged: some parts have changed; `parts` has their offsets and lengths. They are forgotten, so that they can be read and
                sent again.
            SourceUnsure: the share failed.
        """
        if self._noted == self._proved:
            return
        wait_for_writes(self.descriptor)
        noted = dict(self._noted)
        changed = [piece for piece, digest in noted.items() if self._digest(*piece) != digest]
        if changed:
            for piece in changed:
                del self._noted[piece]
            raise FileChanged(f"{self.key} changed while it was read", parts=changed)
        self._proved = noted

    def note(self, offset: int, length: int, digest: bytes) -> None:
        """Take down what was read there.

        Raises:
            FileChanged: it is not what was read there before, and nobody can say which of the two was sent.
        """
        if self._noted.setdefault((offset, length), digest) != digest:
            raise FileChanged(f"{self.key} changed while it was read")

    def forget(self, offset: int, length: int) -> None:
        """Say that what was read of this part does not count: it was not sent, or whoever puts the parts together knows it from what
        is read of it from now on."""
        self._noted.pop((offset, length), None)

    def _digest(self, offset: int, length: int) -> bytes:
        digest = hashlib.blake2b()
        for data in self._chunks(offset, length):
            digest.update(data)
        return digest.digest()

    def _chunks(self, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        while offset < end:
            data = self.look_at(offset, min(_CHUNK, end - offset))
            self.passing(0)
            offset += len(data)
            yield data


class _NotedPart(Part):
    """Takes the digest of what it gives out."""

    _file: StableReader

    def __init__(self, file: StableReader, offset: int, length: int, *, is_metered: bool = True) -> None:
        super().__init__(file, offset, length, is_metered=is_metered)
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

    def _before_the_end(self) -> None:
        self._file.note(self._start, len(self), self._digest.digest())
        if len(self) == self._file.size:
            self._file.verify()
