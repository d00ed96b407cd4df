"""Prints what `coverage run` has measured: statements and branches by folder, and for each promise the lines that no test runs.

    python -m lab.coverage_report

A promise's modules are those that the table of promises in docs/design.md names as what keeps it.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from coverage import Coverage

from . import ROOT

#: A row of the table: number, promise, what keeps it, what tests it.
_PROMISE = re.compile(r"^\| (\d) \| ([^:|]*)[^|]*\| ([^|]*)\|", re.MULTILINE)
_MODULE = re.compile(r"`([\w/]+)\.py`|`(\w+)/`")

Files = dict[str, dict[str, Any]]


def measured() -> Files:
    """What was measured of each file of the package, by its path: `summary` and `missing_lines` of coverage's JSON report.

    Raises:
        coverage.exceptions.CoverageException: nothing was measured.
    """
    coverage = Coverage()
    coverage.load()
    report = ROOT / ".coverage.json"
    stdout, sys.stdout = sys.stdout, io.StringIO()  # it prints where it writes
    try:
        coverage.json_report(outfile=str(report))
    finally:
        sys.stdout = stdout
    found: Files = json.loads(report.read_text())["files"]
    report.unlink()
    return found


def by_folder(files: Files) -> str:
    """A line for each folder: statements and branches, and the share of both that was run."""
    numbers: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for path, file in files.items():
        summary = file["summary"]
        row = [summary["num_statements"], summary["covered_lines"], summary["num_branches"], summary["covered_branches"]]
        for folder in (str(Path(path).parent), "all"):
            numbers[folder] = [old + new for old, new in zip(numbers[folder], row, strict=True)]
    lines = ["statements  run     branches  run     folder"]
    for folder in sorted(numbers, key=lambda folder: (folder == "all", folder)):
        statements, run, branches, taken = numbers[folder]
        lines.append(f"{statements:10}  {_share(run, statements)}  {branches:8}  {_share(taken, branches)}  {folder}")
    return "\n".join(lines)


def by_promise(files: Files, design: str) -> str:
    """A line for each promise with the number of lines that no test runs, and below it these lines by file."""
    lines = []
    for number, promise, keeps in _PROMISE.findall(design):
        missing = {path: file["missing_lines"] for path, file in files.items() if file["missing_lines"] and _keeps(path, keeps)}
        lines.append(f"{number} {promise.strip()}: {sum(map(len, missing.values()))} lines that no test runs")
        lines += [f"    {path}: {_ranges(numbers)}" for path, numbers in sorted(missing.items())]
    return "\n".join(lines)


def _keeps(path: str, keeps: str) -> bool:
    return any(
        path == f"autosync/{module}.py" or (folder and path.startswith(f"autosync/{folder}/")) for module, folder in _MODULE.findall(keeps)
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:5.1f}%" if whole else "     -"


def _ranges(numbers: list[int]) -> str:
    """`[1, 2, 3, 7]` as `1-3 7`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


if __name__ == "__main__":
    found = measured()
    print(by_folder(found), "", by_promise(found, (ROOT / "docs/design.md").read_text(encoding="utf-8")), sep="\n")
