"""inotify on the real kernel: exact names, every event, and errors as numbers."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.watch.inotify import (
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_Q_OVERFLOW,
    Event,
    Inotify,
)
from lab.descriptors import descriptors, opened_since
from lab.parts import lacking

MASK = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    made = Inotify()
    yield made
    made.close()


def watch(inotify: Inotify, path: Path | bytes, mask: int = MASK) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return inotify.add(descriptor, mask)
    finally:
        os.close(descriptor)


def all_events(inotify: Inotify) -> list[Event]:
    """The kernel queues an event before the call that caused it returns, so there is nothing to wait for."""
    found: list[Event] = []
    while more := list(inotify.read()):
        found += more
    return found


def masks_and_names(inotify: Inotify) -> list[tuple[int, str]]:
    return [(event.mask, event.name) for event in all_events(inotify)]


def test_reading_does_not_wait(inotify: Inotify, tree: Path) -> None:
    assert list(inotify.read()) == []
    watch(inotify, tree)
    assert list(inotify.read()) == []


def test_poll_reports_when_an_event_is_there(inotify: Inotify, tree: Path) -> None:
    poll = select.poll()
    poll.register(inotify, select.POLLIN)
    watch(inotify, tree)
    before = poll.poll(0)

    (tree / "f").mkdir()

    assert before == []
    assert poll.poll(0) == [(inotify.fileno(), select.POLLIN)]


@pytest.mark.parametrize("name", [b"f", b"\xff\xfe", b"a\nb\n", b" ", "é😀".encode(), b"x" * 255, b"\x01", b"x" * 15, b"x" * 16, b"x" * 17])
def test_a_name_is_read_to_the_byte(inotify: Inotify, tree: Path, name: bytes) -> None:
    wd = watch(inotify, tree)

    with open(os.fsencode(tree) + b"/" + name, "wb"):
        pass

    events = all_events(inotify)
    assert [(event.wd, event.mask, os.fsencode(event.name)) for event in events] == [(wd, IN_CREATE, name), (wd, IN_CLOSE_WRITE, name)]


def test_a_directory_is_watched_whatever_its_own_name_is(inotify: Inotify, tree: Path) -> None:
    odd = os.fsencode(tree) + b"/\xff\n"
    os.mkdir(odd)
    watch(inotify, odd)

    os.mkdir(odd + b"/d")

    assert masks_and_names(inotify) == [(IN_CREATE | IN_ISDIR, "d")]


def test_writing_renaming_and_removing_are_reported_in_order(inotify: Inotify, tree: Path) -> None:
    watch(inotify, tree)

    (tree / "a").write_text("1")
    (tree / "a").rename(tree / "b")
    (tree / "b").unlink()
    (tree / "d").mkdir()
    (tree / "d").rmdir()

    assert masks_and_names(inotify) == [
        (IN_CREATE, "a"), (IN_CLOSE_WRITE, "a"), (IN_MOVED_FROM, "a"), (IN_MOVED_TO, "b"), (IN_DELETE, "b"),
        (IN_CREATE | IN_ISDIR, "d"), (IN_DELETE | IN_ISDIR, "d"),
    ]  # fmt: skip


def test_both_ends_of_a_rename_have_the_same_cookie(inotify: Inotify, tree: Path) -> None:
    (tree / "a").touch()
    (tree / "d").mkdir()
    wds = [watch(inotify, tree), watch(inotify, tree / "d")]

    (tree / "a").rename(tree / "d" / "b")

    left, came = all_events(inotify)
    assert [left.wd, came.wd] == wds
    assert left.cookie == came.cookie != 0


def test_reading_alone_is_not_reported(inotify: Inotify, tree: Path) -> None:
    (tree / "f").touch()
    watch(inotify, tree)

    (tree / "f").read_bytes()
    os.chmod(tree / "f", 0o600)

    assert all_events(inotify) == []


def test_a_directory_that_is_watched_twice_is_one_watch(inotify: Inotify, tree: Path) -> None:
    first = watch(inotify, tree)
    tree.rename(tree.parent / "moved")

    assert watch(inotify, tree.parent / "moved") == first


def test_a_watch_that_is_removed_is_silent(inotify: Inotify, tree: Path) -> None:
    wd = watch(inotify, tree)

    inotify.remove(wd)
    inotify.remove(wd)
    (tree / "f").touch()

    assert [(event.wd, event.mask) for event in all_events(inotify)] == [(wd, IN_IGNORED)]


def test_a_directory_that_is_removed_ends_its_watch(inotify: Inotify, tree: Path) -> None:
    (tree / "d").mkdir()
    wd = watch(inotify, tree / "d")

    (tree / "d").rmdir()

    assert all_events(inotify) == [Event(wd, IN_IGNORED, 0, "")]


def test_events_that_do_not_fit_into_one_read_arrive_in_several(inotify: Inotify, tree: Path) -> None:
    watch(inotify, tree)
    names = [f"{number:0>250}" for number in range(2000)]

    for name in names:
        (tree / name).mkdir()

    first = list(inotify.read())
    assert 0 < len(first) < len(names)
    assert [event.name for event in first + all_events(inotify)] == names


def test_an_overflow_of_the_queue_is_reported(inotify: Inotify, tree: Path) -> None:
    watch(inotify, tree)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    here, there = str(tree / "a"), str(tree / "b")
    (tree / "a").touch()
    all_events(inotify)

    for _ in range(limit // 2 + 10):
        os.rename(here, there)
        here, there = there, here

    events = all_events(inotify)
    assert len(events) == limit + 1
    assert events[-1] == Event(-1, IN_Q_OVERFLOW, 0, "")
    (tree / "after").mkdir()
    assert masks_and_names(inotify) == [(IN_CREATE | IN_ISDIR, "after")]


def test_a_file_is_not_watched(inotify: Inotify, tree: Path) -> None:
    (tree / "f").touch()

    with pytest.raises(NotADirectoryError):
        watch(inotify, tree / "f")


def test_a_descriptor_that_is_closed_is_an_error(inotify: Inotify) -> None:
    with pytest.raises(FileNotFoundError):
        inotify.add(99_999, MASK)


def test_closing_closes_the_descriptor() -> None:
    before = descriptors()

    inotify = Inotify()
    inherited = os.get_inheritable(inotify.fileno())
    inotify.close()

    assert not inherited
    assert opened_since(before) == set()


# Limits: lowered in a user namespace of its own, so that nobody else on this host feels it

LIMITED = """
import ctypes, os, sys

