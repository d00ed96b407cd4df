"""--min-size and --max-size: files that are skipped for their size, and keys that stay in the target."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autosync.compare.scan import Comparison, Policy, ScanReport
from autosync.errors import ConfigurationError
from autosync.model.file_rules import FileRules, parse_size_bounds
from autosync.model.keys import Keys, Source
from autosync.source.walk import Walk
from lab.comparing import FixedTarget

RULES = FileRules(min_size=2, max_size=4)


@pytest.mark.parametrize(
    ("least", "most", "bounds"),
    [
        (None, None, (0, None)),
        ("", "none", (0, None)),
        ("0", "0", (0, None)),
        ("1B", "1GiB", (1, 1 << 30)),
        ("512kB", None, (512_000, None)),
        ("1.5 MB", "5TB", (1_500_000, 5 * 10**12)),
        ("1kB", "1kB", (1000, 1000)),
    ],
)
def test_bounds_are_numbers_with_a_unit(least: str | None, most: str | None, bounds: tuple[int, int | None]) -> None:
    assert parse_size_bounds(least, most) == bounds


@pytest.mark.parametrize(
    ("least", "most", "line"),
    [
        ("5", None, "--min-size '5' cannot be used; write bytes with a unit"),
        (None, "5 Mb", "--max-size '5 Mb' cannot be used; write bytes with a unit"),
        (None, "-1B", "--max-size '-1B' cannot be used"),
        (None, "0B", "--max-size '0B' cannot be used; write at least 1B, or none"),
        ("0.5B", None, "--min-size '0.5B' cannot be used; write at least 1B, or none"),
        ("2MB", "1MB", "--max-size 1MB is less than --min-size 2MB; no file would be sent"),
    ],
)
def test_bounds_that_cannot_be_used_are_refused(least: str | None, most: str | None, line: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_size_bounds(least, most)
    assert str(refused.value).startswith(line)


def test_a_walk_finds_what_is_out_of_bounds_as_skipped_and_keeps_it_in_the_target(tree: Path) -> None:
    for size in range(7):
        (tree / str(size)).write_bytes(bytes(size))
    (tree / "to 6").symlink_to("6")
    (tree / "to 3").symlink_to("3")

    found = {one.path[len(f"{tree}/") :]: (one.skipped, one.keep_in_target) for one in Walk(str(tree), str(tree), rules=RULES)}

    small, large = ("is smaller than --min-size, 2 bytes", True), ("is larger than --max-size, 4 bytes", True)
    sent = ("", False)
    assert found == {"0": small, "1": small, "2": sent, "3": sent, "4": sent, "5": large, "6": large, "to 6": large, "to 3": sent}


@pytest.mark.parametrize("has_others", [True, False])
def test_a_scan_sends_and_deletes_nothing_for_a_file_that_is_out_of_bounds(tree: Path, has_others: bool) -> None:
    (tree / "grown").write_bytes(bytes(9))
    if has_others:
        (tree / "fits").write_bytes(bytes(3))
    target = FixedTarget("grown", "gone")
    report = ScanReport()
    comparison = Comparison(Keys([Source(str(tree))], source_prefix=f"{tree}/"), target, Policy(rules=RULES))

    found = list(comparison.differences("", report))

    assert [(one.key, one.found is None) for one in found] == [("fits", False)] * has_others + [("gone", True)]
    assert report.skipped == {f"{tree}/grown": "is larger than --max-size, 4 bytes"}


def test_many_files_of_which_one_is_out_of_bounds_stay_in_order(tree: Path) -> None:
    names = [f"{number:04}" for number in range(2500)]
    for name in names:
        os.close(os.open(tree / name, os.O_CREAT | os.O_WRONLY))
        os.truncate(tree / name, 9 if name.endswith("77") else 3)

    found = [(one.path[-4:], bool(one.skipped)) for one in Walk(str(tree), str(tree), rules=RULES)]

    assert found == [(name, name.endswith("77")) for name in names]
