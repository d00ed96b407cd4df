"""Paths as text, and links on the way to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from autosync.model.paths import is_at_or_below, itself_and_parents, parents
from autosync.source.beneath import leads_through_link
from autosync.watch.unmounted import UnmountedTrees


@pytest.mark.parametrize(("path", "above"), [("/a/b/c", ["/a/b", "/a", "/"]), ("/a", ["/"]), ("/", []), ("", [])])
def test_the_directories_that_contain_a_path(path: str, above: list[str]) -> None:
    assert list(parents(path)) == above
    assert list(itself_and_parents(path)) == [path, *above][: None if path else 0]


@pytest.mark.parametrize(
    ("path", "directory", "is_inside"),
    [("/a", "/a", True), ("/a/b", "/a", True), ("/ab", "/a", False), ("/a", "/a/b", False), ("/a", "/", True), ("/", "/", True),
     ("/", "/a", False), ("", "/", False), ("a/b", "a", True), ("ab", "a", False)],
)  # fmt: skip
def test_whether_a_path_is_at_or_below_a_directory(path: str, directory: str, is_inside: bool) -> None:
    assert is_at_or_below(path, directory) == is_inside


def test_a_link_in_the_path_of_the_root_is_none_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "real/d").mkdir(parents=True)
    (tmp_path / "real/link").symlink_to("d")
    (tmp_path / "root").symlink_to("real")
    root = f"{tmp_path}/root"

    assert [leads_through_link(root, root + below) for below in ("", "/d", "/d/f", "/link", "/link/f")] == [False, False, False, True, True]


@pytest.mark.parametrize("path", ["", "/", "/nothing-there"])
def test_the_root_directory_is_behind_no_link(path: str) -> None:
    assert not leads_through_link("/", path)


def test_an_unmounted_root_directory_contains_all_others() -> None:
    unmounted = UnmountedTrees()
    for number in range(1000):
        unmounted.add(f"/{number}")

    unmounted.add("/")

    assert unmounted.touches("/elsewhere")
