"""The number of skipped paths in the report of a scan."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autosync.compare import scan as scan_module
from autosync.files import File, Listing
from lab.comparing import FixedTarget, scan


@pytest.mark.parametrize("is_sorted", [True, False])
def test_a_scan_counts_the_skipped_paths_that_it_does_not_list(tree: Path, monkeypatch: pytest.MonkeyPatch, is_sorted: bool) -> None:
    monkeypatch.setattr(scan_module, "MOST_SKIPPED", 3)

    class Target(FixedTarget):
        """Claims to be sorted."""

        def list(self, prefix: str = "") -> Listing:
            return Listing((File(key, 0, 0.0) for key in self.keys), already_sorted=True)

    for number in range(7):
        os.mkfifo(tree / f"{number}")
    (tree / "file").touch()

    _, report = scan(tree, Target("x", "y") if is_sorted else Target("y", "x"))

    assert sorted(report.skipped) == [f"{tree}/{number}" for number in range(3)]
    assert report.unlisted_skipped == 4
    assert report.skipped_list().total_text() == "7"
