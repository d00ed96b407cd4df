"""A walk of a disk on which each call takes its time (FUSE)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from autosync.source.walk import Walk
from lab.descriptors import descriptors, opened_since
from lab.parts import lacking
from lab.servers import Missing
from lab.slowdisk import slow_disk
from lab.walking import paths, plant


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Callable[[Path], Callable[[], dict[str, int]]]]:
    """Shows a directory on a disk on which each call takes a millisecond. What it returns shows what the disk has seen."""
    with ExitStack() as ends:

        def mount(visible: Path) -> Callable[[], dict[str, int]]:
            try:
                return ends.enter_context(slow_disk(visible, tmp_path / "slow", 0.001))
            except Missing as missing:
                lacking(f"{missing} is not there")

        yield mount


@pytest.mark.parametrize("shape", ["one large directory", "many small ones", "deep ones"])
def test_several_calls_are_in_flight_on_a_slow_disk(
    tree: Path, slow: Callable[[Path], Callable[[], dict[str, int]]], shape: str, tmp_path: Path
) -> None:
    many = {
        "one large directory": [[b"%d" % number] for number in range(400)],
        "many small ones": [[b"%d" % number, name] for number in range(150) for name in (b"a", b"b")],
        "deep ones": [[b"%d" % number, *[b"d"] * (number % 7), b"f"] for number in range(60)],
    }
    made = plant(tree, many[shape])
    seen = slow(tree)
    paths(Walk(str(tmp_path / "slow"), str(tmp_path / "slow")))  # names that it has not met yet, the kernel asks FUSE for one by one

    walk = Walk(str(tmp_path / "slow"), str(tmp_path / "slow"))

    assert paths(walk) == sorted(f"{tmp_path}/slow{path[len(str(tree)):]}" for path in made)
    assert walk.errors == []
    assert seen()["at once"] > 2


def test_a_walk_of_a_slow_disk_that_is_abandoned_leaves_nothing_behind(tree: Path, slow: Callable[[Path], object], tmp_path: Path) -> None:
    plant(tree, [[b"%d" % number, b"%d" % name, b"f"] for number in range(20) for name in range(20)])
    slow(tree)
    before = descriptors()

    walk = Walk(str(tmp_path / "slow"), str(tmp_path / "slow")).runs()
    for _ in range(100):
        next(walk)
    helpers = [thread for thread in threading.enumerate() if thread.name == "autosync-walk"]
    walk.close()

    assert helpers
    assert not any(thread.is_alive() for thread in helpers)
    assert opened_since(before) == set()
