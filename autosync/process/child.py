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
# If this process has threads, this program runs in the child before the real one, in place of `_become_child`: in a process with threads,
# Python code between fork and exec may deadlock.
_LAUNCH = (
    "import ctypes,os,sys;"
    "ctypes.CDLL(None).prctl(1,int(sys.argv[1]),0,0,0);"
    "os.getppid()==int(sys.argv[2]) or os._exit(1);"
    "os.execv(sys.argv[3],sys.argv[3:])"
)
#: The exit status of a program that could not be started, as in shells.
_NOT_STARTED = 127
#: Signals whose handlers a child must not inherit.
_PARENT_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: The longest pause between two polls of a child that is to end, in seconds.
_LONGEST_PAUSE = 0.02
#: A child that lives for less than `_TOO_SHORT` seconds has failed to start. After `_TOO_OFTEN` such starts in a row it is not restarted.
_TOO_SHORT = 5.0
_TOO_OFTEN = 5


def allow_many_open_files() -> None:
    """Raise this process's soft limit of open files to the hard one (setrlimit(2)): the walk of a deep tree needs a descriptor for each
    level, and each transfer needs some. The default soft limit of 1,024 is meant for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def has_one_thread() -> bool:
    """Whether this process has no other thread, be it Python's or a library's, so that a fork is safe. False if that is unknown."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def set_process_title(title: Sequence[str]) -> None:
    """Replace the command line of this process in the output of ps(1). The new one overwrites the old one, and is cut at its length.

    Args:
        title: the words of the command line.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc_pid_stat(5)
    room = end - start
    if start and room > 1:
        ctypes.memmove(start, os.fsencode("\0".join(title))[: room - 1].ljust(room, b"\0"), room)


class Child:
    """One child process, which can be restarted when it has died.

    Start it from the main thread only: the kernel sends `at_death` when the thread that started the child ends.

    A process with one thread forks, which is quick. A process with more threads starts the program through another.

    Args:
        name: a name for messages.
        command: program (an absolute path) and arguments.
        environ: environment of the program; None for that of this process.
        directory: working directory of the program.
        at_death: the signal that the child gets when this process dies.
        inherits: file descriptors that the program inherits; all others are closed.
        inside: does the same as the command and returns the exit status. It is called for the first start, in a fork of this process, if
            this process can be forked. Then nothing has to be loaded, and memory is shared. `directory` is set before; `environ` is not.
        log_fields: fields of its lines in the JSON log.
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
        log_fields: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._environ = environ
        self._directory = directory
        self._at_death = at_death
        self._inherits = inherits
        self._inside = inside or self._become_the_program
        self._log_fields = log_fields
        self._process: _Process | None = None
        self._started = 0.0
        self._short_lives = 0

    def start(self) -> None:
        """Start the child in a session of its own, so that Ctrl-C in a terminal reaches only its parent. It inherits stderr."""
        self._started = time.monotonic()
        self._process = self._fork() if has_one_thread() else self._launch()
        self._inside = self._become_the_program  # this process will have connections and files of its own by the next time

    def pid(self) -> int | None:
        """Its process id; None if it was not started."""
        return self._process.pid if self._process else None

    def has_ended(self) -> int | None:
        """Its exit status if it has ended (negative: the signal), None while it runs."""
        return self._process.poll() if self._process else None

    def restart_if_dead(self) -> int | None:
        """Restart the child if it has died.

        Returns:
            The process id of the dead child, or None if it runs.

        Raises:
            StartError: it has died soon after its start several times in a row.
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
        log.warning("%s ended with status %s; it is started again", self.name, status, extra=self._log_fields)
        self.start()
        return dead

    def stop(self, patience: float) -> None:
        """Send SIGTERM, and SIGKILL after `patience` seconds."""
        if self._process is None:
            return
        self.terminate()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end within %.0f s and is killed", self.name, patience)
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """Send SIGTERM, if the child runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def end(self) -> None:
        """Send SIGKILL, if the child runs. For children that have nothing to finish."""
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
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENT_SIGNALS)  # a signal to the child must not meet with its parent's handlers
        try:
            pid = os.fork()
            if not pid:
                _end_with(self._run_inside, parent, self._at_death)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _Forked(pid)

    def _run_inside(self) -> int:
        """Run the child's work in the fork. Returns the exit status."""
        if self._directory:
            os.chdir(self._directory)
        return self._inside()

    def _become_the_program(self) -> int:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores these signals, and a program inherits that
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
    """The part of `subprocess.Popen` that `Child` uses."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class _Forked:
    """A fork of this process, with the interface of `subprocess.Popen`."""

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
    """Run the work of a new fork, and end the process with the work's exit status, without the parent's exit handlers."""
    status = 1
    try:
        _become_child(parent, at_death)
        status = work()
    except SystemExit as ending:
        status = _status_of(ending)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


def _become_child(parent: int, at_death: signal.Signals) -> None:
    """Prepare a new fork: the kernel sends a signal when the parent dies; end at once if the parent has died already; leave the terminal;
    reset signal handlers.

    Args:
        parent: process id of the parent.
        at_death: the signal for the parent's death.
    """
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, int(at_death), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    for number in _PARENT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PARENT_SIGNALS)


def _status_of(ending: SystemExit) -> int:
    """The exit status as Python defines it: a text is printed to stderr and stands for 1."""
    if ending.code is None or isinstance(ending.code, int):
        return ending.code or 0
    print(ending.code, file=sys.stderr)
    return 1
