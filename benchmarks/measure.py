"""A command as a whole process tree: wall seconds, CPU seconds, and for each process its name, CPU and peak resident memory.

What is read is /proc, every 50 ms, and the kernel's account at the end of a process (wait4(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

#: How often /proc is read, in seconds. VmHWM is a high-water mark, so only growth in a process's last moment is missed.
POLL = 0.05
#: A program that has just started is polled more often: it may end within POLL.
_YOUNG = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
_SET_CHILD_SUBREAPER = 36  # prctl(2)
_NICE_END = 30.0


@dataclass
class Use:
    """What one process used: `cpu` in seconds (its own threads, not its children), `peak` and `resident` in bytes."""

    name: str
    cpu: float = 0.0
    peak: int = 0
    resident: int = 0


@dataclass
class Measured:
    """What a command used: `wall` and `cpu` in seconds, of all its processes together; `status` as of Popen; `output`: its first error and
    its last words."""

    wall: float
    cpu: float
    status: int
    processes: list[Use] = field(default_factory=list)
    output: str = ""


def name_of(words: Sequence[str]) -> str:
    """What people call a program, from its command line: "celery worker" and not "python3"."""
    if not words or not words[0]:
        return "?"
    words = [*words[0].split(" "), *words[1:]]  # some programs write their title over their first word
    name = os.path.basename(words[0].rstrip(":"))
    if not name.startswith("python"):
        return "celery worker" if name == "celery" and "worker" in words else name
    rest = list(words[1:])
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
        del rest[: 2 if rest[0] in ("-W", "-X") else 1]
    if not rest or rest[0] == "-c":
        return "python"
    if rest[0] == "-m":
        rest = rest[1:]
    name = os.path.basename(rest[0]).removesuffix(".py")
    return "celery worker" if name == "celery" and "worker" in rest else name


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used by now, without its children.

    Raises:
        OSError: there is no such process.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent has died, so that what they used can be counted and none is left behind."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Running:
    """A command that runs, with all its descendants. Ends with the with-block at the latest.

    Args:
        command: program and arguments.
        environ: its whole environment.
        directory: where it runs.
        log: where what it writes goes.
    """

    def __init__(self, command: Sequence[str], *, environ: Mapping[str, str], directory: Path, log: Path) -> None:
        adopt_orphans()
        self._log = log
        self.pid = 0
        self.uses: dict[int, Use] = {}
        self._seen: set[str] = set(os.listdir("/proc"))
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._measured: Measured | None = None
        self._began = time.monotonic()
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                command, env=dict(environ), cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.pid = self._process.pid
        self.uses[self.pid] = Use(name_of(command))
        self._poller = threading.Thread(target=self._poll, name="bench-poll", daemon=True)
        self._poller.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def output(self) -> str:
        """All that it has written."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def has_ended(self) -> bool:
        """Whether the command itself, not each of its descendants, has ended. Leaves it for `wait` to collect."""
        return self._measured is not None or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def now(self) -> dict[int, Use]:
        """What each process has used by now, by process id."""
        self._measure()
        with self._lock:
            return {pid: Use(**vars(use)) for pid, use in self.uses.items() if os.path.exists(f"/proc/{pid}")}

    def wait(self, seconds: float) -> Measured:
        """Wait for its end; what still runs after so many seconds is killed.

        Returns:
            What it used; `status` is -9 if it was killed.
        """
        if self._measured is not None:
            return self._measured
        killer = threading.Timer(seconds, self._signal, (signal.SIGKILL,))
        killer.daemon = True
        killer.start()
        _, status, used = os.wait4(self.pid, 0)
        wall = time.monotonic() - self._began
        killer.cancel()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()
        self._poller.join()
        cpu = used.ru_utime + used.ru_stime + self._reap()
        self._measured = Measured(wall, cpu, self._process.returncode, list(self.uses.values()), _gist(self.output()))
        return self._measured

    def stop(self) -> Measured:
        """Ask it to end, as Ctrl-C's polite relative does, and wait for that."""
        if self._measured is None and not self.has_ended():
            self._signal(signal.SIGTERM)
        return self.wait(_NICE_END)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _poll(self) -> None:
        soon = time.monotonic() + _YOUNG
        while not self._ended.wait(POLL if time.monotonic() > soon else POLL / 10):
            self._measure()

    def _measure(self) -> None:
        """Read /proc once: who is new and ours, and what each of ours uses."""
        with self._lock:
            there = set(os.listdir("/proc"))
            for entry in sorted((entry for entry in there - self._seen if entry.isdigit()), key=int):
                with contextlib.suppress(OSError):
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    if int(fields[1]) in self.uses:
                        self.uses[int(entry)] = Use("?")
            self._seen = there
            for pid, use in self.uses.items():
                if str(pid) in there:
                    with contextlib.suppress(OSError, ValueError):
                        self._read(pid, use)

    def _read(self, pid: int, use: Use) -> None:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
        if words != [""] and use.name != name_of(words):  # a process that has ended and was not collected yet has no words
            use.name, use.peak = name_of(words), 0  # what it held before it became this program was its parent's
        use.cpu = max(use.cpu, cpu_of(pid))
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                use.peak = max(use.peak, int(line.split()[1]) * 1024)
            elif line.startswith("VmRSS:"):
                use.resident = int(line.split()[1]) * 1024
                return

    def _reap(self) -> float:
        """End descendants that outlived the command. Returns their CPU seconds."""
        cpu = 0.0
        while left := [pid for pid in self.uses if pid != self.pid and _parent(pid) == os.getpid()]:
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    used = os.wait4(pid, 0)[2]
                    cpu += used.ru_utime + used.ru_stime
        return cpu


def _gist(output: str) -> str:
    lines = output.strip().splitlines()
    errors = [line for line in lines[:-1] if "error" in line.lower()][:1]
    return " ... ".join(line[-300:] for line in [*errors, *lines[-1:]])


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def measure(command: Sequence[str], *, environ: Mapping[str, str], directory: Path, log: Path, seconds: float) -> Measured:
    """Run a command to its end, at most so many seconds.

    Args:
        command: program and arguments.
        environ: its whole environment.
        directory: where it runs.
        log: where what it writes goes.
        seconds: after these it is killed.

    Returns:
        What it and all its descendants used.
    """
    with Running(command, environ=environ, directory=directory, log=log) as running:
        return running.wait(seconds)
