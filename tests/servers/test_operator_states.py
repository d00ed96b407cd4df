"""Every state in which keys are kept until an operator does something: in `autosync-ctl status`, in its JSON, in the metrics, and in the
exit code of a run, whether it ends by itself (`--once`) or by SIGTERM."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from autosync.actors.file import FileActor
from autosync.cli.ctl.mirrors import MirrorHandle
from autosync.cli.ctl.prometheus import MirrorCollector
from autosync.cli.ctl.status import lines, status_of
from autosync.compare.scan import Policy
from autosync.daemon import root_watch
from autosync.daemon.mirror_runner import MirrorRunner, RunSettings
from autosync.errors import AutosyncError, Exit, TargetError
from autosync.feed import scanner
from autosync.files import Listing
from autosync.ledger import GONE, UNKNOWN, Action, Ledger, Result, connect
from autosync.model.change import SCAN_ALL, Change, Kind
from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from autosync.model.root_identity import RootIdentity
from autosync.process.boot_id import boot_id
from autosync.watch.inotify import Inotify
from autosync.watch.watcher import Watcher
from lab.comparing import fill
from lab.servers import wait_until

KEYS = [f"{number:02}" for number in range(40)]


class Place(NamedTuple):
    """A source and a target that are equal, with 40 files, and a mirror of them that is accepted."""

    source: Path
    target: Path
    ledger: Ledger
    start: Callable[..., MirrorRunner]


@pytest.fixture
def place(broker: str, tmp_path: Path) -> Iterator[Place]:
    source, target, state = (tmp_path / name for name in ("source", "target", "state"))
    fill(source, *KEYS)
    shutil.copytree(source, target)
    state.mkdir()
    settings = {"target_container": f"{target}"}
    mirror = Mirror("m", "file", (Source(str(source)),), source_prefix=f"{source}/", queue="q", host=boot_id(), settings=settings)
    ends = ExitStack()
    ledger = Ledger(connect(broker), "m")

    def start(*, once: bool) -> MirrorRunner:
        runner = MirrorRunner(RunSettings(mirror, Policy(), FileActor(target_container=str(target)), broker, state, once, 0.0, 0.0), None)
        ends.callback(runner.leave)
        assert runner.begin(threading.Event())
        watcher = None if once else Watcher(mirror.keys(), runner.push_changes)
        if watcher:
            ends.callback(watcher.close)
        runner.start(watcher, ends)
        if watcher:
            watcher.start()
        return runner

    with ends:
        yield Place(source, target, ledger, start)


def scan_until(runner: MirrorRunner, is_there: Callable[[], object]) -> None:
    """Run the main loop's work until a scan has ended and has led to a state."""

    def is_done() -> bool:
        runner.tick()
        scans = runner._scanner.state
        return (scans.last_report is not None or scans.failed_scan is not None) and bool(is_there())

    wait_until(is_done, 30, "the state")


def forget_acceptance(place: Place) -> None:
    (place.target / "stranger").touch()


def withhold(place: Place) -> None:
    for key in KEYS[:30]:
        (place.source / key).unlink()


def replace_root(place: Place) -> None:
    place.source.rename(place.source.with_name("moved"))
    fill(place.source, "other")


def unmount(place: Place) -> None:
    """A file system that was mounted at `share` is not mounted."""
    (place.source / "share").mkdir()
    fill(place.target, "share/a")


def remember_mount(runner: MirrorRunner, place: Place) -> None:
    identities = {**runner._roots.remembered.identities(), f"{place.source}/share": RootIdentity(1, 2, names=("a",))}
    runner._roots.load(identities, {})
    runner._root_memory.store()


def empty(place: Place) -> None:
    for key in KEYS:
        (place.source / key).unlink()


def remove_root(place: Place) -> None:
    place.source.rename(place.source.with_name("moved"))


def remove_target(place: Place) -> None:
    place.target.rename(place.target.with_name("elsewhere"))


