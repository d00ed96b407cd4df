"""The number of skipped paths: in the report of a scan, in the summary, in a dry run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autosync.compare import scan as scan_module
from autosync.daemon.status_line import summary
from autosync.files import File, Listing
from autosync.ledger import MirrorStats
from autosync.model.skipped import SkippedList
from lab.commands import Commands
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


@pytest.mark.parametrize(("unlisted", "text"), [(0, ", skipped 2,"), (7, ", skipped 9,")])
def test_the_summary_counts_skipped_paths_that_are_not_listed(unlisted: int, text: str) -> None:
    stats = MirrorStats("", "", 0, 0, 0, 0, 0, 0, 0.0, False, 0)

    assert text in summary(stats, stats, 1.0, skipped=SkippedList({"/s/a": "is a FIFO", "/s/b": "is a FIFO"}, unlisted))
    assert "skipped" not in summary(stats, stats, 1.0, skipped=SkippedList({}))


def test_a_dry_run_counts_the_skipped_paths_that_it_does_not_list(
    commands: Commands, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "MOST_SKIPPED", 2)
    (tmp_path / "target").mkdir()
    for number in range(5):
        os.mkfifo(tree / f"{number}")
    (tree / "file").touch()

    done = commands.run(
        "autosync", "--dry-run", "--actor=file", f"--target-container={tmp_path}/target", f"--source-prefix={tree}/", str(tree)
    )

    assert done.stdout.splitlines() == [
        "upload file",
        f"skip {tree}/0 is a FIFO",
        f"skip {tree}/1 is a FIFO",
        "and 3 more skipped paths, 5 in all",
    ]
