"""A fleet on hosts of its own: a file host, a broker, two upload boxes that mount the share elsewhere, and what happens to networks and
hosts. After each: the target equals the source to the byte, no key was changed twice at the same time, and the limits held."""

from __future__ import annotations

import json
import math
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect
from lab.buckets import Bucket, equal_soon
from lab.faults import Proxy
from lab.hosts import Switch, ValkeyOn, far_away
from lab.parts import lacking
from lab.ports import free_port
from lab.programs import Program, Programs
from lab.servers import Missing, wait_until

#: So many transfers may be in flight, of all boxes together.
INFLIGHT = 6
#: Of the mirror, in seconds: a box that is cut off keeps its keys from the others for so long.
LEASE = 6.0
#: A claim of a box that is cut off ends after so long, and then what another box has to do still takes a while, in seconds.
LONG = LEASE + 60


class Fleet:
    """The hosts, and the programs on them."""

    def __init__(self, switch: Switch, programs: Programs, bucket: Bucket, proxy: Proxy, tree: Path, directory: Path) -> None:
        self.bucket = bucket
        self.proxy = proxy
        self.tree = tree
        self.files, self.here = switch.host("files"), switch.host("broker")
        self.boxes = {name: switch.host(name) for name in ("box1", "box2", "box3")}
        self.valkey = ValkeyOn(directory / "valkey", self.here)
        self._programs = programs
        self._share = directory / "mnt" / "share"
        self._share.mkdir(parents=True)

    def watch(self, broker: str = "", lease: float = LEASE) -> Program:
        """Start autosync-watch on the file host."""
        target = [f"--target-container={self.bucket.name}", f"--endpoint-url={self.proxy.url}", f"--limit-inflight={INFLIGHT}"]
        mirror = ["--name=fleet", f"--lease={lease}"]
        options = [*target, *mirror, f"--source-prefix={self.tree}/", f"--broker={broker or self.valkey.url}", str(self.tree)]
        program = self._programs.start("autosync-watch", *options, host=self.files)
        wait_until(lambda: "mirroring fleet" in program.output(), 30, "the file host watches")
        return program

    def box(self, name: str, broker: str = "") -> Program:
        """Start an upload box, which has the share at a path that is not there on the others."""
        sources = json.dumps({str(self.tree): str(self._share)})
        return self._programs.worker(
            "-n", f"{name}@%h", broker=broker or self.valkey.url, host=self.boxes[name], mounts={self.tree: self._share},
            AUTOSYNC_SOURCES=sources,
        )  # fmt: skip

    def all_boxes(self, *names: str, broker: str = "") -> list[Program]:
        """Start several upload boxes, which takes little longer than one where the broker is far away."""
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda name: self.box(name, broker), names))

    def ledger(self) -> Ledger:
        return Ledger(connect(self.valkey.url), "fleet")

    def sent_by(self, program: Program) -> int:
        return program.output().count("uploaded ")

    def claimed_too_early(self) -> set[str]:
        """The keys of which content was sent while that of another transfer was on its way, be it that this one never came to its end."""
        sent = [one for one in self.proxy.requests if one.method == "PUT"]
        return {
            one.key
            for one, other in combinations(sent, 2)
            if one.key == other.key and one.transfer != other.transfer and (one.ended or math.inf) > other.began
        }

    def is_right(self, what: str, seconds: float = 30) -> None:
        """See that it ends as it must."""
        equal_soon(self.bucket, self.tree, what, seconds, to_the_byte=True)
        wait_until(lambda: self.ledger().key_states.count_dirty() == 0, 30, "nothing is left to do")
        assert self.proxy.overlaps() == [], "a key was changed twice at the same time"
        assert 1 < self.proxy.most_at_once() <= INFLIGHT
        assert list(self.ledger().failures.all()) == []


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Switch]:
    try:
        with Switch(tmp_path) as made:
            yield made
    except Missing as missing:
        lacking(str(missing))