if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):  # CLONE_NEWUSER
    sys.exit(77)
for name, value in (word.split("=") for word in sys.argv[1:]):
    with open(f"/proc/sys/user/max_inotify_{name}", "w") as file:
        file.write(value)

from autosync.watch.inotify import IN_CREATE, Inotify
"""


def run_limited(code: str, *limits: str) -> str:
    ended = subprocess.run([sys.executable, "-c", LIMITED + code, *limits], capture_output=True, text=True, timeout=60, check=False)
    if ended.returncode == 77:
        lacking("this machine allows no user namespace")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_watch_too_many_raises_the_kernels_error_number() -> None:
    output = run_limited(
        """
inotify = Inotify()
descriptors = [os.open(path, os.O_RDONLY) for path in ("/", "/proc", "/dev", "/usr")]
for descriptor in descriptors:
    try:
        inotify.add(descriptor, IN_CREATE)
        print("watched")
    except OSError as error:
        print(error.errno)
print(inotify.add(descriptors[0], IN_CREATE) > 0)
""",
        "watches=2",
    )

    assert output.split() == ["watched", "watched", str(errno.ENOSPC), str(errno.ENOSPC), "True"]


def test_an_instance_too_many_raises_the_kernels_error_number() -> None:
    output = run_limited(
        """
first = Inotify()
try:
    Inotify()
except OSError as error:
    print(error.errno, error.strerror)
""",
        "instances=1",
    )

    assert output == f"{errno.EMFILE} {os.strerror(errno.EMFILE)}\n"