def leave_unseen(place: Place) -> None:
    published = place.ledger.definition.read()
    assert published is not None
    place.ledger.claims.mark([(KEYS[0], UNKNOWN)])
    claims = place.ledger.claims.claim("box1", published.version, KEYS[:1])
    place.ledger.claims.done("box1", [Result(claim, Action.DISPUTED) for claim in claims or ()])
    place.ledger.disputes.unseen.write("box1@host", "does not see a file below /s", 300.0)


class State(NamedTuple):
    """One state.

    Attributes:
        make: brings it about, while no watcher runs.
        shown: a part of the line of `status`.
        field: of `status --json`.
        value: of that field.
        metric: that is not 0; "" if there is none.
        once: how `--once` ends: its exit code, or the error that the command prints before it ends with 1.
        is_mount: whether the mirror remembers a mount point that is not there.
        is_first: whether no run was before.
    """

    make: Callable[[Place], None]
    shown: str
    field: str
    value: Callable[[Place], object]
    metric: str
    once: Exit | str = Exit.INCOMPLETE
    is_mount: bool = False
    is_first: bool = False


STATES = {
    "first contact": State(
        forget_acceptance, "1 key that the target held before", "withheld_deletions", lambda _: 1, "autosync_withheld_deletions",
        is_first=True,
    ),
    "withheld deletions": State(withhold, "30 deletions withheld", "withheld_deletions", lambda _: 30, "autosync_withheld_deletions"),
    "another root": State(
        replace_root, "source is not the directory that it was; keys below it are kept", "roots_in_doubt",
        lambda place: {str(place.source): "is not the directory that it was"}, "autosync_roots_in_doubt",
    ),
    "a mount point": State(
        unmount, "share is empty; keys below it are kept", "roots_in_doubt", lambda place: {f"{place.source}/share": "is empty"},
        "autosync_roots_in_doubt", is_mount=True,
    ),
    "an empty PATH": State(
        empty, "source holds no file; keys below it are kept", "roots_in_doubt", lambda place: {str(place.source): "holds no file"},
        "autosync_roots_in_doubt",
    ),
    "a PATH that is gone": State(
        remove_root, "source is gone; keys below it are kept", "roots_in_doubt", lambda place: {str(place.source): "is gone"},
        "autosync_roots_in_doubt", once="cannot be read",
    ),
    "scans that fail": State(
        remove_target, "scan of everything: target container", "scan_error",
        lambda place: f"scan of everything: target container {place.target}: No such file or directory", "autosync_scan_failed",
        once="No such file or directory",
    ),
    "a box that does not see a file": State(
        leave_unseen, "worker box1@host does not see a file", "unseen_by", lambda _: {"box1@host": "does not see a file below /s"}, "",
    ),
}  # fmt: skip


def shown_of(place: Place, broker: str) -> tuple[dict[str, Any], list[str], dict[str, float]]:
    """The status of the mirror: as values, as lines that need attention, and as metrics."""
    handle = MirrorHandle("m", broker, place.ledger)
    found = status_of(handle)
    text = [line for line in lines(found) if line.split()[0] in ("attention", "waits", "accepted")]
    samples = {one.name: one.value for family in MirrorCollector(lambda: [handle]).collect() for one in family.samples}
    return found, text, samples


@pytest.mark.parametrize("once", [True, False], ids=["--once", "SIGTERM"])
@pytest.mark.parametrize("name", [*STATES, "none of them"])
def test_a_state_that_waits_for_an_operator_is_shown_everywhere(place: Place, broker: str, name: str, once: bool) -> None:
    state = STATES.get(name)
    if state is None or not state.is_first:
        first = place.start(once=True)
        scan_until(first, lambda: first._scanner.state.accepted)
        if state is not None and state.is_mount:
            remember_mount(first, place)
        first.close(5.0, finished=True)
        first.leave()
    if state is not None:
        state.make(place)

    runner = place.start(once=once)
    scan_until(runner, lambda: state is None or shown_of(place, broker)[0][state.field] == state.value(place))
    found, text, samples = shown_of(place, broker)
    error = ""
    if once:
        try:
            if state is not None and isinstance(state.once, str):
                wait_until(runner.is_through, 30, "its error")
            runner.is_through()  # without workers, it may not be
        except AutosyncError as failed:
            error = str(failed)
    runner.close(5.0, finished=once)
    runner.read_final_stats()
    code = runner.end(finished=once and not error)

    if state is None:
        assert (code, text, found["scan_error"], found["roots_in_doubt"]) == (Exit.DONE, [], None, {})
        assert {samples[one.metric] for one in STATES.values() if one.metric} == {0.0}
        return
    assert any(state.shown in line for line in text), text
    assert not state.metric or samples[state.metric] > 0
    assert code == Exit.INCOMPLETE
    if once and isinstance(state.once, str):
        assert state.once in error
    else:
        assert error == ""


