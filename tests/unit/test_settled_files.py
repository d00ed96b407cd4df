"""Whether a file rests: what is seen of it twice, and who writes to it. Its times may be a camera's, or another host's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autosync.compare.diff import Difference
from autosync.feed import settled_files as resting_module
from autosync.feed.settled_files import RestQueue
from autosync.model.change import Kind
from autosync.model.file_rules import FileRules
from autosync.model.file_state import QUIET_IF_WRITERS_UNKNOWN, FileState
from autosync.model.keys import Source
from autosync.source.entry import Entry, entry_at
from autosync.tasks import unchanged_files as unchanged_files_module
from autosync.tasks.unchanged_files import LONGEST_WRITE, UnchangedFiles
from autosync.watch import recheck as recheck_module
from autosync.watch.debounce import UnsentChange
from autosync.watch.recheck import PathState, recheck

QUIET = 1.0
#: A camera's clock, and that of a server: ahead, and behind.
TIMES = pytest.mark.parametrize("changed", [4e9, 1e9, 1.0], ids=["in the future", "long ago", "1970"])


class Clock:
    """Stands still unless it is wound."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "film"
    path.write_text("x")
    return path


def found(path: Path) -> Entry:
    seen = entry_at(str(path), path.stat(), FileRules())
    assert seen is not None
    return seen


# Files that a scan found

def waiting(path: Path, clock: Clock) -> RestQueue:
    resting = RestQueue(QUIET, clock)
    resting.add(Difference("film", found(path)), found(path))
    return resting


@TIMES
def test_a_file_rests_that_is_seen_unchanged_whatever_its_times_are(file: Path, clock: Clock, changed: float) -> None:
    os.utime(file, (changed, changed))
    resting = waiting(file, clock)
    clock.now += QUIET / 2
    assert (list(resting.due()), resting.seconds()) == ([], QUIET / 2)

    clock.now += QUIET / 2

    assert [(seen.difference.key, seen.rests) for seen in resting.due()] == [("film", True)]
    assert (len(resting), resting.seconds()) == (0, 0.0)


@TIMES
@pytest.mark.parametrize("change", ["written", "touched", "renamed over", "gone"])
def test_a_file_that_has_changed_does_not_rest(file: Path, clock: Clock, changed: float, change: str) -> None:
    os.utime(file, (changed, changed))
    resting = waiting(file, clock)
    if change == "written":
        file.write_text("y")
        os.utime(file, (changed + 1, changed + 1))
    elif change == "touched":
        os.utime(file)
    elif change == "renamed over":
        other = file.with_name("other")
        other.write_text("longer")
        other.rename(file)
    else:
        file.unlink()
    clock.now += QUIET

    assert [seen.rests for seen in resting.due()] == [False]


def test_a_file_that_somebody_has_open_for_writing_does_not_rest(file: Path, clock: Clock) -> None:
    with file.open("a"):
        os.utime(file, (1.0, 1.0))
        resting = waiting(file, clock)
        clock.now += 100 * QUIET

        assert [(seen.rests, seen.file_state.since) for seen in resting.due()] == [(False, 1000.0)]


