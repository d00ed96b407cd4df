"""Skipped paths, from the disk to the log, the ledger and autosync-ctl."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from autosync.compare import scan as scan_module
from autosync.feed.broker_retry import BrokerRetry
from autosync.feed.skipped_paths import SkippedPaths
from autosync.ledger import UNKNOWN, Ledger, connect
from autosync.ledger.sync_state import SyncState
from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from autosync.model.skipped import MOST_SKIPPED, SkippedList
from lab.commands import Commands
from lab.servers import wait_until
from lab.watch_pipeline import WatchPipeline

FIFO = "is a FIFO"
OUT = "is a link that leads out of the source"


@pytest.fixture
def ledger(broker: str) -> Ledger:
    return Ledger(connect(broker), "m")


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is written to the ledger."""
    written: list[object] = []
    for name in ("set_skipped", "change_skipped"):
        write = getattr(SyncState, name)

        def record(state: SyncState, what: object, write: Callable[..., None] = write) -> None:
            written.append(what)
            write(state, what)

        monkeypatch.setattr(SyncState, name, record)
    return written


@pytest.fixture
def skipped(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> SkippedPaths:
    caplog.set_level(logging.INFO, "autosync")
    return SkippedPaths(ledger.sync_state, BrokerRetry(threading.Event()), about="t1: ")


def full(count: int) -> dict[str, str]:
    return {f"/s/{number:05}": FIFO for number in range(count)}


# The list


def test_the_ledger_is_written_once_for_many_events_and_not_if_nothing_changes(
    skipped: SkippedPaths, ledger: Ledger, writes: list[object]
) -> None:
    skipped.add("/s/a", FIFO)
    skipped.add("/s/b", FIFO)
    skipped.publish()
    for path in ("/s/a", "/s/b"):
        skipped.add(path, FIFO)
        skipped.publish()
    skipped.discard("/s/other")
    skipped.publish()
    assert len(writes) == 1
    assert ledger.sync_state.skipped() == SkippedList({"/s/a": FIFO, "/s/b": FIFO})

    skipped.discard("/s/a")
    skipped.publish()

    assert ledger.sync_state.skipped() == SkippedList({"/s/b": FIFO})


def test_each_line_names_its_target_and_all_are_counted(skipped: SkippedPaths, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    skipped.add("/s/00000", FIFO)
    skipped.replace(full(MOST_SKIPPED), 500)

    assert all(line.startswith("t1: ") for line in caplog.messages)
    assert caplog.messages[0] == "t1: skipped: /s/00000 is a FIFO"
    assert caplog.messages[-1] == "t1: and 1489 more are skipped"
    assert len(caplog.messages) == 12
    assert ledger.sync_state.skipped() == skipped.listed() == SkippedList(full(MOST_SKIPPED), 500)
    assert skipped.listed().total_text() == "1500"

    skipped.replace(full(MOST_SKIPPED), 500)
    assert len(caplog.messages) == 12, "the next scan logs only what is new"


def test_an_event_for_which_the_list_has_no_space_is_logged_once_at_most(
    skipped: SkippedPaths, ledger: Ledger, writes: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    skipped.replace(full(MOST_SKIPPED))
    before = len(caplog.messages)

    for _ in range(5):
        for path in ("/s/x", "/s/y"):
            skipped.add(path, FIFO)
            skipped.publish()

    assert caplog.messages[before:] == ["t1: 1000 skipped paths are listed; further ones are neither listed nor logged"]
    assert len(writes) == 1
    assert len(skipped.reasons) == MOST_SKIPPED
    assert ledger.sync_state.skipped().total_text() == "1000 or more"


def test_a_full_scan_replaces_the_list_of_a_process_before(skipped: SkippedPaths, ledger: Ledger) -> None:
    ledger.sync_state.set_skipped(SkippedList({"/s/of yesterday": FIFO}))

    skipped.replace({})

    assert ledger.sync_state.skipped() == SkippedList({})


def test_a_scan_of_a_part_replaces_what_is_listed_below_it(skipped: SkippedPaths, ledger: Ledger) -> None:
    skipped.replace({"/s/d/a": FIFO, "/s/d": OUT, "/s/da": FIFO})

    skipped.replace({"/s/d/b": FIFO}, path="/s/d", is_complete=False)
    assert set(ledger.sync_state.skipped().reasons) == {"/s/d/a", "/s/d/b", "/s/d", "/s/da"}

    skipped.replace({"/s/d/b": FIFO}, path="/s/d")
    assert ledger.sync_state.skipped() == SkippedList({"/s/d/b": FIFO, "/s/da": FIFO})

    skipped.replace(full(MOST_SKIPPED), path="/s/e")
    assert len(skipped.reasons) == MOST_SKIPPED
    assert skipped.listed().total == MOST_SKIPPED + 2

    skipped.replace({})
    skipped.add("/s/f", FIFO)
    skipped.replace({"/s/f": FIFO}, path="/s/f")
    assert ledger.sync_state.skipped() == SkippedList({"/s/f": FIFO}), "also what an event has not published yet"


def test_events_during_a_scan_are_newer_than_what_it_finds(skipped: SkippedPaths, ledger: Ledger) -> None:
    skipped.replace({"/s/gone": FIFO})
    skipped.begin_scan()
    skipped.discard("/s/gone")
    skipped.add("/s/new", FIFO)

    skipped.replace({"/s/gone": FIFO, "/s/found": FIFO})

    assert ledger.sync_state.skipped() == SkippedList({"/s/found": FIFO, "/s/new": FIFO})


# From the disk


@pytest.mark.parametrize("how", ["deleted", "renamed", "replaced", "its directory is deleted", "its directory is moved away"])
def test_a_path_leaves_the_list_by_an_event(pipeline: Callable[..., WatchPipeline], tree: Path, tmp_path: Path, how: str) -> None:
    (tree / "d").mkdir()
    for name in ("d/a", "stays"):
        os.mkfifo(tree / name)
    kept = pipeline()
    listed = kept.ledger.sync_state.skipped
    assert set(listed().reasons) == {f"{tree}/d/a", f"{tree}/stays"}

    moved: set[str] = set()
    if how == "deleted":
        (tree / "d/a").unlink()
    elif how == "renamed":
        (tree / "d/a").rename(tree / "d/b")
        moved = {f"{tree}/d/b"}
    elif how == "replaced":
        (tree / "file").write_text("file")
        (tree / "file").rename(tree / "d/a")
    elif how == "its directory is deleted":
        shutil.rmtree(tree / "d")
    else:
        (tree / "d").rename(tmp_path / "away")

    wait_until(lambda: set(listed().reasons) == {f"{tree}/stays"} | moved, 20, f"{listed()}")


def test_a_link_that_leads_out_leaves_the_list_also_if_a_filter_hides_its_name(
    pipeline: Callable[..., WatchPipeline], tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tree / "folder").symlink_to(tmp_path / "elsewhere")
    kept = pipeline(source_filter=r".*\.jpg")
    listed = kept.ledger.sync_state.skipped
    assert listed() == SkippedList({f"{tree}/folder": OUT})

    (tree / "folder").unlink()

    wait_until(lambda: not listed().reasons, 20, "the link is gone")


# autosync-ctl


@pytest.fixture
def control(ledger: Ledger, tree: Path, broker: str, commands: Commands) -> Callable[..., str]:
    mirror = Mirror(
        "m", actor="s3", settings={"target_container": "c"}, queue="q", sources=(Source(str(tree)),),
        source_prefix=f"{tree}/", max_size=4,
    )  # fmt: skip
    ledger.definition.publish(mirror.dumps(), "v")
    return lambda *words: commands.run("autosync-ctl", f"--broker={broker}", *words).stdout


@pytest.mark.parametrize("is_listed", [True, False])
def test_why_names_the_reason_from_the_ledger_or_from_the_disk(
    control: Callable[..., str], ledger: Ledger, tree: Path, tmp_path: Path, is_listed: bool
) -> None:
    reasons = {"big": "is larger than --max-size, 4 bytes", "pipe": FIFO, "film": OUT, "folder": OUT}
    if is_listed:
        ledger.sync_state.set_skipped(SkippedList({f"{tree}/{name}": reason for name, reason in reasons.items()}))
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/a").touch()
        (tree / "big").write_bytes(bytes(5))
        os.mkfifo(tree / "pipe")
        for name in ("film", "folder"):
            (tree / name).symlink_to(tmp_path / "elsewhere")
    (tree / "small").write_bytes(bytes(4))

    kept = "; the target keeps what it has"
    assert f"  state       skipped: is larger than --max-size, 4 bytes{kept}\n" in control("why", "big")
    assert "  state       skipped: is a FIFO\n" in control("why", "pipe")
    assert f"  state       skipped: {OUT}{kept}\n" in control("why", "film")
    assert f"{OUT}{kept}\n" in control("why", "folder/a")
    assert "  state       equal\n" in control("why", "small")
    assert "  state       equal\n" in control("why", "gone")

    ledger.claims.mark([("big", UNKNOWN)])
    dirty = control("why", "big")
    assert "  state       waits in the queue\n" in dirty
    assert f"  skipped     is larger than --max-size, 4 bytes{kept}\n" in dirty


def test_status_lists_ten_paths_and_json_all_that_are_stored(control: Callable[..., str], ledger: Ledger) -> None:
    ledger.sync_state.set_skipped(SkippedList(full(10)))
    assert control("status").count("  skipped     /s/0000") == 10
    assert " more" not in control("status")

    ledger.sync_state.set_skipped(SkippedList(full(MOST_SKIPPED), 500))
    text = control("status")
    assert "  skipped     /s/00009: is a FIFO\n  and 1490 more\n" in text
    assert "00010" not in text
    assert "1500 skipped" in text
    (found,) = json.loads(control("status", "--json"))
    assert (found["skipped"], found["skipped_paths"]) == (1500, full(MOST_SKIPPED))

    ledger.sync_state.set_skipped(SkippedList(full(MOST_SKIPPED)))
    text = control("status")
    assert "  and at least 990 more\n" in text
    assert "1000 or more skipped" in text


def test_verify_counts_the_skipped_paths_that_it_does_not_list(
    ledger: Ledger, tree: Path, tmp_path: Path, broker: str, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "MOST_SKIPPED", 2)
    (tmp_path / "target").mkdir()
    for number in range(5):
        os.mkfifo(tree / f"{number}")
    (tree / "file").touch()
    settings = {"target_container": f"{tmp_path}/target"}
    mirror = Mirror("m", actor="file", settings=settings, queue="q", sources=(Source(str(tree)),), source_prefix=f"{tree}/")
    ledger.definition.publish(mirror.dumps(), "v")

    done = commands.run("autosync-ctl", f"--broker={broker}", f"--state-dir={tmp_path}/state", "verify")

    assert done.stdout.splitlines()[:4] == [
        "missing  file",
        f"skipped  {tree}/0: is a FIFO",
        f"skipped  {tree}/1: is a FIFO",
        "and 3 more skipped paths, 5 in all",
    ], done.stderr
