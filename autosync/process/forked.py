"""Work in a process of its own, so that it takes no time from the threads of this one, of which Python runs one at a time."""

from __future__ import annotations

import fcntl
import gc
import marshal
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from .child import Child, call_itself, has_one_thread

#: What the pipe holds before the other process has to wait, in bytes; the kernel gives less to users who have many.
_ROOM = 1 << 20
#: In front of each item stands its length, in so many bytes.
_LENGTH = 4


class ForkedGenerator:
    """A fork of this process, made at once. It finds something out, if it is to, and then waits until the items of its generator are asked
    for.

    To be made by the main thread, while it is the only one (see `stands_by`). What is found and what is yielded is of Python's plain types,
    which `marshal` can write. Connections that this process has are not the other's to use.

    Args:
        name: for messages, and in the list of processes.
        work: makes the generator of one argument.
        find: finds something out, which is asked for (`found`) before the items are.
    """

    def __init__(self, name: str, work: Callable[[str], Iterator[Any]], find: Callable[[], Any] | None = None) -> None:
        self._name = name
        self._work = work
        self._find = find
        self._asked, self._ask = os.pipe()
        self._told, self._tell = os.pipe()
        with suppress(OSError):
            fcntl.fcntl(self._tell, fcntl.F_SETPIPE_SZ, _ROOM)
        self._child = Child(name, [sys.executable], inside=self._inside)
        try:
            self._child.start()
        finally:
            os.close(self._asked)
            os.close(self._tell)

    @classmethod
    def stands_by(cls, name: str, work: Callable[[str], Iterator[Any]], find: Callable[[], Any] | None = None) -> ForkedGenerator | None:
        """One of these, or None where this process cannot be forked any more, or has no room for it."""
        if not has_one_thread():
            return None
        try:
            return cls(name, work, find)
        except OSError:
            return None

    def found(self) -> Any:
        """What was found out, once; waits for it. None if that failed, or the process died: it does nothing more then."""
        with open(self._told, "rb", closefd=False) as told:
            found = next(_read(told), None)
        if found is None:
            self.close()
        return found

    def items(self, argument: str) -> Iterator[Any]:
        """What the generator yields for this argument, once. It ends early, without an error, if the generator fails or
        its process dies: whoever has to know ends what is yielded with something that says so."""
        try:
            os.write(self._ask, argument.encode("utf-8", "surrogatepass") + b"\0")
            with open(self._told, "rb", buffering=_ROOM, closefd=False) as told:
                yield from _read(told)
        except BrokenPipeError:
            return
        finally:
            self.close()

    def close(self) -> None:
        """End the process. May be said more than once."""
        if self._ask < 0:
            return
        os.close(self._ask)
        os.close(self._told)
        self._ask = -1
        self._child.end()

    def _inside(self) -> int:
        """What the other process does."""
        call_itself([self._name])
        os.close(self._ask)
        os.close(self._told)
        with open(self._tell, "wb", buffering=0) as told, suppress(Exception):
            self._answer(told.fileno())
        return 0

    def _answer(self, told: int) -> None:
        if self._find is not None:
            _write(told, self._find())
            gc.freeze()  # what was loaded for that is no garbage
            gc.enable()
        argument = b""
        while not argument.endswith(b"\0"):
            data = os.read(self._asked, 1 << 16)
            if not data:
                return  # nobody will ask any more
            argument += data
        for item in self._work(argument[:-1].decode("utf-8", "surrogatepass")):
            _write(told, item)


def _read(told: BinaryIO) -> Iterator[Any]:
    """What `_write` has written, as far as it is whole."""
    while len(length := told.read(_LENGTH)) == _LENGTH:
        size = int.from_bytes(length, "little")
        item = told.read(size)
        if len(item) < size:
            return
        yield marshal.loads(item)  # noqa: S302 - written by a process of ours


def _write(descriptor: int, item: Any) -> None:
    written = marshal.dumps(item)
    data = len(written).to_bytes(_LENGTH, "little") + written
    while data:
        data = data[os.write(descriptor, data) :]
