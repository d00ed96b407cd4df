"""Limits of a target over a fleet of processes in front of a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect
from autosync.model.limits import Limits
from lab.buckets import Bucket, on_disk
from lab.faults import Proxy
from lab.programs import Programs
from lab.rates import age_last_cut, assert_within, steady_rate, steady_rate_of
from lab.servers import Valkey, wait_until

MEBI = 1 << 20


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:
    """Stands in front of the server of `bucket`."""
    with Proxy(bucket.server.url) as stats:
        yield stats


@pytest.fixture
def watch(bucket: Bucket, proxy: Proxy, tree: Path, broker: str) -> list[str]:
    options = [f"--target-container={bucket.name}", f"--endpoint-url={proxy.url}", f"--source-prefix={tree}/", "--name=m", str(tree)]
    return ["autosync-watch", f"--broker={broker}", *options]


def boxes(programs: Programs, broker: str, tree: Path, count: int) -> None:
    for number in range(count):
        programs.worker("-n", f"box{number}@%h", broker=broker, AUTOSYNC_SOURCES=json.dumps([str(tree)]))


def sent(proxy: Proxy) -> list[float]:
    """When requests came that change something and were not refused."""
    return sorted(one.began for one in proxy.requests if one.is_change and one.status // 100 == 2)


@pytest.mark.alone
def test_a_fleet_respects_its_limit(programs: Programs, broker: str, proxy: Proxy, tree: Path, watch: list[str]) -> None:
    for number in range(330):
        (tree / str(number)).write_text(str(number))
    boxes(programs, broker, tree, 3)

    programs.start(*watch, "--limit-requests=80/s")

    wait_until(lambda: len(sent(proxy)) > 300, 60, "most are sent")
    assert_within(steady_rate(sent(proxy)[40:300]), 80)


@pytest.mark.alone
def test_large_files_of_a_fleet_respect_its_bandwidth(
    programs: Programs, broker: str, bucket: Bucket, proxy: Proxy, tree: Path, watch: list[str]
) -> None:
    """In parts (20 MiB) and in one request (5 MiB)."""
    (tree / "large").write_bytes(bytes(20 * MEBI))
    for number in range(4):
        (tree / str(number)).write_bytes(bytes(5 * MEBI))
    boxes(programs, broker, tree, 2)
    watcher = programs.start(*watch, "--limit-bandwidth=8MB/s")
    passed: list[tuple[float, float]] = []

    def enough() -> bool:
        amount = sum(one.passed for one in list(proxy.requests) if one.method == "PUT")
        passed.append((amount, time.monotonic()))
        return amount > 28 * MEBI

    wait_until(enough, 60, "most of it has passed", pause=0.02)
    steady = [point for point in passed if point[0] > 4 * MEBI]
    assert_within(steady_rate_of(steady), 8e6, tolerance=0.08)
    seconds = [[later for later in steady[number:] if later[1] < one[1] + 1] for number, one in enumerate(steady)]
    assert max(points[-1][0] - points[0][0] for points in seconds) < 16e6, "in no second twice as much"

    Ledger(connect(broker), "m").limits.set(Limits())
    wait_until(lambda: bucket.sizes() == on_disk(tree), 30, "all of it")
    assert watcher.poll() is None


def test_a_fleet_slows_down_for_an_overloaded_server_and_speeds_up_again_by_itself(
    programs: Programs, own_valkey: Valkey, bucket: Bucket, proxy: Proxy, tree: Path, watch: list[str]
) -> None:
    broker = own_valkey.url
    watch[1] = f"--broker={broker}"
    boxes(programs, broker, tree, 2)
    watcher = programs.start(*watch, "--attempts=100")
    ledger = Ledger(connect(broker), "m")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.01):
            (tree / str(number)).write_text(str(number))
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: len(sent(proxy)) > 300, 60, "a stream of small files")
        assert ledger.limits.reserve().requests == 0
        proxy.overloaded = True
        wait_until(lambda: proxy.counts["503"] > 30, 30, "it refuses")
        wait_until(lambda: 0 < ledger.limits.reserve().requests < 30, 30, "the fleet knows")
        begin, before = time.monotonic(), proxy.counts["503"]
        wait_until(lambda: proxy.counts["503"] >= before + 30, 30, "it still refuses")
        assert 30 / (time.monotonic() - begin) < 60, "the whole fleet asks for less"
        low = ledger.limits.reserve().requests
        proxy.overloaded = False
        wait_until(lambda: ledger.limits.reserve().requests > 1.5 * low, 60, "it goes faster")
        age_last_cut(own_valkey.client(), "m", 60)  # the half minute that it takes is held in `test_rate_limits.py`
        wait_until(lambda: ledger.limits.reserve().requests == 0, 30, "and in the end as fast as before")
    finally:
        stop.set()
        writer.join()
    wait_until(lambda: bucket.sizes() == on_disk(tree), 60, "nothing is lost")
    assert watcher.poll() is None
