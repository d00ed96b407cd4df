"""What a scan requests from the target and the source besides the two listings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.actor import Actor
from autosync.compare.diff import Compare
from autosync.compare.repeated_keys import without_end_refused
from autosync.compare.scan import Comparison, Policy, ScanReport
from autosync.compare.source_walks import SourceWalks
from autosync.errors import TargetError
from autosync.files import File, Listing, Page, PagedListing
from autosync.model.file_rules import FileRules
from autosync.model.keys import Keys, Source
from lab.servers import wait_until


class Target(Actor):
    """A target with one object of three bytes, created so many seconds from now by a clock that is so far ahead."""

    def __init__(self, made: float, ahead: float) -> None:
        super().__init__()
        self.made = time.time() + made + ahead
        self.ahead = ahead
        self.clock_reads = 0

    def list(self, prefix: str = "") -> Listing:
        return Listing([File("f", 3, self.made, "etag")], already_sorted=True)

    def can_match(self, listed: File) -> bool:
        return True

    def clock_ahead(self) -> float:
        self.clock_reads += 1
        return self.ahead


def etags(tree: Path, target: Actor, **policy: object) -> list[str | None]:
    """The etags of the differences, each of which a worker compares with first."""
    comparison = Comparison(Keys([Source(str(tree))], source_prefix=f"{tree}/"), target, Policy(**policy))  # type: ignore[arg-type]
    return [one.etag for one in comparison.differences("", ScanReport())]


@pytest.mark.parametrize("ahead", [-7200.0, -30.0, 0.0, 30.0, 7200.0])
def test_a_clock_that_is_wrong_makes_no_difference(tree: Path, ahead: float) -> None:
    (tree / "f").write_text("new")

    newer, older = Target(60, ahead), Target(-60, ahead)

    assert etags(tree, newer) == [], "the object was made after the file"
    assert etags(tree, older) == ["etag"], "the object was made before the file"
    assert newer.clock_reads == 1


@pytest.mark.parametrize("path", ["current", "twice/d", "current/d"])
@pytest.mark.parametrize("below", ["", "/e"], ids=["all", "a directory"])
@pytest.mark.parametrize("follow", [False, True])
def test_a_root_whose_link_was_switched_has_changed_with_all_files(tmp_path: Path, path: str, below: str, follow: bool) -> None:
    """As releases are switched: the files may be older than what the target has, and as large."""
    for version in ("old", "new"):
        (tmp_path / version / "d/e").mkdir(parents=True)
        (tmp_path / version / "d/e/f").write_text(version)
    (tmp_path / "current").symlink_to("old")
    (tmp_path / "twice").symlink_to(tmp_path / "current")
    wait_until(lambda: time.time() > (tmp_path / "new/d/e/f").stat().st_ctime + 0.05)
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").rename(tmp_path / "current")
    switched = (tmp_path / "current").lstat().st_ctime
    directory = f"{tmp_path / path}{'/d' if path == 'current' and below else ''}{below}"
    keys = Keys([Source(str(tmp_path / path))], source_prefix=f"{tmp_path / path}/")

    (span,) = keys.spans(directory if below else "")
    (found,) = SourceWalks(keys, None).walk(span, FileRules(follow_links=follow))

    assert (tmp_path / "new/d/e/f").stat().st_ctime < switched == found.changed


def test_a_clock_that_cannot_be_read_ends_the_scan(tree: Path) -> None:
    class Broken(Target):
        def clock_ahead(self) -> float:
            raise RuntimeError("no clock")

    (tree / "f").write_text("new")
    with pytest.raises(TargetError, match="no clock"):
        etags(tree, Broken(0, 0))


def test_checksums_are_compared_whatever_the_times_are(tree: Path) -> None:
    (tree / "f").write_text("new")

    assert etags(tree, Target(60, 0), by=Compare.CHECKSUM) == ["etag"]
    assert etags(tree, Target(-60, 0), by=Compare.SIZE) == []


@pytest.mark.parametrize("circle", [1, 2, 50])
@pytest.mark.parametrize("already_sorted", [True, False])
def test_a_listing_that_runs_in_a_circle_ends_the_scan(tree: Path, circle: int, already_sorted: bool) -> None:
    class Circular(Target):
        def list(self, prefix: str = "") -> Listing:
            def pages() -> Iterator[Page]:
                for number in range(20_000):
                    yield Page([f"{number % circle:03}{half}" for half in "ab"], [3, 3], [self.made] * 2, ["", ""])
                raise AssertionError("it was read without an end")

            return PagedListing(pages(), already_sorted=already_sorted)

    (tree / "f").write_text("new")
    with pytest.raises(TargetError, match="gives the same keys again and again"):
        etags(tree, Circular(0, 0))


def test_a_key_that_is_listed_twice_or_at_the_edge_of_pages_is_no_circle() -> None:
    keys = [[f"{number:04}", f"{max(number - back, 0):04}"] for back in (1, 100) for number in range(300)]
    pages = [Page(two, [3, 3], [0.0, 0.0], ["", ""]) for two in [*keys, *keys]]

    assert list(without_end_refused(pages)) == pages
