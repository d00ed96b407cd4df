"""The rsync actor where something else is in the place of a directory. By itself, rsync deletes what is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autosync.actor import Actor, listing_of
from autosync.actors import load
from autosync.actors.rsync import RsyncActor
from autosync.errors import TargetError
from autosync.files import File
from autosync.source.source_file import SourceFile
from lab.rsync import Rsyncd


@pytest.fixture
def server(rsyncd: Callable[..., Rsyncd]) -> Rsyncd:
    return rsyncd()


@pytest.fixture
def actor(server: Rsyncd) -> Iterator[Actor]:
    made = load("rsync")(target_container=server.container)
    yield made
    made.close()


@pytest.fixture
def upload(actor: RsyncActor, tmp_path: Path) -> Callable[..., list[str]]:
    """Uploads files together. Returns the error of each; "" for none."""

    def run(*keys: str) -> list[str]:
        (tmp_path / "source").write_text("x")
        files = [SourceFile(key, os.open(tmp_path / "source", os.O_RDONLY)) for key in keys]
        try:
            errors = actor.upload_many(files)
        finally:
            for file in files:
                file.close()
        assert {type(error) for error in errors} <= {type(None), TargetError}, errors
        return [str(error or "") for error in errors]

    return run


def refusal(key: str, path: str, what: str) -> str:
    return f"{key}: {path} is {what} in the module, and a directory is needed there; move it elsewhere, or delete it"


@pytest.mark.parametrize("name", ["foreign", "fo*[r]?ei\\gn", " a -> b ", "x\ny", "f\udcff\u00fc", "-r", "#;"])
def test_a_foreign_file_in_the_place_of_a_directory_stays(server: Rsyncd, upload: Callable[..., list[str]], name: str) -> None:
    (server.module / "d").mkdir()
    (server.module / "d" / name).write_text("precious")

    error, deeper, other, none = upload(f"d/{name}/a", f"d/{name}/b/c", "d/a", "a")

    assert "is a file in the module, and a directory is needed there; move it elsewhere, or delete it" in error
    assert "is a file in the module" in deeper
    assert (other, none) == ("", "")
    assert (server.module / "d" / name).read_text() == "precious"
    assert (server.module / "d/a").read_text() == (server.module / "a").read_text() == "x"


@pytest.mark.parametrize(("make", "what"), [("link", "a link"), ("link to a directory", "a link"), ("pipe", "a special file")])
def test_nothing_else_is_replaced_by_a_directory(
    server: Rsyncd, upload: Callable[..., list[str]], tmp_path: Path, make: str, what: str
) -> None:
    found = server.module / "a -> b"
    if make == "pipe":
        os.mkfifo(found)
    else:
        found.symlink_to(tmp_path if "directory" in make else "/nowhere")
    before = os.lstat(found)

    assert upload("a -> b/c") == [refusal("a -> b/c", "a -> b", what)]

    assert os.path.samestat(os.lstat(found), before)


def test_an_own_file_in_the_place_of_a_directory_stays_until_a_task_deletes_it(actor: Actor, upload: Callable[..., list[str]]) -> None:
    assert upload("d/a") == [""]
    assert upload("d/a/b") == [refusal("d/a/b", "d/a", "a file")]

    actor.delete(File("d/a"))
    assert upload("d/a/b") == [""]
    actor.delete(File("d/a/b"))
    assert upload("d/a") == [""]
    assert upload("d/a/b") == [refusal("d/a/b", "d/a", "a file")], "the directory is not remembered"

    assert [file.key for file in listing_of(actor, "")] == ["d/a"]


def test_directories_are_checked_once(actor: RsyncActor, upload: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert upload("a/b/1", "c/2") == ["", ""]
    looked_up: list[bytes] = []
    monkeypatch.setattr("autosync.actors.rsync.any_of", lambda paths: looked_up.append(b"") or b"")

    assert upload("a/b/3", "a/4", "c/5", "6") == [""] * 4

    assert looked_up == []
