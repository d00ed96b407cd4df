"""Runs the rsync program and translates its errors (rsync(1), EXIT VALUES). docs/targets/rsync.md has the table."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO

from ...errors import PermanentError, SlowDown, TargetError, TargetRefused
from .._responses import BODY_BYTES
from .._server_text import one_line

#: Options of every run: timeouts in seconds, and no Nagle's algorithm. With it, each of rsync's many small requests takes 40 ms longer.
_ALWAYS = ("--timeout=60", "--contimeout=10", "--no-motd", "--sockopts=TCP_NODELAY")
#: Messages of rsync, with the error and the cure for each.
_MESSAGES: tuple[tuple[re.Pattern[str], type[TargetError], str], ...] = (
    (re.compile(r"@ERROR: max connections"), SlowDown, ""),
    (re.compile(r"@ERROR: Unknown module"), TargetRefused, "correct --target-container"),
    (re.compile(r"@ERROR: auth failed"), TargetRefused, "correct the user in --target-container, and --rsync-password"),
    (re.compile(r"@ERROR: access denied"), TargetRefused, "allow this host in the server's rsyncd.conf"),
    (re.compile(r"ERROR: module is read only"), TargetRefused, "set `read only = no` in the server's rsyncd.conf"),
    (re.compile(r"File name too long|Invalid or incomplete multibyte"), PermanentError, "rename the file"),
)
#: Exit codes for wrong usage, an older protocol, an unknown option.
_NEVER = (1, 2, 4)
_LONGEST_DETAIL = 300
#: The most bytes of a row of a listing: a path has up to 4,096 bytes; rsync may write a byte as five.
_LONGEST_LINE = 64 << 10


def run(arguments: Sequence[str], password: str, about: str, stdin: bytes = b"") -> bytes:
    """Run rsync to its end.

    Args:
        arguments: options and arguments of rsync.
        password: the user's password at the server, or "".
        about: the key or the module, for error messages.
        stdin: content of the standard input.

    Returns:
        The standard output.

    Raises:
        TargetError: rsync failed.
    """
    with _as_file(stdin) as input_file, _started(arguments, password, input_file) as (process, errors):
        assert process.stdout is not None
        output = process.stdout.read(BODY_BYTES + 1)
        if len(output) > BODY_BYTES:
            raise TargetError(f"{about}: rsync: its output is longer than {BODY_BYTES >> 20} MiB, which is the most that is read of it")
        code = process.wait()
    if code:
        raise _error_of(code, errors.text, about)
    return output


def lines(arguments: Sequence[str], password: str, about: str) -> Generator[bytes, None, None]:
    """Run rsync, and yield the lines of its output while it runs. If the generator is closed before its end, rsync is killed.

    Args:
        arguments: options and arguments of rsync.
        password: the user's password at the server, or "".
        about: the key or the module, for error messages.

    Raises:
        TargetError: rsync failed, maybe after some lines.
    """
    with _started(arguments, password, subprocess.DEVNULL) as (process, errors):
        assert process.stdout is not None
        while line := process.stdout.readline(_LONGEST_LINE + 1):
            if len(line) > _LONGEST_LINE:
                raise TargetError(f"{about}: a row of rsync's listing is longer than {_LONGEST_LINE >> 10} KiB")
            yield line.rstrip(b"\n")
        code = process.wait()
    if code:
        raise _error_of(code, errors.text, about)


class _Errors(threading.Thread):
    """Reads the error messages of a program. A server can make them endless, so the program is killed when they are too long.

    Args:
        process: the program, which leads a session of its own.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(name="autosync-rsync", daemon=True)
        self._process = process
        #: The messages, up to the bound, once the thread has ended.
        self.text = b""

    def run(self) -> None:
        """Read the messages to their end, or up to the bound."""
        assert self._process.stderr is not None
        self.text = self._process.stderr.read(BODY_BYTES)
        if self._process.stderr.read(1):
            _kill(self._process)


@contextmanager
def _started(arguments: Sequence[str], password: str, stdin: IO[bytes] | int) -> Iterator[tuple[subprocess.Popen[bytes], _Errors]]:
    """A running rsync and the thread that reads its error messages. Both have ended after the with-block."""
    with subprocess.Popen(
        [_program(), *_ALWAYS, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment(password),
        start_new_session=True,
    ) as process:  # fmt: skip
        errors = _Errors(process)
        errors.start()
        try:
            yield process, errors
        finally:
            _kill(process)
            errors.join()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a running program with its children, which write to the same pipes."""
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _as_file(content: bytes) -> Iterator[IO[bytes]]:
    """Content as a temporary file, for the standard input of a program."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file


@cache
def _program() -> str:
    found = shutil.which("rsync")
    if found is None:
        raise TargetRefused("there is no program rsync", "install it: apt install rsync")
    return found


def _environment(password: str) -> dict[str, str]:
    """An environment without the user's variables. Since a password is set, maybe an empty one, rsync never prompts for one."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "RSYNC_PASSWORD": password}


def _error_of(code: int, stderr: bytes, about: str) -> TargetError:
    text = stderr.decode("utf-8", "backslashreplace")
    messages = [line for line in text.splitlines() if line and not line.startswith(("rsync error:", "rsync warning:", "***"))]
    what = f"{about}: rsync: {one_line((messages or text.splitlines() or ['?'])[0], _LONGEST_DETAIL)} (code {code})"
    for pattern, kind, cure in _MESSAGES:
        if pattern.search(text):
            return kind(what, cure)
    if code in _NEVER:
        return TargetRefused(what, "use rsync 3.1 or later on both sides")
    return TargetError(what)
