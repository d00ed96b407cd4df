"""Targets that are directories, and the paths by which bind mounts show them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from autosync.model.target_scope import SharedKeys, TargetScope
from autosync.source.mounts import real_paths
from lab.mounting import Mounts, mounts_of_test


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    with mounts_of_test() as made:
        yield made


def scope(container: Path, prefix: str = "") -> TargetScope:
    settings = {"target_container": str(container)}
    return TargetScope(Mirror("m", "file", (Source("/s"),), source_prefix="/s/", target_prefix=prefix, settings=settings), real_paths)


def meet(one: TargetScope, other: TargetScope) -> bool:
    assert one.meets(other) == other.meets(one)
    return one.meets(other)


@pytest.mark.parametrize("on", ["the disk", "a file system of its own"])
def test_mirrors_meet_in_a_directory_that_a_bind_mount_shows_elsewhere(mounts: Mounts, tmp_path: Path, on: str) -> None:
    data, view = tmp_path / "da ta", tmp_path / "vi\\ew"
    if on != "the disk":
        mounts.mount(data)
    for name in ("sub/deep", "beside"):
        (data / name).mkdir(parents=True)
    mounts.bind(data / "sub", view)
    (tmp_path / "link").symlink_to(view)

    for container in (view, view / "deep", tmp_path / "link", view / "not there yet"):
        assert meet(scope(data), scope(container)), container
        assert meet(scope(data, "sub/"), scope(container)), container
        assert not meet(scope(data, "beside/"), scope(container)), container
        assert not meet(scope(data / "beside"), scope(container)), container
    assert not meet(scope(data / "sub/deep"), scope(view, "other/"))
    assert meet(scope(data / "sub/deep"), scope(view, "deep/"))
    shared = SharedKeys(scope(data), [scope(view, "deep/")])
    assert [key for key in ("a", "sub/a", "sub/deep/a", "deep/a") if key in shared] == ["sub/deep/a"]


def test_a_directory_that_another_mount_hides_is_no_path_of_it(mounts: Mounts, tmp_path: Path) -> None:
    data, view = tmp_path / "data", tmp_path / "view"
    (data / "sub").mkdir(parents=True)
    mounts.bind(data, view)
    mounts.mount(data / "sub")
    assert set(real_paths(str(data))) == {str(data), str(view)}
    assert real_paths(str(data / "sub")) == (str(data / "sub"),)
    assert real_paths(str(view / "sub")) == (str(view / "sub"),)

    assert not meet(scope(data / "sub"), scope(view / "sub"))
