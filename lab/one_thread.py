"""Tests that need a process with one thread, in an interpreter of their own.

A process may be forked only as long as it has one thread (autosync.processes). A worker of pytest-xdist always has more, as has a process
in which other tests have run. So another pytest runs the tests of a file with the marker `one_thread`, all that were chosen of the file
together, and each has the outcome that it had there. With pytest-xdist such a file belongs to one worker (tests/conftest.py).
`pytest --one-thread FILE` runs them in place, for a debugger.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from . import ROOT

OPTION = "--one-thread"
_LIMIT = 300.0
_OUTCOMES = pytest.StashKey[dict[Path, dict[str, str]]]()


class OneThreadItem(pytest.Item):
    """Stands in the place of a test, and has its outcome in the other interpreter."""

    def runtest(self) -> None:
        outcomes = self.config.stash.setdefault(_OUTCOMES, {})
        if self.path not in outcomes:
            chosen = [item.name for item in self.session.items if isinstance(item, OneThreadItem) and item.path == self.path]
            outcomes[self.path] = _run(self.path, chosen)
        failure = outcomes[self.path].get(self.name, "it was not run in the interpreter of its own")
        if failure:
            raise AssertionError(failure)

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
    made.add_marker(pytest.mark.timeout(_LIMIT))
    return made


def _run(file: Path, names: list[str]) -> dict[str, str]:
    """How each test of a file ended: an empty text if it passed, else what is reported of it."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", OPTION, "-n0", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        ended = subprocess.run(
            [*command, *(f"{file}::{name}" for name in names)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_LIMIT, check=False,
        )  # fmt: skip
        if not report.exists():
            return dict.fromkeys(names, ended.stdout)
        return {
            case.attrib["name"]: "\n".join(part.text or str(part.attrib) for part in case)
            for case in ElementTree.parse(report).iter("testcase")
        }
