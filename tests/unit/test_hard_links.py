"""The names of files with more than one name. Real files; the events and the scans are calls of the test."""

from __future__ import annotations

import os
import time
from pathlib import Path

from autosync.compare.scan import Comparison, ScanReport
from autosync.model.keys import Keys, Source
from autosync.source.entry import inode_of
from autosync.watch import hard_links
from autosync.watch.hard_links import HardLinks
from lab.comparing import FixedTarget, fill


def scanned(links: HardLinks, tree: Path, *, complete: bool = True) -> HardLinks:
    """Fill a table by a scan."""
    links.begin_scan()
    comparison = Comparison(Keys([Source(str(tree))], source_prefix=f"{tree}/"), FixedTarget())
    list(comparison.differences("", ScanReport(on_hard_link=links.add)))
    links.end_scan(complete=complete)
    return links


def saved(links: HardLinks, path: Path) -> list[str]:
    """The other names of a file that was saved under a name, by the last part of each."""
    stats = path.stat()
    return [other.rpartition("/")[2] for other in links.saved(str(path), inode_of(stats), stats.st_nlink)]


def linked(tree: Path, first: str, *others: str) -> None:
    fill(tree, first)
    for other in others:
        os.link(tree / first, tree / other)


def test_a_scan_finds_the_names_of_files_that_have_more_than_one(tree: Path) -> None:
    linked(tree, "a", "b", "c")
    fill(tree, "alone", "d/alone")
    os.symlink("b", tree / "to b")
    links = scanned(HardLinks(), tree)

    assert len(links) == 4
    assert saved(links, tree / "b") == ["a", "c", "to b"]
    assert links.unsure() == 0


def test_a_name_that_is_gone_or_names_another_file_is_dropped(tree: Path) -> None:
    linked(tree, "a", "b", "c", "d", "e")
    links = scanned(HardLinks(), tree)
    (tree / "b").unlink()
    (tree / "c").unlink()
    fill(tree, "c")

    assert saved(links, tree / "a") == ["d", "e"]
    assert len(links) == 3
    links.discard(str(tree / "d"))
    links.discard(str(tree / "never there"))
    assert len(links) == 2


def test_a_scan_replaces_the_names_if_it_is_complete(tree: Path) -> None:
    linked(tree, "a", "b")
    links = scanned(HardLinks(), tree)
    os.rename(tree / "a", tree / "c")

    scanned(links, tree, complete=False)
    assert len(links) == 3
    scanned(links, tree)
    assert len(links) == 2
    assert saved(links, tree / "b") == ["c"]


def test_a_file_whose_first_name_is_missing_is_unsure_until_the_next_scan(tree: Path) -> None:
    fill(tree, "first")
    links = scanned(HardLinks(), tree)
    assert not links
    os.link(tree / "first", tree / "second")
    links.add(str(tree / "second"), inode_of((tree / "second").stat()))

    assert saved(links, tree / "second") == []
    assert links.unsure() == 1
    assert links.unsure(before=time.monotonic() - 60) == 0, "it is not that old"
    scanned(links, tree)
    assert links.unsure() == 0
    assert saved(links, tree / "second") == ["first"]


def test_a_scan_that_had_begun_before_settles_nothing(tree: Path) -> None:
    linked(tree, "first", "second")
    links = HardLinks()
    links.begin_scan()
    saved(links, tree / "second")
    links.end_scan(complete=True)

    assert links.unsure() == 1


def test_names_that_are_found_or_go_make_a_file_sure(tree: Path) -> None:
    linked(tree, "x.tmp", "x")
    linked(tree, "y.tmp", "y")
    linked(tree, "z", "z2")
    links = HardLinks()
    for name in ("x.tmp", "y.tmp", "z"):
        saved(links, tree / name)
    assert links.unsure() == 3

    links.add(str(tree / "x"), inode_of((tree / "x").stat()))
    assert links.unsure() == 2
    (tree / "y.tmp").unlink()
    assert links.unsure() == 2, "the other name is still not known"
    links.found_alone(str(tree / "y"), inode_of((tree / "y").stat()))
    assert links.unsure() == 1
    (tree / "z2").unlink()
    assert links.unsure() == 0


def test_a_name_outside_the_source_causes_one_scan_and_no_more(tree: Path, tmp_path: Path) -> None:
    linked(tree, "a", "b")
    os.link(tree / "a", tmp_path / "outside")
    links = scanned(HardLinks(), tree)

    assert saved(links, tree / "a") == ["b"]
    assert links.unsure() == 1, "the name may have been made while the scan was running"
    scanned(links, tree)
    assert saved(links, tree / "a") == ["b"]
    assert links.unsure() == 0


def test_one_name_with_two_paths_counts_once(tree: Path) -> None:
    linked(tree, "d/a")
    os.symlink("d", tree / "link")
    links = scanned(HardLinks(), tree)
    os.link(tree / "d/a", tree / "d/b")
    for name in ("d/b", "link/b"):
        links.add(str(tree / name), inode_of((tree / name).stat()))

    assert saved(links, tree / "d/b") == ["b"]
    assert links.unsure() == 1, "two paths, and two links, but the name d/a is missing"


def test_the_table_is_bounded_and_reports_it(tree: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    linked(tree, "a", "b", "c")
    links = scanned(HardLinks(max_names=2), tree)
    assert (len(links), links.is_full) == (2, True)
    scanned(links, tree)
    saved(links, tree / "a")
    assert links.unsure() == 1, "one of its names is not in the table, though a scan has found it"

    monkeypatch.setattr(hard_links, "_MAX_UNSURE", 1)
    for name in ("d", "e", "f"):
        linked(tree, name, f"{name}2")
        saved(links, tree / name)
    for name in ("a", "d", "e", "f"):
        (tree / name).unlink()
        (tree / f"{name}2").unlink(missing_ok=True)
    assert links.unsure() == 2
    (tree / "b").unlink()
    scanned(links, tree)
    assert (len(links), links.is_full, links.unsure()) == (0, False, 0)
