"""Child processes that end when this process does, however it ends."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from .errors import StartError

log = logging.getLogger(__name__)

# Runs in the child before the real program: asks the kernel for a signal at the parent's death (prctl(2), PR_SET_PDEATHSIG = 1), and gives
# up if the parent has died in between. A separate program, since code between fork and exec in a process with threads may deadlock.
_LAUNCH = (
    "import ctypes,os,sys;"
    "ctypes.CDLL(None).prctl(1,int(sys.argv[1]),0,0,0);"
    "os.getppid()==int(sys.argv[2]) or os._exit(1);"
    "os.execv(sys.argv[3],sys.argv[3:])"
)
#: A child that lives for less than this has failed to start, in seconds; so many times in a row are enough.
_TOO_SHORT = 5.0
_TOO_OFTEN = 5


def allow_many_open_files() -> None:
    """Raise this process's soft limit of open files to its hard one (setrlimit(2)): a deep tree is walked with one descriptor a level, and
    each transfer needs some. The default soft limit of 1,024 is there for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Child:
    """One child process, which can be started again when it has died.

    Start it from the main thread only: the kernel's promise is bound to the thread that started it.

    Args:
        name: for messages.
        command: program (an absolute path) and arguments.
        environ: its environment; None: this process's.
        directory: where it runs.
        at_death: the signal that it gets when this process dies.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        directory: str | None = None,
        at_death: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(int(at_death)), str(os.getpid()), *command]
        self._environ = environ
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._short_lives = 0

    def start(self) -> None:
        """Start it, in a session of its own, so that Ctrl-C in a terminal reaches only its parent. What it writes to stderr is seen."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            env=self._environ,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def pid(self) -> int | None:
        """Its process id, if it was started."""
        return self._process.pid if self._process else None

    def has_ended(self) -> int | None:
        """Its exit status if it has ended (negative: the signal), None while it runs."""
        return self._process.poll() if self._process else None

    def tend(self) -> int | None:
        """Start it again if it has died. Returns the process id of the dead one, or None if it lives.

        Raises:
            StartError: it dies each time soon after its start.
        """
        status = self.has_ended()
        dead = self.pid()
        if status is None:
            return None
        self._short_lives = self._short_lives + 1 if time.monotonic() - self._started < _TOO_SHORT else 0
        if self._short_lives >= _TOO_OFTEN:
            raise StartError(
                f"{self.name} cannot be kept running: it ended {_TOO_OFTEN} times with status {status}", "see its messages above"
            )
        log.warning("%s ended with status %s; it is started again", self.name, status)
        self.start()
        return dead

    def stop(self, patience: float) -> None:
        """Ask it to end, and end it after `patience` seconds."""
        if self._process is None:
            return
        self.ask_to_end()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end within %.0f s and is killed", self.name, patience)
            self._process.kill()
            self._process.wait()

    def ask_to_end(self) -> None:
        """Send SIGTERM, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
