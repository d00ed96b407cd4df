"""From the kernel's events to keys in the ledger: what is sent, when, and how often. Real kernel, real ledger; the workers are left out."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from autosync.feed.batches import BatchSizer
from autosync.files import File, Listing
from autosync.ledger import Hint, Ledger, Marked, connect
from autosync.model.change import SCAN_ALL
from autosync.model.keys import Keys, Source
from autosync.source import name_reader
from autosync.watch.debounce import Debouncer, UnsentChange
from autosync.watch.recheck import recheck
from autosync.watch.scan_requests import ScanRequest
from lab.comparing import FixedTarget, fill
from lab.servers import wait_until
from lab.watch_pipeline import Empty, Feeds, Sent, WatchPipeline

# The broker's memory


def test_a_scan_belongs_to_the_generation_in_which_it_began(tree: Path, broker: str) -> None:
    """What it had marked before may be lost, whatever it marks afterwards."""
    (tree / "a").write_text("a")
    keys = Keys([Source(str(tree))], source_prefix=f"{tree}/")

    class Forgetful(Empty):
        def list(self, prefix: str = "") -> Listing:
            scanner.begin_generation()
            return super().list(prefix)

    ledger = Ledger(connect(broker), "m")
    scanner = Feeds(keys, Forgetful(), ledger, Sent(ledger, str), Debouncer(0.0)).scanner

    assert scanner.scan(ScanRequest("")).error is None

    state = scanner.state
    assert state.finished_scan is not None
    assert (state.finished_scan.generation, state.scan_generation) == (0, 1)


# Acceptance


@pytest.mark.parametrize("what", ["nothing to delete", "a key too many", "an unreadable part", "a part"])
def test_a_complete_scan_of_everything_that_finds_nothing_to_delete_accepts_the_mirror(
    tree: Path, broker: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    fill(tree, "d/a")
    keys = Keys([Source(str(tree))], source_prefix=f"{tree}/")
    ledger = Ledger(connect(broker), "m")
    target = FixedTarget("d/a", "d/b") if what == "a key too many" else FixedTarget("d/a")
    scanner = Feeds(keys, target, ledger, Sent(ledger, str), Debouncer(0.0)).scanner
    if what == "an unreadable part":
        scandir, closed = os.scandir, os.stat(tree / "d").st_ino

        def refuse(directory: int) -> object:
            if os.fstat(directory).st_ino == closed:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return scandir(directory)

        monkeypatch.setattr(name_reader.os, "scandir", refuse)

    report = scanner.scan(ScanRequest(f"{tree}/d" if what == "a part" else ""))

    assert (report.error, report.complete) == (None, what != "an unreadable part")
    assert scanner.state.accepted == ledger.sync_state.accepted() == (what == "nothing to delete")
    assert ledger.sync_state.withheld_deletions() == (what == "a key too many")
    if what == "a key too many":
        assert scanner.scan(ScanRequest("")).withheld.count == 1, "nor does the next one"
        target.keys = ("d/a",)
        assert scanner.scan(ScanRequest("")).withheld.count == 0
        assert (scanner.state.accepted, ledger.sync_state.accepted(), ledger.sync_state.withheld_deletions()) == (True, True, 0)


# Batches


def test_where_keys_are_made_right_quickly_a_batch_holds_more_of_them() -> None:
    now = 0.0
    sizer = BatchSizer(lambda: now)
    assert [sizer.gathering_time(behind) for behind in (0, 1, 99)] == [0.0] * 3, "what nobody stands before is sent at once"
    assert sizer.gathering_time(100) == 0.05, "as long as nobody works"
    assert sizer.batch_keys == 100, "as long as nothing is known"
    sizer.record(5000, 5000)
    now = 1.0
    sizer.record(1000, 2000)
    assert sizer.batch_keys == 200, "4,000 in a second"
    now = 2.0
    sizer.record(0, 1900)
    assert sizer.batch_keys == 100
    now = 3.0
    sizer.record(50_000, 1900)
    assert sizer.batch_keys == 500


# Settling

def test_a_file_saved_a_thousand_times_is_sent_a_few_times_and_the_last_state_is_among_them(
    pipeline: Callable[..., WatchPipeline], tree: Path
) -> None:
    kept = pipeline(quiet=0.2)
    began = time.monotonic()
    for number in range(1000):
        (tree / "busy").write_text(str(number))
    seconds = time.monotonic() - began

    (tree / "last").touch()
    kept.wait_for("last")
    wait_until(kept.is_idle, what="nothing is pending")
    assert 1 <= kept.sent.keys["busy"] <= 3 + seconds / 0.2


def test_a_file_that_is_being_written_waits_for_its_close(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    kept = pipeline(quiet=0.1)
    with (tree / "film").open("w") as film:
        for number in range(5):
            film.write("x")
            film.flush()
            (tree / f"other{number}").touch()
            kept.wait_for(f"other{number}")
        assert kept.sent.keys["film"] == 0
    kept.wait_for("film")


def test_a_file_that_never_rests_is_sent_at_a_bounded_interval(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    kept = pipeline(quiet=0.2, max_wait=1.0)
    stop = threading.Event()

    def write() -> None:
        with (tree / "endless").open("wb", buffering=0) as file:
            while not stop.wait(0.02):
                file.write(b"x")

    def save() -> None:
        while not stop.wait(0.02):
            (tree / "restless").write_text("x")

    threads = [threading.Thread(target=work) for work in (write, save)]
    for thread in threads:
        thread.start()
    try:
        kept.wait_for("endless", 3)
        kept.wait_for("restless", 3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_file_that_stays_open_is_sent_again_if_it_has_changed_and_waited_for_by_nobody(
    pipeline: Callable[..., WatchPipeline], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = pipeline(quiet=0.05, max_wait=0.3)
    with (tree / "log").open("wb", buffering=0) as file:
        file.write(b"x")
        kept.wait_for("log", 1)
        wait_until(kept.is_idle, 30, "nothing is pending")
        seen: list[str] = []

        def noted(one: UnsentChange, *args: object, **more: object) -> object:
            seen.append(one.path)
            return recheck(one, *args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr("autosync.feed.events.recheck", noted)
        wait_until(lambda: seen.count(str(tree / "log")) >= 3, 20, "it is checked again and again")
        assert kept.sent.keys["log"] == 1, "but it did not change"

        file.write(b"y")
        kept.wait_for("log", 2)
    kept.wait_for("log", 3)  # its close


@pytest.mark.parametrize("temporary", ["film.part", ".film.a1B2c3", "film~", "film.tmp"])
def test_a_temporary_name_is_never_sent_and_the_file_is_when_it_is_renamed(
    pipeline: Callable[..., WatchPipeline], tree: Path, temporary: str
) -> None:
    kept = pipeline()
    (tree / temporary).write_text("x")
    (tree / "d.tmp").mkdir()
    (tree / "d.tmp" / "inner").write_text("x")
    (tree / "other").touch()
    kept.wait_for("other")
    (tree / temporary).rename(tree / "film")
    (tree / "d.tmp").rename(tree / "d")

    kept.wait_for("film")
    kept.wait_for("d/inner")
    wait_until(kept.is_idle)
    assert set(kept.sent.keys) == {"other", "film", "d/inner"}


@pytest.mark.parametrize(("marker", "made"), [("{}.done", "d/film.done"), ("READY", "d/READY")])
def test_a_file_waits_for_its_done_marker(pipeline: Callable[..., WatchPipeline], tree: Path, marker: str, made: str) -> None:
    (tree / "d").mkdir()
    (tree / "d/early").write_text("x")
    kept = pipeline(done_marker=marker)
    (tree / "d/film").write_text("x")
    (tree / "d/later").write_text("x")
    (tree / "d/other").write_text("x")
    (tree / "d/other").unlink()
    kept.wait_for("d/other")  # its deletion waits for nothing
    assert set(kept.sent.keys) == {"d/other"}

    (tree / made).touch()
    kept.wait_for("d/film")
    if marker == "READY":
        kept.wait_for("d/early")
        kept.wait_for("d/later")
        assert set(kept.sent.keys) == {"d/other", "d/film", "d/early", "d/later"}
    else:
        (tree / "e").touch()
        (tree / "e.done").touch()
        kept.wait_for("e")
        assert set(kept.sent.keys) == {"d/other", "d/film", "e"}


# Scans

@pytest.fixture(params=["a camera's clock is ahead", "the server's clock is ahead", "the server's clock is behind"])
def stamp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Gives a file the times that it has under a clock that is not this host's."""
    real = time.time
    ahead = {"a camera's": 0.0, "the server's": 86_400.0}[request.param.partition(" clock")[0]]
    ahead = -ahead if "behind" in request.param else ahead
    monkeypatch.setattr(time, "time", lambda: real() - ahead)

    def stamp(file: Path) -> None:
        moment = real() + (0.0 if ahead else 86_400.0)
        os.utime(file, (moment, moment))

    return stamp


