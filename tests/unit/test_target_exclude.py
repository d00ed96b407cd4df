"""`--target-exclude`: keys that begin so are out of scope, as if neither side had them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from autosync.compare.scan import Comparison, ScanReport
from autosync.model.keys import Keys, Source
from autosync.model.mirror import Mirror
from lab.comparing import FixedTarget, fill

NAMES = ("a", "in/a", "in/b/c", "inner", "other/in/a")


def keys_of(tree: Path, *excluded: str, source_prefix: str | None = None) -> Keys:
    return Keys([Source(str(tree))], f"{tree}/" if source_prefix is None else source_prefix, target_exclude=excluded)


@pytest.mark.parametrize("kind", ["in the source", "in the target", "on both sides"])
def test_what_is_excluded_is_neither_sent_nor_deleted(tree: Path, kind: str) -> None:
    if kind != "in the target":
        fill(tree, *NAMES)
    else:
        fill(tree, "z")
    target = FixedTarget(*NAMES) if kind != "in the source" else FixedTarget()

    report = ScanReport()
    found = Comparison(keys_of(tree, "in/"), target).differences("", report)

    kept = {"a", "inner", "other/in/a"}
    assert {one.key for one in found} - {"z"} == kept, "the objects are older than the files"
    assert report.equal + report.extra == len(kept) * (kind != "in the source")


def test_keys_and_paths_that_are_excluded_are_in_no_scope(tree: Path) -> None:
    keys = keys_of(tree, "in/", "other/in")

    assert [name for name in NAMES if keys.path(name) is not None] == ["a", "inner"]
    assert [name for name in NAMES if keys.covers(f"{tree}/{name}")] == ["a", "inner"]
    assert not keys.enters(f"{tree}/in")
    assert keys.enters(f"{tree}/other")
    assert keys.spans(f"{tree}/in") == []


def test_a_directory_is_entered_above_the_prefix_that_is_removed(tree: Path) -> None:
    """The files below that prefix have other keys than the directory above it."""
    fill(tree, "in/a", "in/deep/b")
    keys = keys_of(tree, f"{tree}/in/", source_prefix=f"{tree}/in/deep/")

    assert keys.enters(f"{tree}/in")
    assert not keys.covers(f"{tree}/in/a")
    assert keys.covers(f"{tree}/in/deep/b")
    assert [one.key for one in Comparison(keys, FixedTarget()).differences("", ScanReport())] == ["b"]


def test_a_part_that_is_excluded_as_a_whole_is_not_listed(tree: Path) -> None:
    class Listed(FixedTarget):
        prefixes: tuple[str, ...] = ()

        def list(self, prefix: str = "") -> object:  # type: ignore[override]
            self.prefixes += (prefix,)
            return super().list(prefix)

    target = Listed()
    os.mkdir(tree / "in")
    fill(tree, "in/a", "a")
    keys = Keys([Source(f"{tree}/in"), Source(f"{tree}/a", is_file=True)], f"{tree}/", target_exclude=["in/"])

    assert [one.key for one in Comparison(keys, target).differences("", ScanReport())] == ["a"]
    assert target.prefixes == ("a",)


def test_a_scope_without_an_exclusion_is_wider() -> None:
    one = Mirror("m", "file", (Source("/s"),), target_exclude=("in/",))

    assert one.is_within_scope_of(replace(one, target_exclude=()))
    assert not replace(one, target_exclude=()).is_within_scope_of(one)
