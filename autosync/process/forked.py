"""A generator in a forked process, so that it needs no time of this process, which runs one Python thread at a time."""

from __future__ import annotations

import fcntl
import gc
import marshal
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from .child import Child, has_one_thread, set_process_title

#: Size of the pipe for items, in bytes. The kernel grants less to users with many pipes.
_PIPE_BYTES = 1 << 20
#: Each item follows its length, which has this many bytes.
_LENGTH_BYTES = 4


class ForkedGenerator:
    """A fork of this process. It calls `find`, then waits for the argument of its generator, then sends the items.

    Make it in the main thread, while that is the only thread (see `try_start`). The value found and the items are of Python's plain types,
    which `marshal` can write. The fork must not use connections of this process.

    Args:
        name: a name for messages and the list of processes.
        work: makes the generator from its argument.
        find: computes the value that `found` returns; None for no such value.
    """

    def __init__(self, name: str, work: Callable[[str], Iterator[Any]], find: Callable[[], Any] | None = None) -> None:
        self._name = name
        self._work = work
        self._find = find
        self._argument_reader, self._argument_writer = os.pipe()
        self._item_reader, self._item_writer = os.pipe()
        with suppress(OSError):
            fcntl.fcntl(self._item_writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._child = Child(name, [sys.executable], inside=self._inside)
        try:
            self._child.start()
        finally:
            os.close(self._argument_reader)
            os.close(self._item_writer)

    @classmethod
    def try_start(cls, name: str, work: Callable[[str], Iterator[Any]], find: Callable[[], Any] | None = None) -> ForkedGenerator | None:
        """Fork this process; None if it has other threads or the system refuses. The arguments are those of the class."""
        if not has_one_thread():
            return None
        try:
            return cls(name, work, find)
        except OSError:
            return None

    def found(self) -> Any:
        """Wait for the value of `find`; call this once, before `items`. None if `find` failed or the process died; it is closed then."""
        with open(self._item_reader, "rb", closefd=False) as stream:
            found = next(_read(stream), None)
        if found is None:
            self.close()
        return found

    def items(self, argument: str) -> Iterator[Any]:
        """The items of the generator for this argument; call this once. If the generator fails or its process dies, the items end early,
        without an error: a generator whose end matters must yield a last item that marks it."""
        try:
            os.write(self._argument_writer, argument.encode("utf-8", "surrogatepass") + b"\0")
            with open(self._item_reader, "rb", buffering=_PIPE_BYTES, closefd=False) as stream:
                yield from _read(stream)
        except BrokenPipeError:
            return
        finally:
            self.close()

    def close(self) -> None:
        """End the process. May be called more than once."""
        if self._argument_writer < 0:
            return
        os.close(self._argument_writer)
        os.close(self._item_reader)
        self._argument_writer = -1
        self._child.end()

    def _inside(self) -> int:
        """Run in the fork."""
        set_process_title([self._name])
        os.close(self._argument_writer)
        os.close(self._item_reader)
        with open(self._item_writer, "wb", buffering=0) as stream, suppress(Exception):
            self._serve(stream.fileno())
        return 0

    def _serve(self, stream: int) -> None:
        if self._find is not None:
            _write(stream, self._find())
            gc.freeze()  # modules loaded for `find` are no garbage
            gc.enable()
        argument = b""
        while not argument.endswith(b"\0"):
            data = os.read(self._argument_reader, 1 << 16)
            if not data:
                return  # the parent has closed this generator
            argument += data
        for item in self._work(argument[:-1].decode("utf-8", "surrogatepass")):
            _write(stream, item)


def _read(stream: BinaryIO) -> Iterator[Any]:
    """The items that `_write` has written, up to the last complete one."""
    while len(length := stream.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
        size = int.from_bytes(length, "little")
        item = stream.read(size)
        if len(item) < size:
            return
        yield marshal.loads(item)  # noqa: S302 - written by a process of ours


def _write(descriptor: int, item: Any) -> None:
    encoded = marshal.dumps(item)
    data = len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded
    while data:
        data = data[os.write(descriptor, data) :]
