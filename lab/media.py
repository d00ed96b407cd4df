"""The reference server of the HTTP actor, as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import ROOT

EXAMPLES = ROOT / "examples"
SECRET = "secret-of-the-station-that-is-long"


class MediaServer:
    """The reference server, as a process."""

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "secret").write_text(SECRET + "\n")
        self.directory = directory
        self._options = options
        self.port = "0"
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(EXAMPLES / "media_server.py"), "--port", self.port, "--directory", str(self.directory)]
        self.process = subprocess.Popen(
            [*command, "--secret", f"@{self.directory}/secret", *self._options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = self.url.split(":")[2].partition("/")[0]

    def stop(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def content(self) -> list[str]:
        return [path.name for path in (self.directory / "content").iterdir()]


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[MediaServer]:
    server = MediaServer(directory, *options)
    try:
        yield server
    finally:
        server.stop()
