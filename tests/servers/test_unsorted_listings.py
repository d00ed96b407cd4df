"""A target whose listings claim to be sorted and are not: what was found once is known at the next start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autosync.actor import Actor
from autosync.compare.scan import Policy
from autosync.daemon.mirror_runner import MirrorRunner, RunSettings
from autosync.files import File, Listing
from autosync.ledger import Ledger, connect
from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from autosync.process.boot_id import boot_id
from autosync.watch.scan_requests import ScanRequest
from autosync.watch.watcher import identity_of

KEYS = ["a", "b", "c"]


class Unsorted(Actor):
    """Holds all files of the source, and lists them in reverse order."""

    def list(self, prefix: str = "") -> Listing:
        return Listing((File(key, len(key), time.time() + 60) for key in reversed(KEYS)), already_sorted=True)


class Scans:
    """Starts a mirror's runner and scans once, as often as a test needs it."""

    def __init__(self, broker: str, tree: Path, spill: Path) -> None:
        self._broker = broker
        self._tree = tree
        self._spill = spill
        self._runner: MirrorRunner | None = None

    def start(self, container: str = "one") -> MirrorRunner:
        self.close()
        tree = str(self._tree)
        mirror = Mirror(
            "m", "test_unsorted_listings.Unsorted", (Source(tree),), {tree: identity_of(tree)}, f"{tree}/",
            settings={"target_container": container}, queue="q", host=boot_id(),
        )  # fmt: skip
        settings = RunSettings(mirror, Policy(), Unsorted(), self._broker, self._spill, once=True, settle=0.0, rescan=0.0)
        self._runner = MirrorRunner(settings, None)
        assert self._runner.begin(threading.Event())
        return self._runner

    def false_differences(self) -> int:
        """Scan, and return how many files are sent though they are equal."""
        assert self._runner is not None
        report = self._runner._scanner.scan(ScanRequest(""))
        assert (report.error, report.equal) == (None, len(KEYS))
        return report.uploads + report.checks

    def close(self) -> None:
        if self._runner is not None:
            self._runner.leave()


@pytest.fixture
def scans(broker: str, tree: Path, tmp_path: Path) -> Iterator[Scans]:
    for key in KEYS:
        (tree / key).write_text("x")
    scans = Scans(broker, tree, tmp_path)
    yield scans
    scans.close()


def test_the_next_start_sorts_from_the_beginning(scans: Scans) -> None:
    scans.start()
    assert scans.false_differences() > 0, "the listing is in another order"
    assert scans.false_differences() == 0

    scans.start()
    assert scans.false_differences() == 0


def test_another_target_may_be_in_order(scans: Scans) -> None:
    scans.start()
    scans.false_differences()

    scans.start("another")
    assert scans.false_differences() > 0


@pytest.mark.parametrize("loss", [lambda client: client.flushall(), lambda client: client.hdel("autosync:{m}:mirror", "unsorted")])
def test_a_broker_that_has_lost_it_costs_one_scan_at_most(scans: Scans, broker: str, loss: Callable[..., object]) -> None:
    scans.start()
    scans.false_differences()
    with connect(broker) as client:
        loss(client)

    scans.start()
    assert scans.false_differences() > 0
    scans.start()
    assert scans.false_differences() == 0


def test_a_running_mirror_stores_it_again_in_a_broker_that_has_lost_its_memory(scans: Scans, broker: str) -> None:
    runner = scans.start()
    scans.false_differences()
    stored = Ledger(connect(broker), "m").sync_state.unsorted_target()
    with connect(broker) as client:
        client.flushall()

    runner.tick()

    assert Ledger(connect(broker), "m").sync_state.unsorted_target() == stored != ""
