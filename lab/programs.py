"""The installed commands, as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from .hosts import Host
from .servers import wait_until

#: Where the commands of this Python's environment are.
BIN = Path(sys.executable).parent


class Program(subprocess.Popen[str]):
    """A command that runs; what it writes goes to a file."""

    def __init__(self, command: list[str], log: Path, cwd: Path, environ: dict[str, str]) -> None:
        self._log = log
        with open(log, "w", encoding="utf-8") as output:
            super().__init__(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, cwd=cwd, env=environ, start_new_session=True
            )

    def said(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def children(self, word: str = "") -> list[psutil.Process]:
        """Its children and theirs that have a word in their command line: there is one."""
        everything = psutil.Process(self.pid).children(recursive=True)
        found = [child for child in everything if word in " ".join(child.cmdline())]
        assert found, [child.cmdline() for child in everything]
        return found


class Programs:
    """Starts the installed commands as processes, and sees that none is left behind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Program] = []

    def start(
        self, *command: str, cwd: Path | None = None, host: Host | None = None, mounts: Mapping[Path, Path] | None = None, **environ: str
    ) -> Program:
        """Start one, maybe on another host, with directories mounted there."""
        log = self._directory / f"said-{len(self._started)}.txt"
        full, environ = [str(BIN / command[0]), *command[1:]], {**os.environ, "PYTHONWARNINGS": "ignore", **environ}
        if host is not None:
            full = host.runs(full, mounts)
        process = Program(full, log, cwd or self._directory, environ)
        self._started.append(process)
        return process

    def run(self, *command: str, cwd: Path | None = None, timeout: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one to its end."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
            cwd=cwd or self._directory, env={**os.environ, "PYTHONWARNINGS": "ignore", **environ},
        )  # fmt: skip

    def worker(
        self,
        *options: str,
        broker: str,
        cwd: Path | None = None,
        host: Host | None = None,
        mounts: Mapping[Path, Path] | None = None,
        **environ: str,
    ) -> Program:
        """Start an upload box, and wait until it serves its queues."""
        environ = {"CELERY_BROKER_URL": broker, **environ}
        command = ("celery", "-A", "autosync", "worker", "--without-gossip", "--without-mingle", "-l", "INFO", *options)
        process = self.start(*command, cwd=cwd, host=host, mounts=mounts, **environ)
        wait_until(lambda: " ready." in process.said() or process.poll() is not None, 30, "the worker is ready")
        return process

    def end(self) -> None:
        """End those that still run."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