def test_a_file_is_sent_soon_whatever_its_times_are(
    pipeline: Callable[..., WatchPipeline], tree: Path, tmp_path: Path, stamp: Callable[[Path], None]
) -> None:
    (tree / "found").write_text("x")
    stamp(tree / "found")
    (tmp_path / "card").mkdir()
    (tmp_path / "card/film").write_text("x")
    stamp(tmp_path / "card/film")
    (tmp_path / "card").rename(tmp_path / "here")

    kept = pipeline(until_idle=False)
    kept.wait_for("found")
    (tmp_path / "here").rename(tree / "moved")
    kept.wait_for("moved/film")
    shutil.copytree(tree / "moved", tree / "copied")
    kept.wait_for("copied/film")

    wait_until(kept.is_idle, 20, "nothing is pending")


def test_a_file_that_is_held_open_comes_to_rest_whatever_its_times_are(
    pipeline: Callable[..., WatchPipeline], tree: Path, stamp: Callable[[Path], None]
) -> None:
    with (tree / "recording").open("w") as recording:
        recording.write("x")
        recording.flush()
        stamp(tree / "recording")
        (tree / "other").touch()
        kept = pipeline(quiet=0.05, until_idle=False)
        kept.wait_for("other")
        assert kept.sent.keys["recording"] == 0
    kept.wait_for("recording")