@pytest.fixture
def fleet(switch: Switch, programs: Programs, bucket: Bucket, tree: Path, tmp_path: Path) -> Iterator[Fleet]:
    """All hosts, with the broker running."""
    with Proxy(bucket.server.url, switch.address) as proxy:
        proxy.speed = 4e6
        made = Fleet(switch, programs, bucket, proxy, tree, tmp_path)
        made.valkey.start()
        try:
            yield made
            programs.end()
        finally:
            made.valkey.stop()


def fill(tree: Path, count: int, name: str = "file", size: int = 20_000) -> None:
    """Files of several sizes, in directories."""
    dice = random.Random(name)
    for number in range(count):
        path = tree / f"{name}-{number % 7}" / str(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(dice.randbytes(dice.randrange(size)))


@contextmanager
def load(tree: Path) -> Iterator[None]:
    """Somebody works in the tree meanwhile: files come, change, move and go."""
    over = threading.Event()

    def work() -> None:
        dice = random.Random(7)
        for number in range(100_000):
            path = tree / "live" / str(dice.randrange(60))
            path.parent.mkdir(exist_ok=True)
            what = dice.random()
            if what < 0.7:
                path.write_bytes(dice.randbytes(dice.randrange(30_000)))
            elif what < 0.85:
                path.unlink(missing_ok=True)
            elif path.exists():
                path.rename(tree / "live" / f"moved-{number % 20}")
            if over.wait(0.02):
                return

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def test_hosts_that_are_far_apart(fleet: Fleet) -> None:
    """20 ms in each direction between the broker and everybody else."""
    fill(fleet.tree, 100)
    _, _, port = fleet.valkey.url.removesuffix("/0").rpartition(":")
    with far_away(fleet.here, free_port(), f"127.0.0.1:{port}", 0.02) as broker:
        url = f"redis://{broker}/0"
        boxes = fleet.all_boxes("box1", "box2", broker=url)
        fleet.watch(url)
        with load(fleet.tree):
            wait_until(lambda: len(fleet.bucket.sizes()) > 100 and all(map(fleet.sent_by, boxes)), 60, "what was there, and more")

        fleet.is_right("far apart", LONG)
        (fleet.tree / "one more").write_text("saved")
        equal_soon(fleet.bucket, fleet.tree, "one event")


@pytest.mark.parametrize("owner", ["box1", "broker"])
def test_a_cable_that_is_pulled_and_put_back(fleet: Fleet, owner: str) -> None:
    boxes = {name: fleet.box(name) for name in ("box1", "box2")}
    watcher = fleet.watch()
    fill(fleet.tree, 400)
    wait_until(lambda: len(fleet.bucket.sizes()) > 20, 30, "they are in the middle of it")
    host = {"broker": fleet.here, "box1": fleet.boxes["box1"]}[owner]

    with load(fleet.tree):
        host.unplug()
        if owner == "box1":
            before = {name: fleet.sent_by(box) for name, box in boxes.items()}
            wait_until(lambda: fleet.sent_by(boxes["box2"]) > before["box2"] + 50, LONG, "the other goes on")
            assert fleet.sent_by(boxes["box1"]) <= before["box1"] + INFLIGHT, "it was cut off"
        else:
            fill(fleet.tree, 50, "meanwhile")
            began = fleet.proxy.requests[-1].number if fleet.proxy.requests else 0
            wait_until(lambda: not [one for one in fleet.proxy.requests[began:] if not one.ended], LONG, "open requests have ended")
            assert not {key for key in fleet.bucket.sizes() if key.startswith("meanwhile")}, "they cannot have been sent"
        host.plug_in()

    fleet.is_right("after the cut", LONG)
    assert watcher.poll() is None
    assert all(box.poll() is None for box in boxes.values())
    (fleet.tree / "after").write_text("it")
    equal_soon(fleet.bucket, fleet.tree, "live again")


def test_a_box_that_loses_the_broker_and_still_reaches_the_target(fleet: Fleet) -> None:
    """The worst of cuts: it holds claims that nobody sees it keep, and could go on sending what is another's by then."""
    fleet.proxy.speed = 400_000
    for name, mebibytes in (("whole", 6), ("parts", 9)):  # together too little to have their progress shown, which waits for the broker
        (fleet.tree / name).write_bytes(random.Random(name).randbytes(mebibytes << 20))
    fleet.boxes["box1"].limit_unsent_bytes()  # what it has sent arrives, whatever becomes of its claims
    lost = fleet.box("box1")
    fleet.watch(lease=2 * LEASE)
    sending = wait_until(lambda: fleet.proxy.in_flight()[1:] and fleet.proxy.in_flight(), 30, "it is sending, for longer than a lease")

    fleet.boxes["box1"].lose(fleet.here)
    box2 = fleet.box("box2")
    wait_until(lambda: all(one.ended for one in sending), LONG, "it gives up what may be another's soon")
    assert [one.status for one in sending] == [0, 0]
    fleet.proxy.speed = 20e6
    wait_until(lambda: fleet.sent_by(box2) > 0, LONG, "the other took over what it held")
    assert fleet.sent_by(lost) == 0
    fleet.is_right("by the other alone", LONG)
    assert fleet.claimed_too_early() == set()

    fleet.boxes["box1"].find(fleet.here)
    box2.send_signal(signal.SIGTERM)
    assert box2.wait(40) == 0
    fill(fleet.tree, 20, "back")
    fleet.is_right("by the one that is back", LONG)
    assert lost.poll() is None


def test_a_box_that_dies_and_one_that_joins(fleet: Fleet) -> None:
    fill(fleet.tree, 600)
    doomed, other = fleet.box("box1"), fleet.box("box2")
    fleet.watch()
    wait_until(lambda: fleet.sent_by(doomed) > 20, 30, "it is at work")

    with load(fleet.tree):
        doomed.kill()
        doomed.wait()
        assert any("box1" in owner for owner in fleet.ledger().key_states.claimed_by_worker()), "it had claimed keys"
        joined = fleet.box("box3")
        wait_until(lambda: fleet.sent_by(joined) > 20, 30, "the new one works")
        fill(fleet.tree, 100, "later")

    fleet.is_right("in spite of it", LONG)
    assert fleet.sent_by(other) > 0


def test_all_workers_are_restarted_one_by_one_under_load(fleet: Fleet) -> None:
    fill(fleet.tree, 300)
    boxes = {name: fleet.box(name) for name in ("box1", "box2")}
    fleet.watch()
    with load(fleet.tree):
        for _ in range(2):
            for name in boxes:
                wait_until(lambda box=boxes[name]: fleet.sent_by(box) > 10, 30, "it works")  # type: ignore[misc]
                boxes[name].send_signal(signal.SIGTERM)
                assert boxes[name].wait(40) == 0
                claimed = fleet.ledger().key_states.claimed_by_worker()
                assert not [owner for owner in claimed if name in owner], "another worker may go on at once"
                boxes[name] = fleet.box(name)

    fleet.is_right("after four restarts")


def test_the_broker_is_killed_and_started_again_under_load(fleet: Fleet) -> None:
    fill(fleet.tree, 300)
    boxes = [fleet.box(name) for name in ("box1", "box2")]
    watcher = fleet.watch()
    with load(fleet.tree):
        for _ in range(2):
            before = len(fleet.proxy.requests)
            wait_until(lambda before=before: len(fleet.proxy.requests) > before + 50, 60, "they work")  # type: ignore[misc]
            fleet.valkey.kill()
            fill(fleet.tree, 20, f"away-{before}")
            fleet.valkey.start()

    fleet.is_right("after two restarts of the broker", LONG)
    assert watcher.poll() is None
    assert all(box.poll() is None for box in boxes)
    assert not any("Unrecoverable" in box.output() for box in boxes)
