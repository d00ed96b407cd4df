"""A source file while it is read for an upload: it never gives out the end of a version that did not stand still.

fstat before the first byte and after the last; what was read counts only if nothing differs. Reading also is where a transfer notices
that its worker is being stopped or has lost its claim, and where progress is counted.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from .errors import SourceUnsure, Torn
from .files import File

#: A single write(2) has ended after this time, in seconds.
_LONGEST_WRITE = 1.0
#: A file up to this size, in bytes, is read twice, with so many seconds in between, if it never rests.
_READ_TWICE, _MOMENT = 8 << 20, 0.05


def _nothing(what: object) -> None:
    pass


class SourceFile(File):
    """A file to be uploaded. Besides `open`, which suits every target, its parts can be read independently and at the same time.

    Args:
        key: its key.
        descriptor: an open descriptor of it; closed by `close`.
        passing: called with the number of bytes each time some are read. It may raise to stop the transfer.
        begun: called with the token of an upload in parts that the target holds open from now on. It may raise to stop the transfer.
        ended: called with the token of one that it does not hold open any more.
    """

    __slots__ = ("_before", "_begun", "_descriptor", "_ended", "_passing")

    def __init__(
        self,
        key: str,
        descriptor: int,
        passing: Callable[[int], None] = _nothing,
        begun: Callable[[str], None] = _nothing,
        ended: Callable[[str], None] = _nothing,
    ) -> None:
        self._descriptor = descriptor
        self._passing = passing
        self._begun = begun
        self._ended = ended
        self._before = os.fstat(descriptor)
        super().__init__(key, self._before.st_size, self._before.st_mtime)

    @property
    def signature(self) -> tuple[int, int, int, int]:
        """What must stay the same while it is read: inode, size, mtime and ctime in nanoseconds."""
        return _signature(self._before)

    @property
    def mtime_ns(self) -> int:
        """Modification time in nanoseconds since the epoch."""
        return self._before.st_mtime_ns

    def stands_still(self, is_being_written: Callable[[int], bool | None]) -> bool:
        """Whether no write can be under way that began before this file was first looked at. write(2) sets the times when it begins, so
        times that stay the same do not tell of one that is going on: nobody may have the file open for writing, or its last change must
        be older than any write takes. To be asked before the first byte is read.

        Args:
            is_being_written: asks the kernel about a descriptor; None if it does not tell.
        """
        return is_being_written(self._descriptor) is False or time.time() - self._before.st_ctime > _LONGEST_WRITE

    def reads_the_same_twice(self) -> bool:
        """Whether a small file that never rests has the same content now and a moment later, so that no write is half done. A large one is
        taken to; while it is read, its times tell of any write that begins."""
        if self.size > _READ_TWICE:
            return True
        first = self._digest()
        time.sleep(_MOMENT)
        return self._digest() == first

    def _digest(self) -> bytes:
        with self.open() as content:
            return hashlib.file_digest(content, "blake2b").digest()  # type: ignore[arg-type]

    def open(self) -> BinaryIO:
        """The content from the start. Its last byte is given out only after `verify`.

        Raises:
            Torn: (from reads) the file changed.
            SourceUnsure: (from reads) the share failed.
        """
        return self.part(0, self.size)

    def part(self, offset: int, length: int) -> BinaryIO:
        """`length` bytes from `offset`, as a stream with a length. The last byte is given out only after `verify`."""
        return cast(BinaryIO, _Part(self, offset, length))

    def begun(self, token: str) -> None:
        """See `File.begun`."""
        self._begun(token)

    def ended(self, token: str) -> None:
        """See `File.ended`."""
        self._ended(token)

    def verify(self) -> None:
        """Say that what was read until now is one version of the file.

        Raises:
            Torn: it is not.
            SourceUnsure: the share cannot tell.
        """
        try:
            after = os.fstat(self._descriptor)
        except OSError as error:
            raise SourceUnsure(f"{self.key}: cannot be read: {error.strerror}") from error
        # Losing its name changes the ctime alone: what is read is still one version, and the loss of the name is an event of its own.
        renamed_over = after.st_nlink < self._before.st_nlink and _signature(after)[:3] == self.signature[:3]
        if _signature(after) != self.signature and not renamed_over:
            raise Torn(f"{self.key} changed while it was read")

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`.

        Raises:
            Torn: there are none, so the file has become shorter.
            SourceUnsure: the share failed.
        """
        try:
            data = os.pread(self._descriptor, count, offset)
        except OSError as error:
            raise SourceUnsure(f"{self.key}: cannot be read: {error.strerror}") from error
        if not data and count:
            raise Torn(f"{self.key} became shorter while it was read")
        self._passing(len(data))
        return data

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class _Part(io.RawIOBase):
    def __init__(self, file: SourceFile, offset: int, length: int) -> None:
        self._file = file
        self._start = self._at = offset
        self._end = offset + length

    def __len__(self) -> int:
        """The whole length: HTTP clients take their Content-Length from it."""
        return self._end - self._start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = min(max(base + offset, self._start), self._end)
        return self.tell()

    def read(self, size: int | None = -1) -> bytes:
        left = self._end - self._at
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted == left and wanted <= (1 << 20):
            return self._last(wanted)
        if wanted == left:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        data = self._file.read_at(self._at, wanted)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _last(self, wanted: int) -> bytes:
        """The end is read whole and given out only if the file stood still until after it was read."""
        pieces = []
        while wanted:
            data = self._file.read_at(self._at, wanted)
            pieces.append(data)
            self._at += len(data)
            wanted -= len(data)
        self._file.verify()
        return b"".join(pieces)


def _signature(seen: os.stat_result) -> tuple[int, int, int, int]:
    return (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
