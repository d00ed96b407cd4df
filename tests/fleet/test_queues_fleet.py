"""Each mirror has a queue, and a worker serves those of its configuration, or all."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect, queues_of_mirrors
from lab.buckets import Bucket, equal_soon
from lab.faults import Proxy
from lab.programs import Program, Programs
from lab.servers import Valkey, wait_until


class Desk:
    """A file host with several mirrors, and the boxes of their fleet."""

    def __init__(self, programs: Programs, broker: str, directory: Path) -> None:
        self.programs = programs
        self.broker = broker
        self.directory = directory

    def tree(self, name: str) -> Path:
        tree = self.directory / name
        tree.mkdir(exist_ok=True)
        return tree

    def watch(self, name: str, bucket: Bucket, url: str = "", *options: str) -> Program:
        tree = self.tree(name)
        program = self.programs.start(
            "autosync-watch", f"--target-container={bucket.name}", f"--endpoint-url={url or bucket.server.url}", f"--name={name}",
            f"--source-prefix={tree}/", f"--broker={self.broker}", *options, str(tree),
        )  # fmt: skip
        wait_until(lambda: f"mirroring {name}" in program.output() or program.poll() is not None, 30, "it watches")
        return program

    def box(self, *options: str) -> Program:
        sources = json.dumps([str(self.directory)])
        return self.programs.worker(*options, broker=self.broker, cwd=Path("/"), AUTOSYNC_SOURCES=sources)

    def control(self, *words: str) -> str:
        done = self.programs.run("autosync-ctl", f"--broker={self.broker}", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def desk(programs: Programs, own_valkey: Valkey, tmp_path: Path) -> Desk:
    return Desk(programs, own_valkey.url, tmp_path)


@pytest.fixture
def other(bucket: Bucket) -> Bucket:
    """Another bucket on the same server."""
    return Bucket(bucket.server)


def fill(tree: Path, count: int) -> None:
    for number in range(count):
        (tree / str(number)).write_text(str(number))


def test_a_worker_serves_mirrors_that_are_registered_later_and_ends_with_those_that_are_forgotten(
    desk: Desk, bucket: Bucket, other: Bucket
) -> None:
    box = desk.box()
    for name, target in (("a", bucket), ("b", other)):
        watcher = desk.watch(name, target)
        (desk.tree(name) / "file").write_text(name)
        equal_soon(target, desk.tree(name), f"{name} is served")
        assert f"the queue autosync.{name} is served from now on" in box.output()
    assert queues_of_mirrors(connect(desk.broker)) == ["autosync.a", "autosync.b"]

    watcher.send_signal(signal.SIGTERM)
    assert watcher.wait(30) == 0
    desk.control("forget", "b", "--yes")
    wait_until(lambda: "the queue autosync.b is no mirror's any more" in box.output(), 20, "it is not served any more")

    (desk.tree("a") / "more").write_text("a")
    equal_soon(bucket, desk.tree("a"), "the other still is")
    desk.watch("b", other)
    (desk.tree("b") / "more").write_text("b")
    equal_soon(other, desk.tree("b"), "and it again")


def test_a_new_mirror_is_announced_to_workers_before_they_poll(desk: Desk, bucket: Bucket) -> None:
    (desk.directory / "celeryconfig.py").write_text("from autosync.tasks import queues\n\nqueues._SECONDS = 3600\n")
    box = desk.box()
    desk.watch("a", bucket)
    (desk.tree("a") / "file").write_text("a")

    equal_soon(bucket, desk.tree("a"), "it is served", 20)

    assert "the queue autosync.a is served from now on" in box.output()


def test_a_broker_that_was_away_finds_all_queues_served(desk: Desk, own_valkey: Valkey, bucket: Bucket) -> None:
    desk.box()
    desk.watch("a", bucket)
    (desk.tree("a") / "file").write_text("a")
    equal_soon(bucket, desk.tree("a"), "a is served")

    own_valkey.kill()
    own_valkey.start()
    (desk.tree("a") / "more").write_text("a")

    equal_soon(bucket, desk.tree("a"), "again", 40)


def test_a_target_has_upload_boxes_of_its_own(desk: Desk, bucket: Bucket, other: Bucket) -> None:
    for name, target in (("a", bucket), ("b", other)):
        desk.watch(name, target, "", *(["--queue=bees"] if name == "b" else []))
        fill(desk.tree(name), 50)
    box = desk.box("-Q", "bees", "-c", "3")

    equal_soon(other, desk.tree("b"), "it has a box")
    assert "concurrency: 3 (thread)" in box.output()
    assert bucket.sizes() == {}
    assert box.output().count("uploaded ") == 50
    desk.box("-X", "bees")
    equal_soon(bucket, desk.tree("a"), "so has the other now")
    assert "bees" in desk.control("mirrors")


@pytest.fixture
def two(desk: Desk, bucket: Bucket, other: Bucket) -> Iterator[tuple[Proxy, Program]]:
    """Two mirrors, a and b, of which a is reached through a proxy, and one box of four threads."""
    with Proxy(bucket.server.url) as proxy:
        desk.watch("a", bucket, proxy.url)
        desk.watch("b", other)
        yield proxy, desk.box("-c", "4")
        proxy.hold = ""


def test_a_target_that_does_not_answer_starves_no_other(desk: Desk, bucket: Bucket, other: Bucket, two: tuple[Proxy, Program]) -> None:
    proxy, _ = two
    a, b = desk.tree("a"), desk.tree("b")
    for name, target in (("a", bucket), ("b", other)):
        (desk.tree(name) / "first").write_text("first")
        equal_soon(target, desk.tree(name), "both are served")

    proxy.hold = bucket.name
    ledger = Ledger(connect(desk.broker), "a")
    fill(a, 1000)
    waiting, dirty = ledger.queues.count_waiting, ledger.key_states.count_dirty
    wait_until(lambda: waiting("autosync.a") > 0 and dirty() >= 1000, 30, "more wait than are claimed")
    for number in range(5):
        (b / f"late-{number}").write_text("late")
        equal_soon(other, b, "the other target goes on", 10)

    assert len(bucket.sizes()) < 1000
    assert proxy.hold, "it did not answer all the time"
    proxy.hold = ""
    equal_soon(bucket, a, "and it again", 90)


def test_two_targets_with_much_to_do_get_fair_shares(desk: Desk, bucket: Bucket, other: Bucket) -> None:
    """Of six threads each gets two. All messages are equally large: those of a scan of what is there already."""
    targets, count = {"a": bucket, "b": other}, 1500
    ledgers = [Ledger(connect(desk.broker), name) for name in targets]
    for (name, target), ledger in zip(targets.items(), ledgers, strict=True):
        fill(desk.tree(name), count)
        desk.watch(name, target)
        wait_until(lambda ledger=ledger: ledger.key_states.count_dirty() == count, 60, "all of it waits")  # type: ignore[misc]
    desk.box("-c", "6")

    def files() -> list[int]:
        return [ledger.stats.read().files for ledger in ledgers]

    wait_until(lambda: min(files()) >= 200, 60, "both have begun, and found out how many threads they need")
    before = files()
    wait_until(lambda: count in files(), 60, "one of them is done")
    done = [now - then for now, then in zip(files(), before, strict=True)]
    assert min(done) > max(done) / 3, (before, done)
    for name, target in targets.items():
        equal_soon(target, desk.tree(name), "and both in the end", 60)
