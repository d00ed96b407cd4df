"""A source file while it is read for an upload: the last byte of a file that changes meanwhile is never returned.

fstat(2) is called before the first byte is read and after the last; the content counts only if both agree. Each read also counts progress,
and ends a transfer whose worker is being stopped or has lost its claim.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol, cast

from ..errors import FileChanged, SourceUnsure
from ..files import File
from .open_writers import is_being_written, is_shared

#: Content in memory is sent in blocks of this size, in bytes, or smaller ones.
_BLOCK = 256 << 10


def _nothing(*_: object) -> None:
    pass


class Limiter(Protocol):
    """The limits of the target, for one file. Each method may raise an error that ends the transfer."""

    def block_size(self, most: int) -> int:
        """How many bytes to send next, at most `most`."""

    def wait_for_bytes(self, size: int) -> None:
        """Wait until a number of bytes may be sent."""

    def wait_for_request(self) -> None:
        """Wait until one more request may be sent."""

    def slow_down(self) -> None:
        """Slow down: the target demands fewer requests. The transfer goes on."""

    def max_parts(self, most: int) -> int:
        """How many parts of the file may be in flight at once, at most `most`."""


class SourceFile(File):
    """A file to be uploaded. Besides `open`, which suits every target, its parts can be read independently and at the same time.

    Args:
        key: the key of the file.
        descriptor: an open descriptor of it; closed by `close`.
        on_read: called after each read with the number of bytes. An error that it raises ends the transfer.
        begun: called with the token of an upload in parts that the target may hold open from now on, and with the token that it replaces,
            or "". An error that it raises ends the transfer.
        ended: called with the token of an upload that the target does not hold open any more.
        before: the result of fstat(2), if it was called already.

    Attributes:
        signature: inode, size, and mtime and ctime in nanoseconds; they must stay the same while the file is read.
        limiter: the limits of the target; None: there are none. Reads from `open` and `part` keep to them. Content in memory is sent by
            `limited_blocks`, or after `wait_for_bandwidth`.
    """

    __slots__ = ("_before", "_begun", "_ended", "descriptor", "limiter", "on_read", "signature")

    def __init__(
        self,
        key: str,
        descriptor: int,
        on_read: Callable[[int], None] = _nothing,
        begun: Callable[[str, str], None] = _nothing,
        ended: Callable[[str], None] = _nothing,
        before: os.stat_result | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.on_read = on_read
        self._begun = begun
        self._ended = ended
        self._before = before or os.fstat(descriptor)
        self.signature = _signature(self._before)
        self.limiter: Limiter | None = None
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
        """Whether some process of this host can write to it; None: the kernel does not provide that.

        Call it before the first byte is read: write(2) sets the times when it begins, and a write to mapped memory may set no time for half
        a minute (on tmpfs, never). So a file may change while its times stay the same.

        Args:
            shared: the result of `open_writers.is_shared`, if it was called already.
        """
        return is_being_written(self.descriptor, is_shared(self.descriptor) if shared is None else shared)

    def open(self) -> BinaryIO:
        """The content from the start. Its last byte is returned only after `verify`.

        Raises:
            FileChanged: (from reads) the file changed.
            SourceUnsure: (from reads) the share failed.
        """
        return self.part(0, self.size)

    def content(self) -> bytes:
        """All of it, verified; for files that fit in memory. Raises as reading from `open` does."""
        data = self.read_at(0, self.size) if self.size else b""
        if len(data) != self.size:
            with Part(self, 0, self.size, is_limited=False) as source:
                return source.read()
        self.verify()
        return data

    def limited_blocks(self, content: bytes) -> Iterator[memoryview]:
        """The result of `content` in blocks, each when it may be sent. Before each, `on_read` may end the transfer: on a slow line, much
        time passes between the first block and the last."""
        view = memoryview(content)
        while view:
            count = min(len(view), _BLOCK)
            if self.limiter is not None:
                count = self.limiter.block_size(count)
                self.limiter.wait_for_bytes(count)
            self.on_read(0)
            yield view[:count]
            view = view[count:]

    def wait_for_bandwidth(self, content: bytes) -> None:
        """Wait until `content`, which an actor is going to send as one body, may go. Raises what stops the transfer."""
        for _ in self.limited_blocks(content):
            pass

    def wait_for_request(self) -> None:
        """For actors that send in parts: wait until one more request may be sent, besides the one request that each upload has."""
        if self.limiter is not None:
            self.limiter.wait_for_request()

    def slow_down(self) -> None:
        """For actors that retry a part: slow down, since the target demands fewer requests. (`SlowDown` does so for `upload`.)"""
        if self.limiter is not None:
            self.limiter.slow_down()

    def max_parts(self, most: int) -> int:
        """For actors that send in parts: how many parts may be in flight at once, at most `most`."""
        return most if self.limiter is None else self.limiter.max_parts(most)

    def part(self, offset: int, length: int) -> BinaryIO:
        """`length` bytes from `offset`, as a stream with a length. The last byte is returned only after `verify`."""
        return cast(BinaryIO, Part(self, offset, length))

    def begun(self, token: str, instead: str = "") -> None:
        """See `File.begun`."""
        self._begun(token, instead)

    def ended(self, token: str) -> None:
        """See `File.ended`."""
        self._ended(token)

    def verify(self) -> None:
        """Check that all that was read until now is one version of the file.

        Raises:
            FileChanged: it is not.
            SourceUnsure: the share failed.
        """
        try:
            after = os.fstat(self.descriptor)
        except OSError as error:
            raise SourceUnsure(f"{self.key}: cannot be read: {error.strerror}") from error
        signature = _signature(after)
        if signature == self.signature:
            return
        # The loss of a name changes the ctime alone: the content is still one version, and the loss of the name is an event of its own.
        if after.st_nlink >= self._before.st_nlink or signature[:3] != self.signature[:3]:
            raise FileChanged(f"{self.key} changed while it was read")

    def discard(self, offset: int, length: int) -> None:
        """Discard what was read of this part: it was not sent, and is read again. Nothing to do: `verify` covers the whole file."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`. Calls `on_read`.

        Raises:
            FileChanged: there are none, so the file has become shorter.
            SourceUnsure: the share failed.
        """
        data = self.peek(offset, count)
        self.on_read(len(data))
        return data

    def peek(self, offset: int, count: int) -> bytes:
        """Like `read_at`, but does not call `on_read`."""
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
    """A part of a file as a stream. `is_limited`: reads keep to the file's limits."""

    def __init__(self, file: SourceFile, offset: int, length: int, *, is_limited: bool = True) -> None:
        self._file = file
        self._limiter = file.limiter if is_limited else None
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
        if self._limiter is not None and size is not None and size >= 0:
            wanted = self._limiter.block_size(wanted)
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
        """The end. It is read whole, and returned only if the file has not changed until then."""
        pieces = []
        while wanted:
            pieces.append(self._next(wanted))
            wanted -= len(pieces[-1])
        self._verify_end()
        return b"".join(pieces)

    def _next(self, count: int) -> bytes:
        if self._limiter is not None:
            count = self._limiter.block_size(count)
        data = self._file.read_at(self._at, count)
        if self._limiter is not None:
            self._limiter.wait_for_bytes(len(data))
        self._at += len(data)
        return data

    def _verify_end(self) -> None:
        self._file.verify()


def _signature(seen: os.stat_result) -> tuple[int, int, int, int]:
    return (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
