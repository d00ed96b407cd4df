"""The installed commands, as processes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from .hosts import Host
from .servers import wait_until

#: Where the commands of this Python's environment are.
BIN = Path(sys.executable).parent
#: A variable of the environment by which a program and all its descendants are found; children of autosync inherit its environment.
_MARK = "LAB_PROGRAMS"
#: Where coverage sets one of these, it measures the programs too, and writes what it has when they end in order.
_MEASURING = frozenset(("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"))


class Program(subprocess.Popen[str]):
    """A command that runs; what it writes goes to a file."""

    def __init__(self, command: list[str], log: Path, cwd: Path, environ: dict[str, str]) -> None:
        self._log = log
        with open(log, "w", encoding="utf-8") as output:
            super().__init__(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, cwd=cwd, env=environ, start_new_session=True
            )

    def output(self) -> str:
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
        self._numbers = itertools.count()

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {**os.environ, "PYTHONWARNINGS": "ignore", **more, _MARK: str(self._directory)}

    def start(
        self, *command: str, cwd: Path | None = None, host: Host | None = None, mounts: Mapping[Path, Path] | None = None, **environ: str
    ) -> Program:
        """Start one, maybe on another host, with directories mounted there."""
        log = self._directory / f"output-{next(self._numbers)}.txt"
        full = [str(BIN / command[0]), *command[1:]]
        if host is not None:
            full = host.runs(full, mounts)
        process = Program(full, log, cwd or self._directory, self._environment(environ))
        self._started.append(process)
        return process

    def run(self, *command: str, cwd: Path | None = None, timeout: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one to its end."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
            cwd=cwd or self._directory, env=self._environment(environ),
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
        wait_until(lambda: " ready." in process.output() or process.poll() is not None, 30, "the worker is ready")
        return process

    def stop(self) -> None:
        """Ask all to end in order, as an operator would, and wait until they have.

        Raises:
            subprocess.TimeoutExpired: one has not.
        """
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._started:
            process.wait(60)

    def end(self) -> None:
        """Kill what still runs, with all children: a test of an end in order has waited for that end itself.

        Raises:
            AssertionError: a program had ended before, and left a process behind.
        """
        if not _MEASURING.isdisjoint(os.environ):
            with suppress(subprocess.TimeoutExpired):  # then nothing is measured of it
                self.stop()
        try:
            wait_until(lambda: not self._orphans(), 20, "no process outlives the program that started it")
        except AssertionError as error:
            raise AssertionError(f"left behind: {self._orphans()}") from error
        finally:
            wait_until(self._all_killed, 20, "nothing runs any more")
            for process in self._started:
                process.wait()

    def _all_killed(self) -> bool:
        """Whether nothing runs any more. What does is killed, the programs first, since some start a dead child again."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
        running = self._running()
        for one in running:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        return not running

    def _running(self) -> list[psutil.Process]:
        """The processes that were started here, and all that descend from them, also where a parent is gone by now. A zombie is none."""
        mark, found = f"{_MARK}={self._directory}".encode(), []
        for pid in psutil.pids():
            with suppress(OSError, psutil.NoSuchProcess):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(pid))
        return found

    def _orphans(self) -> list[psutil.Process]:
        """Those that do not descend from a program that still runs."""
        alive = {process.pid for process in self._started if process.poll() is None}
        found = []
        for one in self._running():
            with suppress(psutil.NoSuchProcess):
                if not alive.intersection({one.pid, *(parent.pid for parent in one.parents())}):
                    found.append(one)
        return found
