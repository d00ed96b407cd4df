"""Files with several names: what is written through one name is sent under all of them. Real kernel, real ledger."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lab.comparing import fill
from lab.servers import wait_until
from lab.watch_pipeline import WatchPipeline


def settled(kept: WatchPipeline) -> None:
    wait_until(kept.is_idle, what="nothing is pending")


def test_a_file_that_is_saved_under_one_name_is_sent_under_the_others(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    fill(tree, "d/a")
    os.link(tree / "d/a", tree / "b")
    os.symlink("b", tree / "link")
    kept = pipeline()
    settled(kept)
    scans = kept.scans()

    (tree / "d/a").write_text("longer than before")
    for key in ("d/a", "b", "link"):
        wait_until(lambda key=key: kept.sent.states[key] == kept.state("d/a"), 20, f"{key} is sent")  # type: ignore[misc]
    settled(kept)
    assert kept.scans() == scans, "without another scan"


def test_names_that_come_and_go_are_followed(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    fill(tree, "a", "alone")
    kept = pipeline()
    settled(kept)
    scans = kept.scans()

    os.link(tree / "a", tree / "b")
    kept.wait_for("b")
    (tree / "a").write_text("through the old name")
    wait_until(lambda: kept.sent.states.get("b") == kept.state("a"), 20, "the new name is sent")
    (tree / "b").write_text("through the new name")
    wait_until(lambda: kept.sent.states["a"] == kept.state("b"), 20, "the old name is sent")
    settled(kept)

    times = kept.sent.keys["b"]
    os.rename(tree / "b", tree / "c")
    kept.wait_for("c")
    wait_until(lambda: kept.sent.keys["b"] > times, 20, "the name that is gone is deleted")
    (tree / "c").unlink()
    (tree / "a").write_text("alone")
    wait_until(lambda: kept.sent.states["a"] == kept.state("a"), 20, "the last name is sent")
    settled(kept)
    assert len(kept.hard_links) == 0
    assert kept.hard_links.unsure() == 0
    assert kept.scans() == scans


def test_a_name_out_of_scope_is_a_name(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    fill(tree, "a")
    os.link(tree / "a", tree / "a.tmp")
    os.link(tree / "a", tree / "b")
    kept = pipeline()
    settled(kept)

    (tree / "a.tmp").write_text("through a temporary name")
    for key in ("a", "b"):
        wait_until(lambda key=key: kept.sent.states[key] == kept.state("a"), 20, f"{key} is sent")  # type: ignore[misc]
    assert "a.tmp" not in kept.sent.keys


def test_a_file_that_is_delivered_by_link_and_unlink_causes_no_scan(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    fill(tree, "tmp/0", "new/0")
    os.link(tree / "new/0", tree / "new/1")
    kept = pipeline()
    settled(kept)

    for number in range(2, 30):
        (tree / f"tmp/{number}").write_text(str(number))
        os.link(tree / f"tmp/{number}", tree / f"new/{number}")
        (tree / f"tmp/{number}").unlink()
    for number in range(2, 30):
        kept.wait_for(f"new/{number}")
    settled(kept)
    assert kept.hard_links.unsure() == 0


def test_a_file_with_many_names_is_sent_once_under_each(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    (tree / "d").mkdir()
    fill(tree, "first")
    for number in range(300):
        os.link(tree / "first", tree / f"d/{number}")
    kept = pipeline()
    settled(kept)
    before = dict(kept.sent.keys)

    (tree / "first").write_text("changed")
    for number in range(300):
        wait_until(lambda key=f"d/{number}": kept.sent.states[key] == kept.state("first"), 20, "each is sent")  # type: ignore[misc]
    settled(kept)
    assert {kept.sent.keys[f"d/{number}"] - before[f"d/{number}"] for number in range(300)} == {1}


def test_a_name_without_its_marker_is_a_name(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    fill(tree, "a", "b.done")
    os.link(tree / "a", tree / "b")
    kept = pipeline(done_marker="{}.done")
    settled(kept)

    (tree / "a").write_text("through the name that is not sent")
    wait_until(lambda: kept.sent.states["b"] == kept.state("a"), 20, "b is sent")
    assert "a" not in kept.sent.keys