def test_what_only_differs_by_its_times_has_its_etag_while_it_comes_to_rest(tree: Path, broker: str) -> None:
    (tree / "f").write_text("x")
    os.utime(tree / "f", (4e9, 4e9))
    keys = Keys([Source(str(tree))], source_prefix=f"{tree}/")

    class Holder(Empty):
        def list(self, prefix: str = "") -> Listing:
            (tree / "f").touch()  # so that it does not rest yet
            return Listing([File("f", 1, 1e9, "etag")], already_sorted=True)

    ledger = Ledger(connect(broker), "m")
    marked: list[tuple[str, Hint]] = []

    class Noting(Sent):
        def mark(self, found: Sequence[tuple[str, Hint]], **more: object) -> Marked:
            marked.extend(found)
            return super().mark(found, **more)

    debouncer = Debouncer(0.05)
    feeds = Feeds(keys, Holder(), ledger, Noting(ledger, str), debouncer)
    feeds.start()
    with (tree / "f").open("a"):
        debouncer.push([SCAN_ALL])
        wait_until(lambda: feeds.scanner.state.last_report is not None, 20, "the scan has ended")
        assert marked == []
    wait_until(lambda: marked, 20, "it rests")
    feeds.close()

    assert [(key, hint.etag, hint.rested) for key, hint in marked] == [("f", "etag", True)]


