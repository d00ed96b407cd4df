"""Ports of loopback that no other process on this machine draws, also if several test runs go on side by side.

A port that the kernel chooses (bind to port 0) is free only until it is released: before the server has bound it, any outgoing
connection may have it. So ports are drawn from below the kernel's ephemeral range, in blocks. A process holds a block by an abstract
unix socket of that block's name (unix(7)): a name can be bound once in a network namespace, and is free when its process has ended,
however that came about. No port is drawn twice in a process, so a server that is down keeps its address.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import threading
from collections.abc import Iterator

#: The drawn ports. Those `TWIN` higher are drawn with them: SeaweedFS listens there too.
_FIRST, _END, _BLOCK = 10_000, 20_000, 50
TWIN = 10_000


class NoPortError(RuntimeError):
    """All blocks are held by processes that run."""


class _Drawn:
    """The ports of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ports: Iterator[int] = iter(())
        self._process = 0

    def draw(self) -> int:
        with self._lock:
            if self._process != os.getpid():  # a fork must not draw what its parent draws
                self._process, self._ports = os.getpid(), iter(())
            while True:
                for port in self._ports:
                    if _is_free(port) and _is_free(port + TWIN):
                        return port
                self._ports = self._next_block()

    def _next_block(self) -> Iterator[int]:
        blocks = list(range(_FIRST, _END, _BLOCK))
        random.shuffle(blocks)  # a client that a dead run has left behind meets nobody
        for first in blocks:
            reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                reservation.bind(f"\0autosync-lab-ports-{first}")
            except OSError as error:
                reservation.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            reservation.detach()  # the kernel closes it when the process ends
            return iter(range(first, first + _BLOCK))
        raise NoPortError(f"all {len(blocks)} blocks of ports are held; the abstract sockets in /proc/net/unix show it")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do; without it, what has ended a minute ago counts
        probe.bind(("", port))
        return True
    return False


_DRAWN = _Drawn()


def free_port() -> int:
    """A port without a listener, as the port `TWIN` higher, that no other caller of this function gets, in any process.

    Raises:
        NoPortError: too many processes hold ports.
    """
    return _DRAWN.draw()
