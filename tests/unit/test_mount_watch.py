"""What was mounted, unmounted or moved, by two readings of the table of mounts."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from autosync.source.mount_watch import MountWatch
from autosync.source.mounts import Mount
from lab.comparing import keys_of

DISK = Mount(40, "ext4", "7:0 /")


class Table:
    """A table of mounts that a test writes."""

    def __init__(self) -> None:
        self.mounts: dict[str, Mount] = {}

    def has_changed(self) -> bool:
        return True

    def read(self) -> dict[str, Mount]:
        return dict(self.mounts)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def watch(tree: Path, table: Table) -> MountWatch:
    (tree / "a/disk").mkdir(parents=True)
    table.mounts[f"{tree}/a/disk"] = DISK
    found = MountWatch(keys_of(tree), (str(tree),), table, 10, threading.RLock())  # type: ignore[arg-type]
    found.poll()
    assert found.pop_changes() == [(f"{tree}/a/disk", DISK)]
    return found


def move(tree: Path, table: Table, to: str) -> None:
    table.mounts = {f"{tree}/{to}": DISK}
    (tree / to).mkdir(parents=True, exist_ok=True)


def test_a_mount_point_moves_with_the_directory_that_contains_it(tree: Path, table: Table, watch: MountWatch) -> None:
    (tree / "a").rename(tree / "b")
    move(tree, table, "b/disk")

    change = watch.poll()

    assert change is not None
    assert (change.moved, watch.has_moved(f"{tree}/a/disk")) == ([f"{tree}/a/disk"], True)
    assert watch.pop_changes() == [(f"{tree}/a/disk", None), (f"{tree}/b/disk", DISK)]


@pytest.mark.parametrize("to", ["b/disk", "a/other"])
def test_a_number_that_the_kernel_uses_for_the_next_mount_is_no_move(tree: Path, table: Table, watch: MountWatch, to: str) -> None:
    """The directory is still there, so what was mounted in it was unmounted."""
    move(tree, table, to)

    change = watch.poll()

    assert change is not None
    assert (change.moved, watch.has_moved(f"{tree}/a/disk")) == ([], False)
    assert watch.pop_changes() == [(f"{tree}/a/disk", None), (f"{tree}/{to}", DISK)]


def test_a_mount_point_that_is_there_again_has_not_moved(tree: Path, table: Table, watch: MountWatch) -> None:
    (tree / "a").rename(tree / "b")
    move(tree, table, "b/disk")
    watch.poll()
    move(tree, table, "a/disk")

    watch.poll()

    assert not watch.has_moved(f"{tree}/a/disk")