@pytest.mark.parametrize("why", ["a share", "another user's"])
def test_where_the_kernel_does_not_report_writers_a_file_is_watched_for_longer(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    opened: list[str] = []

    def unknown(path: str) -> None:
        opened.append(path)

    monkeypatch.setattr(resting_module, "lies_on_share", lambda path: why == "a share")
    monkeypatch.setattr(resting_module, "has_writer", unknown)
    resting = waiting(file, clock)
    clock.now += QUIET
    assert list(resting.due()) == []
    assert resting.seconds() == QUIET_IF_WRITERS_UNKNOWN - QUIET

    clock.now += QUIET_IF_WRITERS_UNKNOWN - QUIET

    assert [seen.rests for seen in resting.due()] == [True]
    assert bool(opened) == (why != "a share"), "to open a file on a share is a request to its server"


def test_a_file_whose_path_is_too_long_to_be_named_is_waited_for(file: Path, clock: Clock) -> None:
    deep = found(file)._replace(path=f"{file.parent}/{'d/' * 2100}f")
    resting = RestQueue(QUIET, clock)
    resting.add(Difference("d", deep), deep)
    clock.now += QUIET
    assert list(resting.due()) == []

    clock.now += QUIET_IF_WRITERS_UNKNOWN

    assert [seen.rests for seen in resting.due()] == [True]


# Files that the kernel reported

def seen_at(path: Path, kind: Kind, file_state: FileState | None = None) -> PathState:
    one = UnsentChange(str(path), 0.0, 0.0, kind, file_state=file_state)
    return recheck(one, Source(str(path.parent)), quiet=QUIET, rules=FileRules())


@TIMES
def test_a_file_that_appeared_rests_once_it_was_seen_unchanged(file: Path, clock: Clock, changed: float) -> None:
    os.utime(file, (changed, changed))
    first = seen_at(file, Kind.APPEARED)
    clock.now += QUIET
    second = seen_at(file, Kind.APPEARED, first.file_state)
    os.utime(file, (changed + 1, changed + 1))
    third = seen_at(file, Kind.APPEARED, second.file_state)
    clock.now += QUIET / 2
    fourth = seen_at(file, Kind.APPEARED, third.file_state)
    clock.now += QUIET / 2
    fifth = seen_at(file, Kind.APPEARED, fourth.file_state)

    assert [one.rests for one in (first, second, third, fourth, fifth)] == [False, True, False, False, True]


@TIMES
def test_a_file_that_is_held_open_is_waited_for_until_its_writer_is_idle(file: Path, clock: Clock, changed: float) -> None:
    with file.open("a"):
        os.utime(file, (changed, changed))
        first = seen_at(file, Kind.APPEARED)
        clock.now += 9.9
        second = seen_at(file, Kind.APPEARED, first.file_state)
        clock.now += 0.1
        third = seen_at(file, Kind.APPEARED, second.file_state)

    assert [(one.rests, one.is_idle) for one in (first, second, third)] == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize("kind", [Kind.SAVED, Kind.DELETED])
def test_a_file_that_was_closed_rests_at_once(file: Path, clock: Clock, kind: Kind) -> None:
    os.utime(file, (4e9, 4e9))

    assert seen_at(file, kind).rests


@pytest.mark.parametrize("unknown", [False, True])
def test_a_file_that_was_made_complete_rests_at_once_where_the_kernel_reports_no_writer(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, unknown: bool
) -> None:
    if unknown:
        monkeypatch.setattr(recheck_module, "has_writer", lambda path: None)

    first = seen_at(file, Kind.CREATED)
    clock.now += QUIET_IF_WRITERS_UNKNOWN
    second = seen_at(file, Kind.CREATED, first.file_state)

    assert (first.rests, second.rests) == (not unknown, True)


# On an upload box

def test_for_a_worker_a_file_rests_once_it_was_unchanged_for_as_long_as_a_write_may_last(clock: Clock) -> None:
    files = UnchangedFiles(clock)
    one, other = (1, 2, 3, 4), (1, 2, 3, 5)
    answers = [files.has_rested("film", one)]
    clock.now += LONGEST_WRITE / 2
    answers.append(files.has_rested("film", one))
    clock.now += LONGEST_WRITE / 2
    answers += [files.has_rested("film", other), files.has_rested("another", one)]
    clock.now += LONGEST_WRITE
    answers.append(files.has_rested("film", other))

    assert answers == [False, False, False, False, True]
    assert not files.has_rested("film", other), "what was answered is forgotten"


def test_a_worker_remembers_a_bounded_number_of_files(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unchanged_files_module, "_MAX_FILES", 2)
    files = UnchangedFiles(clock)
    for key in "abc":
        files.has_rested(key, (1, 2, 3, 4))
    clock.now += LONGEST_WRITE

    assert [files.has_rested(key, (1, 2, 3, 4)) for key in "cba"] == [True, True, False]

