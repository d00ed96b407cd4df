"""Prints the results of `coverage run`: statements and branches by folder, and for each promise the lines that no test runs.

    python -m lab.coverage_report

The list of promises in docs/design.md names the modules of each promise.
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

#: An item of the list: number, promise, and the text about code, which the text about tests follows.
_PROMISE = re.compile(r"^(\d)\. \*\*([^*]*)\*\*.*?\n   - Code: (.*?)\n   - Tests: ", re.MULTILINE | re.DOTALL)
_MODULE = re.compile(r"`([\w/]+)\.py`|`(\w+)/`")

Files = dict[str, dict[str, Any]]


def measured() -> Files:
    """The results for each file of the package, by path: `summary` and `missing_lines` of coverage's JSON report.

    Raises:
        coverage.exceptions.CoverageException: there are no results.
    """
    coverage = Coverage()
    coverage.load()
    report = ROOT / ".coverage.json"
    stdout, sys.stdout = sys.stdout, io.StringIO()  # coverage prints the path of its report
    try:
        coverage.json_report(outfile=str(report))
    finally:
        sys.stdout = stdout
    found: Files = json.loads(report.read_text())["files"]
    report.unlink()
    return found


def by_folder(files: Files) -> str:
    """A line for each folder: statements and branches, and the share of both that was covered."""
    numbers: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for path, file in files.items():
        summary = file["summary"]
        row = [summary["num_statements"], summary["covered_lines"], summary["num_branches"], summary["covered_branches"]]
        for folder in (str(Path(path).parent), "all"):
            numbers[folder] = [old + new for old, new in zip(numbers[folder], row, strict=True)]
    lines = ["statements  run     branches  run     folder"]
    for folder in sorted(numbers, key=lambda folder: (folder == "all", folder)):
        statements, covered, branches, covered_branches = numbers[folder]
        lines.append(f"{statements:10}  {_share(covered, statements)}  {branches:8}  {_share(covered_branches, branches)}  {folder}")
    return "\n".join(lines)


def by_promise(files: Files, design: str) -> str:
    """A line for each promise with the number of lines that no test runs, and below it these lines by file."""
    lines = []
    for number, promise, code in _PROMISE.findall(design):
        missing = {path: file["missing_lines"] for path, file in files.items() if file["missing_lines"] and _is_named(path, code)}
        lines.append(f"{number} {promise.strip('.')}: {sum(map(len, missing.values()))} lines that no test runs")
        lines += [f"    {path}: {_ranges(numbers)}" for path, numbers in sorted(missing.items())]
    return "\n".join(lines)


def _is_named(path: str, code: str) -> bool:
    return any(
        path == f"autosync/{module}.py" or (folder and path.startswith(f"autosync/{folder}/")) for module, folder in _MODULE.findall(code)
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