def test_a_scan_does_not_send_a_file_that_a_process_writes_to(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    with (tree / "recording").open("w") as recording:
        recording.write("x")
        recording.flush()
        (tree / "old").touch()
        os.utime(tree / "old", (1e9, 1e9))
        wait_until(lambda: time.time() > (tree / "recording").stat().st_mtime + 0.3, what="it is quiet, and open")
        kept = pipeline(quiet=0.1, until_idle=False)
        kept.wait_for("old")
        assert kept.sent.keys["recording"] == 0
    kept.wait_for("recording")


def test_a_link_is_sent_when_its_file_changes_and_a_linked_directory_is_watched(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    (tree / "real").mkdir()
    (tree / "real/f").write_text("x")
    (tree / "link").symlink_to("real/f")
    (tree / "way").symlink_to(tree / "real")
    kept = pipeline(quiet=0.0)
    first = Counter(kept.sent.keys)
    assert set(first) == {"real/f", "link", "way/f"}

    (tree / "real/f").write_text("changed")
    for key in first:
        kept.wait_for(key, first[key] + 1)
    (tree / "real/new").write_text("new")
    kept.wait_for("real/new")
    kept.wait_for("way/new")
    (tree / "late").symlink_to("real")
    kept.wait_for("late/new")
    (tree / "real/later").write_text("later")
    for key in ("real/later", "way/later", "late/later"):
        kept.wait_for(key)


def test_what_happens_on_the_way_of_a_link_is_seen(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    for name in ("one", "two"):
        (tree / name).mkdir()
        (tree / name / "f").write_text(name)
    (tree / "current").symlink_to("one")
    (tree / "file").symlink_to("current/f")
    (tree / "early").symlink_to("not/yet")
    kept = pipeline(quiet=0.0)
    assert set(kept.sent.keys) == {"one/f", "two/f", "current/f", "file"}
    kept.sent.keys.clear()

    (tree / "next").symlink_to("two")
    (tree / "next").rename(tree / "current")  # as releases are switched
    kept.wait_for("file")
    kept.wait_for("current/f")
    (tree / "two/g").write_text("g")
    kept.wait_for("current/g")
    wait_until(kept.is_idle)
    kept.sent.keys.clear()
    (tree / "one/h").write_text("h")
    kept.wait_for("one/h")
    wait_until(kept.is_idle)
    assert set(kept.sent.keys) == {"one/h"}, "what happens where it does not lead any more is not its business"

    (tree / "not").mkdir()
    (tree / "not/yet").write_text("now")
    kept.wait_for("early")
    kept.sent.keys.clear()
    (tree / "not").rename(tree / "gone")
    kept.wait_for("early")


@pytest.mark.parametrize("made", ["linked", "moved into place"])
def test_what_a_new_link_leads_to_may_be_made_later(pipeline: Callable[..., WatchPipeline], tree: Path, tmp_path: Path, made: str) -> None:
    kept = pipeline(quiet=0.0)
    for name, target in (("way", "not/yet"), ("file", "nor/this")):
        if made == "moved into place":
            (tmp_path / "new").symlink_to(target)
            (tmp_path / "new").rename(tree / name)
        else:
            (tree / name).symlink_to(target)
        kept.wait_for(name)
    wait_until(kept.is_idle)

    (tree / "not/yet").mkdir(parents=True)
    (tree / "not/yet/f").write_text("f")
    (tree / "nor").mkdir()
    (tree / "nor/this").write_text("this")

    kept.wait_for("way/f")
    wait_until(lambda: kept.sent.states.get("file"), 20, "the file is sent")


def test_a_link_through_one_that_led_out_or_round_is_followed_as_soon_as_that_leads_inside(
    pipeline: Callable[..., WatchPipeline], tree: Path, tmp_path: Path
) -> None:
    (tree / "inside").mkdir()
    (tree / "inside/f").write_text("f")
    (tmp_path / "outside").mkdir()
    (tree / "out").symlink_to(tmp_path / "outside")
    (tree / "file").symlink_to("out/f")
    (tree / "ping").symlink_to("pong")
    (tree / "pong").symlink_to("ping")
    (tree / "round").symlink_to("pong/f")
    kept = pipeline(quiet=0.0)
    assert set(kept.sent.keys) == {"inside/f"}

    for link in ("out", "ping"):
        (tree / "next").symlink_to("inside")
        (tree / "next").rename(tree / link)
    for key in ("out/f", "file", "ping/f", "pong/f", "round"):
        kept.wait_for(key)
    (tree / "inside/g").write_text("g")
    for key in ("out/g", "ping/g", "pong/g"):
        kept.wait_for(key)


def test_a_link_may_lead_through_another_twice(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d/f").write_text("f")
    (tree / "way").symlink_to("d")
    (tree / "link").symlink_to("way/../way/f")
    kept = pipeline(quiet=0.0)
    kept.sent.keys.clear()

    (tree / "d").rename(tree / "gone")
    kept.wait_for("link")
    assert kept.watcher.error is None


def test_a_link_to_a_directory_is_followed_whatever_its_own_name(pipeline: Callable[..., WatchPipeline], tree: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d/page.html").write_text("x")
    kept = pipeline(source_filter=r"^.*\.html$")
    assert set(kept.sent.keys) == {"d/page.html"}

    (tree / "site").symlink_to("d")
    kept.wait_for("site/page.html")
    assert set(kept.sent.keys) == {"d/page.html", "site/page.html"}
