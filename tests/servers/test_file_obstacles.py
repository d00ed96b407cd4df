"""The actor for files where something else is in the place of a file or a directory: what it removes, what it keeps, what it reports."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from autosync.actor import Actor, listing_of
from autosync.actors import file as file_actor
from autosync.actors import load
from autosync.errors import TargetError
from autosync.files import File
from autosync.source.source_file import SourceFile
from lab.parts import permitted
from lab.servers import wait_until

OURS = ".autosync-0123456789abcdef"
SMALL, LARGE = 1, 1 << 20


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    return target


@pytest.fixture
def actor(target: Path) -> Actor:
    return load("file")(target_container=str(target))


@pytest.fixture
def upload(actor: Actor, tmp_path: Path) -> Callable[..., None]:
    """Uploads a file of some bytes."""

    def run(key: str, size: int = SMALL) -> None:
        (tmp_path / "source").write_bytes(b"x" * size)
        with closing(SourceFile(key, os.open(tmp_path / "source", os.O_RDONLY))) as file:
            actor.upload(file)

    return run


@pytest.fixture
def make_stale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], None]:
    """Makes a temporary file that is stale for all uploads that begin afterwards."""
    monkeypatch.setattr(file_actor, "_STALE", 0.0)

    def make(path: Path) -> None:
        path.touch()

        def is_past() -> bool:
            (tmp_path / "now").write_text("x")
            return (tmp_path / "now").stat().st_ctime > path.stat().st_ctime

        wait_until(is_past, 20, "the clock of the disk goes on")

    return make


def tree_of(target: Path) -> list[str]:
    return sorted(str(path.relative_to(target)) for path in target.rglob("*"))


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_directory_with_nothing_but_what_killed_workers_left_is_replaced_by_a_file(
    target: Path, upload: Callable[..., None], make_stale: Callable[[Path], None], size: int
) -> None:
    (target / "d/name/a/b").mkdir(parents=True)
    (target / "d/name/c").mkdir()
    make_stale(target / "d/name/a" / OURS)
    make_stale(target / "d/name" / f"{OURS[:-1]}0")

    upload("d/name", size)

    assert tree_of(target) == ["d", "d/name"]
    assert (target / "d/name").stat().st_size == size


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("other", ["file", ".autosync-notes", "link", "dangling link", "pipe", "directory with a file", OURS])
def test_a_directory_with_anything_else_stays_as_it_is_and_is_reported(
    target: Path, tmp_path: Path, upload: Callable[..., None], request: pytest.FixtureRequest, size: int, other: str
) -> None:
    (target / "name/a/b").mkdir(parents=True)
    if other != OURS:
        request.getfixturevalue("make_stale")(target / "name" / f"{OURS[:-1]}0")
    found = target / "name/a" / other.replace(" ", "-")
    if "link" in other:
        found.symlink_to("/nowhere" if "dangling" in other else tmp_path)
    elif other == "pipe":
        os.mkfifo(found)
    elif other == "directory with a file":
        found.mkdir()
        (found / "inside").touch()
    else:
        found.touch()
    if other == OURS:
        os.utime(found, (0, 0))  # as an upload that may be running does
    before = tree_of(target)
    inside = "/inside" if other == "directory with a file" else ""

    with pytest.raises(TargetError) as error:
        upload("name", size)

    assert tree_of(target) == before
    assert str(error.value) == (
        f"name: {target}/name is a directory with a/{found.name}{inside} in it, and a file is to be there; move it elsewhere, or delete it"
    )
    assert type(error.value) is TargetError, "it is tried again: a task may be on its way that deletes what is in the directory"


def test_a_large_file_is_not_read_if_a_directory_stays_in_its_place(actor: Actor, target: Path, tmp_path: Path) -> None:
    (target / "name").mkdir()
    (target / "name/inside").touch()
    (tmp_path / "source").write_bytes(b"x" * LARGE)
    read: list[int] = []

    with closing(SourceFile("name", os.open(tmp_path / "source", os.O_RDONLY), read.append)) as file, pytest.raises(TargetError):
        actor.upload(file)

    assert read == []


def test_a_directory_that_a_task_empties_is_replaced(target: Path, actor: Actor, upload: Callable[..., None]) -> None:
    upload("a/b/1")
    upload("a/2")
    with pytest.raises(TargetError, match="is a directory"):
        upload("a")

    actor.delete(File("a/b/1"))
    with pytest.raises(TargetError, match="is a directory with 2 in it"):
        upload("a")
    actor.delete(File("a/2"))
    upload("a")

    assert [file.key for file in listing_of(actor, "")] == ["a"]


def test_a_file_in_place_of_a_directory_stays_until_a_task_deletes_it(target: Path, actor: Actor, upload: Callable[..., None]) -> None:
    upload("d/a")

    with pytest.raises(TargetError) as error:
        upload("d/a/b/c")
    assert str(error.value) == f"d/a/b/c: {target}/d/a is a file, and a directory is needed there; move it elsewhere, or delete it"
    assert type(error.value) is TargetError
    assert tree_of(target) == ["d", "d/a"]

    actor.delete(File("d/a"))
    upload("d/a/b/c")
    assert [file.key for file in listing_of(actor, "")] == ["d/a/b/c"]


def test_a_link_in_place_of_a_directory_is_not_followed(target: Path, tmp_path: Path, upload: Callable[..., None]) -> None:
    (tmp_path / "outside").mkdir()
    (target / "a").symlink_to(tmp_path / "outside")

    with pytest.raises(TargetError, match="/target/a is a link, which is not followed, and a directory is needed there; move it"):
        upload("a/b")

    assert list((tmp_path / "outside").iterdir()) == []


def test_a_directory_that_cannot_be_removed_is_reported(target: Path, upload: Callable[..., None]) -> None:
    """A mount point is no directory that a worker has left, also if it is empty."""
    (target / "name/disk").mkdir(parents=True)
    mounted = target / "name/disk"
    permitted("mount", "-t", "tmpfs", "obstacle", str(mounted))
    try:
        assert os.path.ismount(mounted)
        with pytest.raises(TargetError, match="/target/name is a directory with disk in it"):
            upload("name")
        with pytest.raises(TargetError, match="/target/name/disk is a mount point, and a file is to be there"):
            upload("name/disk")
        assert os.path.ismount(mounted)
    finally:
        permitted("umount", str(mounted))


def test_a_directory_of_too_many_levels_stays(target: Path, upload: Callable[..., None]) -> None:
    (target / "/".join(["name", *["d"] * 100])).mkdir(parents=True)
    before = tree_of(target)

    with pytest.raises(TargetError, match="is a directory with d/d/"):
        upload("name")

    assert tree_of(target) == before
