"""A source file while it is read for an upload: it never gives out the end of a version that did not stand still.

fstat before the first byte and after the last; what was read counts only if nothing differs. Reading also is where a transfer notices
that its worker is being stopped or has lost its claim, and where progress is counted.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol, cast

from ..errors import FileChanged, SourceUnsure
from ..files import File
from .open_writers import is_being_written, is_shared

#: Content that is in memory is given out in blocks of this size, in bytes, or smaller ones.
_BLOCK = 256 << 10


def _nothing(*_: object) -> None:
    pass


class Meter(Protocol):
    """How fast the content of one file may go to the target. Each method may raise what stops the transfer."""

    def block(self, most: int) -> int:
        """How many bytes to give out next, at most so many."""

    def give(self, size: int) -> None:
        """Wait until so many bytes may go."""

    def ask(self) -> None:
        """Wait until one more request may be sent."""

    def refused(self) -> None:
        """The target has asked for fewer requests, and the transfer goes on."""

    def at_once(self, most: int) -> int:
        """How many parts of the file may be on their way at once, at most so many."""


class SourceFile(File):
    """A file to be uploaded. Besides `open`, which suits every target, its parts can be read independently and at the same time.

    Args:
        key: its key.
        descriptor: an open descriptor of it; closed by `close`.
        passing: called with the number of bytes each time some are read. It may raise to stop the transfer.
        begun: called with the token of an upload in parts that the target may hold open from now on, and with the one that it replaces or
            "". It may raise to stop the transfer.
        ended: called with the token of one that it does not hold open any more.
        before: what fstat(2) says of it, if that is known already.

    Attributes:
        signature: what must stay the same while it is read: inode, size, mtime and ctime in nanoseconds.
        meter: where its content may have to go slowly. What is read from `open` and `part` is given out at that pace; who sends what
            `content` gave does so by `at_pace`.
    """

    __slots__ = ("_before", "_begun", "_ended", "descriptor", "meter", "passing", "signature")

    def __init__(
        self,
        key: str,
        descriptor: int,
        passing: Callable[[int], None] = _nothing,
        begun: Callable[[str, str], None] = _nothing,
        ended: Callable[[str], None] = _nothing,
        before: os.stat_result | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.passing = passing
        self._begun = begun
        self._ended = ended
        self._before = before or os.fstat(descriptor)
        self.signature = _signature(self._before)
        self.meter: Meter | None = None
        super().__init__(key, self._before.st_size, self._before.st_mtime)

    @property
    def mtime_ns(self) -> int:
        """Modification time in nanoseconds since the epoch."""
        return self._before.st_mtime_ns

    @property
    def device(self) -> int:
        """Of which file system it is (`st_dev`)."""
        return self._before.st_dev

    def has_writer(self, shared: bool | None = None) -> bool | None:
        """Whether some process of this host can write to it; None if the kernel does not tell.

        To be asked before the first byte is read: write(2) sets the times when it begins, and what is written to mapped memory may set
        none for half a minute (on tmpfs, for ever), so times that stay the same do not tell that nothing changes.

        Args:
            shared: what `open_writers.is_shared` says, if that is known already.
        """
        return is_being_written(self.descriptor, is_shared(self.descriptor) if shared is None else shared)

    def open(self) -> BinaryIO:
        """The content from the start. Its last byte is given out only after `verify`.

        Raises:
            FileChanged: (from reads) the file changed.
            SourceUnsure: (from reads) the share failed.
        """
        return self.part(0, self.size)

    def content(self) -> bytes:
        """All of it, verified; for files that fit in memory. Raises as reading from `open` does."""
        data = self.read_at(0, self.size) if self.size else b""
        if len(data) != self.size:
            with Part(self, 0, self.size, is_metered=False) as source:
                return source.read()
        self.verify()
        return data

    def at_pace(self, content: bytes) -> Iterator[memoryview]:
        """What `content` gave, in blocks, each when it may go. Whether the transfer may go on is asked before each: on a slow line, much
        time passes between the first and the last."""
        view = memoryview(content)
        while view:
            count = min(len(view), _BLOCK)
            if self.meter is not None:
                count = self.meter.block(count)
                self.meter.give(count)
            self.passing(0)
            yield view[:count]
            view = view[count:]

    def wait_for_bandwidth(self, content: bytes) -> None:
        """Wait until `content`, which an actor is going to send as one body, may go. Raises what stops the transfer."""
        for _ in self.at_pace(content):
            pass

    def ask(self) -> None:
        """For actors that send in parts: wait until one more request may be sent than the one that each upload takes."""
        if self.meter is not None:
            self.meter.ask()

    def refused(self) -> None:
        """For actors that try a part again: the target has asked for fewer requests. (Where `upload` raises `SlowDown`, that says it.)"""
        if self.meter is not None:
            self.meter.refused()

    def at_once(self, most: int) -> int:
        """For actors that send in parts: how many of them may be on their way at once."""
        return most if self.meter is None else self.meter.at_once(most)

    def part(self, offset: int, length: int) -> BinaryIO:
        """`length` bytes from `offset`, as a stream with a length. The last byte is given out only after `verify`."""
        return cast(BinaryIO, Part(self, offset, length))

    def begun(self, token: str, instead: str = "") -> None:
        """See `File.begun`."""
        self._begun(token, instead)

    def ended(self, token: str) -> None:
        """See `File.ended`."""
        self._ended(token)

    def verify(self) -> None:
        """Say that what was read until now is one version of the file.

        Raises:
            FileChanged: it is not.
            SourceUnsure: the share cannot tell.
        """
        try:
            after = os.fstat(self.descriptor)
        except OSError as error:
            raise SourceUnsure(f"{self.key}: cannot be read: {error.strerror}") from error
        signature = _signature(after)
        if signature == self.signature:
            return
        # Losing its name changes the ctime alone: what is read is still one version, and the loss of the name is an event of its own.
        if after.st_nlink >= self._before.st_nlink or signature[:3] != self.signature[:3]:
            raise FileChanged(f"{self.key} changed while it was read")

    def forget(self, offset: int, length: int) -> None:
        """Say that what was read of this part was not sent, and that it is read anew. All of this file is held to one version anyhow."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`, which pass.

        Raises:
            FileChanged: there are none, so the file has become shorter.
            SourceUnsure: the share failed.
        """
        data = self.look_at(offset, count)
        self.passing(len(data))
        return data

    def look_at(self, offset: int, count: int) -> bytes:
        """The same, but nothing passes."""
        try:
            data = os.pread(self.descriptor, count, offset)
        except OSError as error:
            raise SourceUnsure(f"{self.key}: cannot be read: {error.strerror}") from error
        if not data and count:
            raise FileChanged(f"{self.key} became shorter while it was read")
        return data

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


class Part(io.RawIOBase):
    """A stretch of a file as a stream, given out at the file's pace unless that is not `is_metered`."""

    def __init__(self, file: SourceFile, offset: int, length: int, *, is_metered: bool = True) -> None:
        self._file = file
        self._meter = file.meter if is_metered else None
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
        if self._meter is not None and size is not None and size >= 0:
            wanted = self._meter.block(wanted)
        if wanted == left and wanted <= (1 << 20):
            return self._last(wanted)
        if wanted == left:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        return self._next(wanted)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _last(self, wanted: int) -> bytes:
        """The end is read whole and given out only if the file stood still until after it was read."""
        pieces = []
        while wanted:
            pieces.append(self._next(wanted))
            wanted -= len(pieces[-1])
        self._before_the_end()
        return b"".join(pieces)

    def _next(self, count: int) -> bytes:
        if self._meter is not None:
            count = self._meter.block(count)
        data = self._file.read_at(self._at, count)
        if self._meter is not None:
            self._meter.give(len(data))
        self._at += len(data)
        return data

    def _before_the_end(self) -> None:
        self._file.verify()


def _signature(seen: os.stat_result) -> tuple[int, int, int, int]:
    return (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