def test_a_box_that_does_not_see_files_which_others_have_sent_leaves_nothing_undone(place: Place) -> None:
    place.ledger.disputes.unseen.write("box1@host", "does not see a file below /s", 300.0)

    runner = place.start(once=True)
    scan_until(runner, lambda: runner._scanner.state.accepted)
    runner.close(5.0, finished=True)
    runner.read_final_stats()

    assert runner.end(finished=True) == Exit.DONE


def test_directories_without_a_watch_are_shown_everywhere(place: Place, broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Inotify.add

    def add(self: Inotify, directory: int, mask: int) -> int:
        if os.path.basename(os.readlink(f"/proc/self/fd/{directory}")) == "deep":
            raise OSError(errno.ENOSPC, "no room")
        return real(self, directory, mask)

    monkeypatch.setattr(Inotify, "add", add)
    (place.source / "deep").mkdir()

    runner = place.start(once=False)
    scan_until(runner, lambda: shown_of(place, broker)[0]["unwatched"] == 1)

    _, text, samples = shown_of(place, broker)
    assert text == ["  attention   1 unwatched"]
    assert samples["autosync_unwatched"] == 1
    assert "1 directories unwatched" in runner.status()
    runner.close(5.0, finished=False)
    runner.read_final_stats()
    assert runner.end(finished=False) == Exit.INCOMPLETE


def test_a_failed_scan_is_no_longer_shown_once_one_of_the_same_part_has_succeeded(place: Place, broker: str) -> None:
    runner = place.start(once=False)
    scan_until(runner, lambda: runner._scanner.state.accepted)
    remove_root(place)
    runner.push_changes((SCAN_ALL,))
    scan_until(runner, lambda: shown_of(place, broker)[0]["scan_error"])
    assert runner.status().endswith(", 1 roots in doubt, the last scan failed")
    connect(broker).flushall()
    scan_until(runner, lambda: shown_of(place, broker)[0]["scan_error"])

    place.source.with_name("moved").rename(place.source)
    scan_until(runner, lambda: not runner._scanner.state.failed_scan)

    assert shown_of(place, broker)[1] == []
    assert shown_of(place, broker)[0]["scan_error"] is None
    assert runner.status().endswith("deleted")


def test_a_root_that_held_no_file_is_scanned_again_once_it_does(place: Place, broker: str) -> None:
    empty(place)
    runner = place.start(once=False)
    scan_until(runner, lambda: shown_of(place, broker)[0]["roots_in_doubt"])

    for key in KEYS:
        shutil.copy2(place.target / key, place.source / key)

    scan_until(runner, lambda: not shown_of(place, broker)[0]["roots_in_doubt"])


def test_once_ends_with_the_error_of_a_part_that_cannot_be_scanned_after_the_whole_source_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "_FAILURE_PAUSES", (0.01,))
    runner = place.start(once=True)
    scan_until(runner, lambda: runner._scanner.state.accepted)
    remove_target(place)
    runner.push_changes((Change(Kind.SCAN, str(place.source)),))

    with pytest.raises(TargetError, match="No such file or directory"):
        wait_until(runner.is_through, 30, "its error")

    assert runner._scanner.state.failed_scans >= 3, "what is away for a moment ends nothing"
    runner.close(5.0, finished=False)
    runner.read_final_stats()
    assert runner.end(finished=False) == Exit.INCOMPLETE


