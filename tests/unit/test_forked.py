"""A generator in a process of its own: what it yields arrives, whatever happens to it is found out, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autosync.process.child import has_one_thread
from autosync.process.forked import ForkedGenerator
from lab.servers import wait_until

pytestmark = pytest.mark.one_thread


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    wait_until(has_one_thread, 20, "this process can be forked")


def made(work: Any) -> tuple[ForkedGenerator, int]:
    apart = ForkedGenerator.try_start("autosync-test", work)
    assert apart is not None
    pid = apart._child.pid()
    assert pid is not None
    return apart, pid


def is_gone(pid: int) -> bool:
    """Whether the process has ended, and is not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_the_other_process_yields_arrives_in_order() -> None:
    before = descriptors()
    values = ["text", "half \udcff of one", None, 1.5, 1 << 40, ["list", ("tuple",)], b"\0"]
    apart, pid = made(lambda argument: iter([argument, os.getpid(), *values]))

    argument, where, *rest = apart.items("é \udcff")

    assert (argument, where, rest) == ("é \udcff", pid, values)
    assert is_gone(pid)
    assert descriptors() == before


def test_more_than_the_pipe_holds_arrives_and_the_other_process_waits_for_who_reads(tmp_path: Path) -> None:
    count, made_yet = 300, tmp_path / "one byte for each"

    def work(_: str) -> Iterator[bytes]:
        for number in range(count):
            with made_yet.open("ab") as file:
                file.write(b".")
            yield bytes([number % 256]) * 100_000

    apart, pid = made(work)
    items = apart.items("")
    first = next(items)
    wait_until(lambda: "pipe" in Path(f"/proc/{pid}/wchan").read_text(), 20, "it waits for the full pipe")
    waiting_at = made_yet.stat().st_size

    assert [first, *items] == [bytes([number % 256]) * 100_000 for number in range(count)]
    assert waiting_at < count == made_yet.stat().st_size


def test_it_waits_until_it_is_requested(tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def work(_: str) -> Iterator[bool]:
        begun.touch()
        yield True

    apart, pid = made(work)
    command_line = Path(f"/proc/{pid}/cmdline")
    wait_until(lambda: command_line.read_bytes().startswith(b"autosync-test"), 20, "it is there, under its name")

    assert not begun.exists()
    assert list(apart.items("")) == [True]
    assert begun.exists()


@pytest.mark.parametrize("found", ["a text", {"of": [1, None, 2.5]}, "x" * 300_000], ids=["a text", "a dict", "a long text"])
def test_the_value_found_is_returned_before_the_items(found: Any) -> None:
    before = descriptors()
    apart = ForkedGenerator.try_start("autosync-test", lambda argument: iter([argument, "end"]), lambda: found)
    assert apart is not None

    assert apart.found() == found
    assert list(apart.items("asked")) == ["asked", "end"]
    assert descriptors() == before


def test_it_finds_out_while_the_other_goes_on(tmp_path: Path) -> None:
    done = tmp_path / "done"
    apart = ForkedGenerator.try_start("autosync-test", lambda _: iter([]), lambda: str(done.touch() or "found"))
    assert apart is not None

    wait_until(done.exists, 20, "nobody has asked yet")
    assert apart.found() == "found"
    apart.close()


@pytest.mark.parametrize("how", ["it fails", "it is killed"])
def test_if_nothing_is_found_the_process_ends(how: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = descriptors()

    def find() -> None:
        if how == "it fails":
            raise ValueError("as it happens")
        os.kill(os.getpid(), signal.SIGKILL)

    apart = ForkedGenerator.try_start("autosync-test", lambda _: iter([1]), find)
    assert apart is not None

    assert apart.found() is None
    assert descriptors() == before
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("how", ["not asked", "asked, and left in the middle"])
def test_closing_it_ends_the_process(how: str) -> None:
    before = descriptors()
    apart, pid = made(lambda _: iter([1, 2, 3]))
    if how != "not asked":
        items = apart.items("")
        assert next(items) == 1
        del items

    apart.close()
    apart.close()

    assert is_gone(pid)
    assert descriptors() == before


def test_a_generator_that_fails_ends_its_items_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def work(_: str) -> Iterator[int]:
        yield 1
        raise ValueError("as it happens")

    apart, pid = made(work)

    assert list(apart.items("")) == [1]
    assert is_gone(pid)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("when", ["before it was asked", "in the middle"])
def test_a_process_that_is_killed_ends_what_arrives(when: str) -> None:
    def work(_: str) -> Iterator[int]:
        yield 1
        signal.pause()

    apart, pid = made(work)
    if when == "in the middle":
        items = apart.items("")
        assert next(items) == 1
        os.kill(pid, signal.SIGKILL)
        assert list(items) == []
    else:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: " Z " in Path(f"/proc/{pid}/stat").read_text(), 20, "it is dead")
        assert list(apart.items("")) == []
    assert is_gone(pid)


def test_it_ends_with_the_process_that_made_it() -> None:
    code = (
        "import os, signal\nfrom autosync.process.forked import ForkedGenerator\n"
        "apart = ForkedGenerator.try_start('autosync-test', lambda _: iter([]))\n"
        "print(apart._child.pid(), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    message = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout

    wait_until(lambda: is_gone(int(message)) or " Z " in Path(f"/proc/{int(message)}/stat").read_text(), 20, "it has ended too")


def test_a_process_with_more_threads_has_none() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert ForkedGenerator.try_start("autosync-test", lambda _: iter([])) is None
    finally:
        over.set()
        thread.join()
    wait_until(has_one_thread, 20, "the thread is over")
