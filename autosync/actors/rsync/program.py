"""The rsync program, and what its errors mean. rsync(1), EXIT VALUES; docs/targets/rsync.md has the table."""

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

#: For so long nothing may come from a server, and a connection may take, in seconds. rsync writes many small pieces and waits for what is
#: answered; with Nagle's algorithm each of them waits for 40 ms as well.
_ALWAYS = ("--timeout=60", "--contimeout=10", "--no-motd", "--sockopts=TCP_NODELAY")
#: What rsync says, and what that means.
_SAID: tuple[tuple[re.Pattern[str], type[TargetError], str], ...] = (
    (re.compile(r"@ERROR: max connections"), SlowDown, ""),
    (re.compile(r"@ERROR: Unknown module"), TargetRefused, "correct --target-container"),
    (re.compile(r"@ERROR: auth failed"), TargetRefused, "correct the user in --target-container, and --rsync-password"),
    (re.compile(r"@ERROR: access denied"), TargetRefused, "allow this host in the server's rsyncd.conf"),
    (re.compile(r"ERROR: module is read only"), TargetRefused, "set `read only = no` in the server's rsyncd.conf"),
    (re.compile(r"File name too long|Invalid or incomplete multibyte"), PermanentError, "rename the file"),
)
#: Wrong usage, an older protocol, an option that one side does not know.
_NEVER = (1, 2, 4)
_SHOWN = 300
#: A row of a listing: a path has up to 4,096 bytes, each of which may stand as five.
_LONGEST_LINE = 64 << 10


def run(words: Sequence[str], password: str, about: str, stdin: bytes = b"") -> bytes:
    """Run rsync to its end.

    Args:
        words: its options and arguments.
        password: of the user at the server, or "".
        about: the key, or the module, for people.
        stdin: what it reads.

    Returns:
        What it has written.

    Raises:
        TargetError: it failed.
    """
    with _given(stdin) as given, _started(words, password, given) as (process, errors):
        assert process.stdout is not None
        written = process.stdout.read(BODY_BYTES + 1)
        if len(written) > BODY_BYTES:
            raise TargetError(f"{about}: rsync: it writes more than {BODY_BYTES >> 20} MiB, which is the most that is read of it")
        code = process.wait()
    if code:
        raise _meaning(code, errors.text, about)
    return written


def lines(words: Sequence[str], password: str, about: str) -> Generator[bytes, None, None]:
    """Run rsync, and give out the lines that it writes while it does. It is killed where they are closed before their end.

    Raises:
        TargetError: it failed; also behind lines that were given out.
    """
    with _started(words, password, subprocess.DEVNULL) as (process, errors):
        assert process.stdout is not None
        while line := process.stdout.readline(_LONGEST_LINE + 1):
            if len(line) > _LONGEST_LINE:
                raise TargetError(f"{about}: a row of rsync's listing is longer than {_LONGEST_LINE >> 10} KiB")
            yield line.rstrip(b"\n")
        code = process.wait()
    if code:
        raise _meaning(code, errors.text, about)


class _Errors(threading.Thread):
    """Reads what a program says is wrong. A server may have it say so without an end, so it is killed when that is too much.

    Args:
        process: the program, the first of a session of its own.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(name="autosync-rsync", daemon=True)
        self._process = process
        #: The beginning of it; the whole, if that is not too much, once the thread has ended.
        self.text = b""

    def run(self) -> None:
        """Read it to its end, or up to the bound."""
        assert self._process.stderr is not None
        self.text = self._process.stderr.read(BODY_BYTES)
        if self._process.stderr.read(1):
            _kill(self._process)


@contextmanager
def _started(words: Sequence[str], password: str, stdin: IO[bytes] | int) -> Iterator[tuple[subprocess.Popen[bytes], _Errors]]:
    """A running rsync, and what it says is wrong. Both have ended behind the with-block."""
    with subprocess.Popen(
        [_program(), *_ALWAYS, *words], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment(password),
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
    """End a program that has not ended, with its children, which write to the same pipes."""
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _given(content: bytes) -> Iterator[IO[bytes]]:
    """Content as a file that a program can read."""
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
    """Nothing of the user's changes what is meant. With a password, be it empty, none is asked for at a terminal."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "RSYNC_PASSWORD": password}


def _meaning(code: int, stderr: bytes, about: str) -> TargetError:
    text = stderr.decode("utf-8", "backslashreplace")
    said = [line for line in text.splitlines() if line and not line.startswith(("rsync error:", "rsync warning:", "***"))]
    what = f"{about}: rsync: {(said or text.splitlines() or ['?'])[0][:_SHOWN]} (code {code})"
    for pattern, kind, cure in _SAID:
        if pattern.search(text):
            return kind(what, cure)
    if code in _NEVER:
        return TargetRefused(what, "use rsync 3.1 or later on both sides")
    return TargetError(what)
