"""The rsync program, and what its errors mean. rsync(1), EXIT VALUES; docs/targets/rsync.md has the table."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from typing import IO

from ...errors import PermanentError, SlowDown, TargetError, TargetRefused

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
    done = subprocess.run(
        [_program(), *_ALWAYS, *words], input=stdin, capture_output=True, check=False, env=_environment(password), start_new_session=True
    )
    if done.returncode:
        raise _meaning(done.returncode, done.stderr, about)
    return done.stdout


def lines(words: Sequence[str], password: str, about: str) -> Iterator[bytes]:
    """Run rsync, and give out the lines that it writes while it does.

    Raises:
        TargetError: it failed; also behind lines that were given out.
    """
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [_program(), *_ALWAYS, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=_environment(password),
            start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout is not None
            yield from (line.rstrip(b"\n") for line in process.stdout)
            code = process.wait()
        finally:
            process.kill()
        if code:
            raise _meaning(code, _read(errors), about)


def _read(errors: IO[bytes]) -> bytes:
    errors.seek(0)
    return errors.read(1 << 16)


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
