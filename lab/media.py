"""The reference server of the HTTP actor, as a process."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from . import ROOT
from .ports import free_port

EXAMPLES = ROOT / "examples"
SECRET = "secret-of-the-station-that-is-long"


class MediaServer:
    """The reference server, as a process."""

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "secret").write_text(SECRET + "\n")
        self.directory = directory
        self._options = options
        self.port = free_port()
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(EXAMPLES / "media_server.py"), "--port", str(self.port), "--directory", str(self.directory)]
        self.process = subprocess.Popen(
            [*command, "--secret", f"@{self.directory}/secret", *self._options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the server ended; its stderr has the reason"

    def stop(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def empty(self) -> None:
        """Have it run, and have nothing. It is started anew if it is down, or holds what was not sent to its end."""
        with closing(sqlite3.connect(self.directory / "files.sqlite", timeout=30)) as database:
            kept = {name for (name,) in database.execute("SELECT name FROM files")}
            if self.process.poll() is not None or kept != set(self.content()):
                self.stop()
                self.start()
            with database:
                database.execute("DELETE FROM files")
                database.execute("DELETE FROM nonces")
        for name in kept:
            (self.directory / "content" / name).unlink(missing_ok=True)

    def content(self) -> list[str]:
        return [path.name for path in (self.directory / "content").iterdir()]


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[MediaServer]:
    server = MediaServer(directory, *options)
    try:
        yield server
    finally:
        server.stop()
