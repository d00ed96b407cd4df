"""`make demo` proves what it shows, and leaves nothing running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import ROOT
from lab.parts import lacking
from lab.programs import BIN
from lab.servers import wait_until

DEMO = ROOT / "lab" / "demo.py"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the demo works; the test is skipped where its S3 server is not installed."""
    if not ((BIN / "weed").exists() or shutil.which("weed")):
        lacking("weed is not installed")
    return tmp_path / "a demo"


@contextmanager
def demo(directory: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(DEMO), str(directory)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd="/", env={**os.environ, "PYTHONWARNINGS": "ignore", **environ}, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def left(directory: Path) -> list[str]:
    """Processes that have to do with this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                reported = words + (entry / "environ").read_bytes() + os.fsencode((entry / "cwd").readlink())
            except OSError:
                continue
            if os.fsencode(directory) in reported and int(entry.name) != os.getpid():
                found.append(words.decode(errors="replace"))
    return found


def until(process: subprocess.Popen[str], last: str) -> str:
    """Its output, up to the line that has this text."""
    assert process.stdout is not None
    message = ""
    while last not in message:
        line = process.stdout.readline()
        assert line, message
        message += line
    return message


def test_it_proves_what_it_prints_and_ends_by_itself_also_where_one_was_killed(directory: Path) -> None:
    with demo(directory) as process:
        until(process, "the bucket equals the folder")
        assert any("celery" in words for words in left(directory))
        process.kill()
    wait_until(lambda: left(directory) == [], 60, "no process is left")

    with demo(directory, ONCE="1", AUTOSYNC_THREADS="not for the demo", AWS_PROFILE="nor-this") as process:
        message, _ = process.communicate(timeout=200)

    assert process.returncode == 0, message
    assert message.count("the bucket equals the folder") == 2
    assert message.count(" ms\n") == 4
    assert "\x1b" not in message
    assert left(directory) == []


def test_it_runs_until_ctrl_c_and_ends_everything_with_it(directory: Path) -> None:
    with demo(directory) as process:
        message = until(process, "Ctrl-C")
        assert any("valkey" in words for words in left(directory))

        process.send_signal(signal.SIGINT)
        message += process.communicate(timeout=60)[0]

    assert process.returncode == 0, message
    assert "Traceback" not in message
    assert left(directory) == []


def test_it_reports_in_one_line_that_a_directory_is_not_its_own(directory: Path) -> None:
    directory.mkdir()
    (directory / "thesis.txt").write_text("all of it")

    with demo(directory, ONCE="1") as process:
        message, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert message.strip().splitlines()[-1].startswith("demo: ")
    assert (directory / "thesis.txt").read_text() == "all of it"
