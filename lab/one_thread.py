"""Tests that need a process with one thread, in an interpreter of their own.

A process may be forked only as long as it has one thread (autosync.process.child). A worker of pytest-xdist always has more, as has a
process in which other tests have run. So another pytest runs the tests of a file with the marker `one_thread`, all that were chosen of the
file together, and each has the outcome that it had there. With pytest-xdist such a file belongs to one worker (tests/conftest.py).
`pytest --one-thread FILE` runs them in place, for a debugger.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from . import ROOT

OPTION = "--one-thread"
_LIMIT = 300.0


class _TestResult(NamedTuple):
    """The outcome of a test. `text`: why the test failed or was skipped; empty if it passed."""

    text: str
    skipped: bool


_RESULTS = pytest.StashKey[dict[Path, tuple[dict[str, _TestResult], str]]]()


class OneThreadItem(pytest.Item):
    """Stands in the place of a test, and has its outcome in the other interpreter."""

    def runtest(self) -> None:
        files = self.config.stash.setdefault(_RESULTS, {})
        if self.path not in files:
            chosen = [item for item in self.session.items if isinstance(item, OneThreadItem) and item.path == self.path]
            files[self.path] = _run(self.path, [item.within for item in chosen])
        outcomes, output = files[self.path]
        outcome = outcomes.get(self.within)
        if outcome is None:
            raise AssertionError(f"it was not run in the interpreter of its own:\n{output}")
        if outcome.skipped:
            pytest.skip(outcome.text)
        if outcome.text:
            raise AssertionError(outcome.text)

    @property
    def within(self) -> str:
        """Its name below the file, classes included."""
        return self.nodeid.partition("::")[2]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name


def replaced(item: pytest.Item) -> pytest.Item:
    """What is run for a test: itself, or, where it has the marker, a OneThreadItem."""
    if item.get_closest_marker("one_thread") is None or item.config.getoption(OPTION):
        return item
    assert item.parent is not None
    made: OneThreadItem = OneThreadItem.from_parent(item.parent, name=item.name)
    made.add_marker(pytest.mark.timeout(2 * _LIMIT))
    return made


def _run(file: Path, names: list[str]) -> tuple[dict[str, _TestResult], str]:
    """How each test of a file ended, by its name below the file, and all that was printed."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", OPTION, "-p", "no:xdist", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        try:
            ended = subprocess.run(
                [*command, *(f"{file}::{name}" for name in names)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_LIMIT,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as expired:
            return {}, f"it has not ended within {_LIMIT:g} s:\n{(expired.stdout or b'').decode(errors='replace')}"
        if not report.exists():
            return {}, ended.stdout
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        outcomes = {}
        for case in ElementTree.parse(report).iter("testcase"):
            classes = case.attrib["classname"].removeprefix(module).lstrip(".").split(".")
            text = "\n".join(part.text or str(part.attrib) for part in case)
            outcomes["::".join(filter(None, [*classes, case.attrib["name"]]))] = _TestResult(text, case.find("skipped") is not None)
        return outcomes, ended.stdout