def leave_a_directory_only(place: Place) -> None:
    empty(place)
    (place.source / "lost+found").mkdir()


def test_once_ends_for_a_root_that_holds_only_a_directory_however_long_scans_take(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_watch, "_REFILLED_INTERVAL", 0.0)  # a scan takes longer
    leave_a_directory_only(place)
    runner = place.start(once=True)
    scan_until(runner, lambda: runner._roots.remembered.doubts())

    for _ in range(20):
        runner.tick()
        wait_until(lambda: not runner._scanner.state.is_scanning, 30, "the end of the scan")

    assert (runner._scanner.state.scans, runner.is_through()) == (1, True)


def test_a_root_that_holds_only_a_directory_is_scanned_less_and_less_often(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    ends: list[float] = []  # of scans, in minutes

    def run_until(minutes: float) -> None:
        while now[0] < minutes * 60:
            runner.tick()
            begun = runner._scanner.state.scans
            wait_until(lambda: not runner._debouncer.has_scans(), 30, "the end of the scan")
            if runner._scanner.state.scans > begun:
                now[0] += 600.0  # such a scan takes ten minutes
                ends.append(now[0] / 60)
            now[0] += 30.0

    leave_a_directory_only(place)
    runner = place.start(once=False)
    wait_until(lambda: runner._roots.remembered.doubts() and not runner._debouncer.has_scans(), 30, "the first scan")
    monkeypatch.setattr(root_watch, "time", SimpleNamespace(monotonic=lambda: now[0]))

    run_until(60 * 5)

    pauses = [int(after - before - 10) for before, after in pairwise(ends)]
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60], pauses


@pytest.mark.parametrize("waiting", [0, 1], ids=["no other scan waits", "another scan waits"])
def test_what_is_accepted_while_a_scan_runs_is_deleted_by_the_next_one(
    place: Place, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    share = [f"share/{number:02}" for number in range(60)]
    first = place.start(once=True)
    scan_until(first, lambda: first._scanner.state.accepted)
    remember_mount(first, place)
    first.close(5.0, finished=True)
    first.leave()
    unmount(place)
    fill(place.target, *share)
    runner = place.start(once=False)
    scan_until(runner, lambda: place.ledger.sync_state.pending())
    wait_until(lambda: not runner._debouncer.has_scans(), 30, "the end of the first scan")
    (place.source / KEYS[0]).unlink()  # so the keys that are gone are others than those that are listed
    real, is_listing, may_list = FileActor.list, threading.Event(), threading.Event()

    def list_(self: FileActor, prefix: str = "") -> Listing:
        is_listing.set()
        assert may_list.wait(30)
        return real(self, prefix)

    monkeypatch.setattr(FileActor, "list", list_)
    runner.push_changes((SCAN_ALL,))
    assert is_listing.wait(30)
    runner.push_changes((SCAN_ALL,) * waiting)
    (item,) = place.ledger.sync_state.pending().values()
    place.ledger.requests.request_accept(item)
    runner.tick()
    assert not runner._roots.remembered.doubts()[f"{place.source}/share"].accepted
    may_list.set()

    scan_until(runner, lambda: not runner._debouncer.has_scans() and not runner._root_acceptance.has_requests)

    hints = {place.ledger.key_states.facts(key).hint for key in share}
    assert (hints, runner._scanner.state.withheld_deletions) == ({GONE}, 0)
    assert not runner._roots.remembered.doubts()


def test_a_scan_that_waits_for_an_acceptance_ends_with_the_run(place: Place) -> None:
    runner = place.start(once=True)
    scan_until(runner, lambda: runner._scanner.state.accepted)
    wait_until(lambda: not runner._debouncer.has_scans(), 30, "the end of the scan")
    assert runner._scanner.hold()
    runner.push_changes((SCAN_ALL,))
    wait_until(lambda: not runner._debouncer._scans, 30, "the scan waits")

    runner.close(5.0, finished=False)

    assert (runner._scanner.state.scans, runner._scanner._thread.is_alive(), runner.broken) == (1, False, None)
