"""Failed scans are remembered until their parts were scanned."""

from __future__ import annotations

import pytest

from autosync.errors import TargetError
from autosync.feed.scan_failures import FailedScan, failures_after

AWAY = TargetError("the target is away")


@pytest.mark.parametrize(
    ("ended", "left"),
    [
        ("/s/a! /s/b! /s/b", {"/s/a": 1}),
        ("/s/a! /s/b! /s/a", {"/s/b": 1}),
        ("/s/a! /s/a! /s/b /s/a!", {"/s/a": 3}),
        ("/s/a! /s/ab!  /s/a", {"/s/ab": 1}),
        ("/s/a! /s/b! /s", {}),
        ("/s/a! /s!", {"/s": 1}),
        ("/s! /s/a! /s/a", {"/s": 1}),
        ("/s/a! /s/b! ALL", {}),
        ("/s/a! ALL!", {"": 1}),
        ("ALL! ALL! /s", {"": 2}),
        ("ALL! /s/a! ALL!", {"": 2}),
    ],
)
def test_a_failed_scan_is_remembered_until_one_of_the_same_part_or_of_more_has_succeeded(ended: str, left: dict[str, int]) -> None:
    """A scan that failed is followed by `!`."""
    failures: dict[str, FailedScan] = {}
    for one in ended.split():
        path = one.rstrip("!").replace("ALL", "")
        failures = failures_after(failures, path, AWAY if one.endswith("!") else None)

    assert {path: failed.times for path, failed in failures.items()} == left
    assert all(failed.path == path for path, failed in failures.items())
