"""Child processes that end when this process does, however it ends."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn, Protocol

from ..errors import StartError

log = logging.getLogger(__name__)

_SET_PDEATHSIG = 1  # prctl(2)
# Where this process has threads, this runs in the child before the real program, and does what `_obey` does: a separate program, since code
# between fork and exec in a process with threads may deadlock.
_LAUNCH = (
    "import ctypes,os,sys;"
    "ctypes.CDLL(None).prctl(1,int(sys.argv[1]),0,0,0);"
    "os.getppid()==int(sys.argv[2]) or os._exit(1);"
    "os.execv(sys.argv[3],sys.argv[3:])"
)
#: The exit status of a program that could not be started, as shells tell it.
_NOT_STARTED = 127
#: Signals that a parent may have handlers for, which are no business of its child's.
_OURS = (signal.SIGINT, signal.SIGTERM)
#: How long the pauses between two looks at a child that is to end may become, in seconds.
_LONGEST_PAUSE = 0.02
#: A child that lives for less than this has failed to start, in seconds; so many times in a row are enough.
_TOO_SHORT = 5.0
_TOO_OFTEN = 5


def allow_many_open_files() -> None:
    """Raise this process's soft limit of open files to its hard one (setrlimit(2)): a deep tree is walked with one descriptor a level, and
    each transfer needs some. The default soft limit of 1,024 is there for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def has_one_thread() -> bool:
    """Whether this process is known to have no thread but this one, be it Python's or a library's: then a fork of it is whole."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def call_itself(words: Sequence[str]) -> None:
    """Have ps(1) show these words as the command line of this process: they are written over those that it was started with, as far as
    there is room."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc_pid_stat(5)
    room = end - start
    if start and room > 1:
        ctypes.memmove(start, os.fsencode("\0".join(words))[: room - 1].ljust(room, b"\0"), room)


class Child:
    """One child process, which can be started again when it has died.

    Start it from the main thread only: the kernel's promise is bound to the thread that started it.

    A process of one thread forks, which is quick. One that has more starts the program through another.

    Args:
        name: for messages.
        command: program (an absolute path) and arguments.
        environ: its environment; None: this process's.
        directory: where it runs.
        at_death: the signal that it gets when this process dies.
        inherits: file descriptors that the program has as well; all others are closed in it.
        inside: does the same as the command and returns the exit status; called the first time, in a fork of this process, where it can be
            forked. It has nothing to load, and shares its memory with this process. The directory is set, the environment its own business.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        directory: str | None = None,
        at_death: signal.Signals = signal.SIGKILL,
        inherits: Sequence[int] = (),
        inside: Callable[[], int] | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._environ = environ
        self._directory = directory
        self._at_death = at_death
        self._inherits = inherits
        self._inside = inside or self._become_the_program
        self._process: _Process | None = None
        self._started = 0.0
        self._short_lives = 0

    def start(self) -> None:
        """Start it, in a session of its own, so that Ctrl-C in a terminal reaches only its parent. What it writes to stderr is seen."""
        self._started = time.monotonic()
        self._process = self._fork() if has_one_thread() else self._launch()
        self._inside = self._become_the_program  # this process will have connections and files of its own by the next time

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

    def end(self) -> None:
        """End it at once: it has nothing in hand."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _launch(self) -> _Process:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(int(self._at_death)), str(os.getpid())]
        return subprocess.Popen(
            [*launcher, *self._command],
            env=self._environ,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=self._inherits,
            start_new_session=True,
        )

    def _fork(self) -> _Process:
        parent = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)  # a signal to the child must not meet with its parent's handlers
        try:
            pid = os.fork()
            if not pid:
                _end_with(self._work, parent, self._at_death)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _Forked(pid)

    def _work(self) -> int:
        """What the child does."""
        if self._directory:
            os.chdir(self._directory)
        return self._inside()

    def _become_the_program(self) -> int:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and what is ignored stays so
        for descriptor in self._inherits:
            os.set_inheritable(descriptor, True)
        try:
            if self._environ is None:
                os.execv(self._command[0], list(self._command))  # noqa: S606 - as everywhere, without a shell
            os.execve(self._command[0], list(self._command), self._environ)  # noqa: S606
        except OSError as error:
            print(f"{self._command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_STARTED


class _Process(Protocol):
    """What `Child` needs of a process; `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class _Forked:
    """A fork of this process, to be handled as a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        pause = 0.0005
        while (status := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("", timeout or 0.0)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return status

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _end_with(work: Callable[[], int], parent: int, at_death: signal.Signals) -> NoReturn:
    """Do the work of a child that was just forked, and end with its exit status. Nothing that the parent has arranged for its own end is
    done here."""
    status = 1
    try:
        _obey(parent, at_death)
        status = work()
    except SystemExit as asked:
        status = _status_of(asked)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


def _obey(parent: int, at_death: signal.Signals) -> None:
    """Be a child: get a signal from the kernel at the parent's death, give up if it has died already, leave its terminal alone, and hear
    signals as if there had been no parent."""
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, int(at_death), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    for number in _OURS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)


def _status_of(asked: SystemExit) -> int:
    """The exit status as Python makes it: a text is said, and means 1."""
    if asked.code is None or isinstance(asked.code, int):
        return asked.code or 0
    print(asked.code, file=sys.stderr)
    return 1
