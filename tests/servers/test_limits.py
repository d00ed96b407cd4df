"""Limits of a target, as workers keep them, with a real ledger."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from test_batch import Workbench

from autosync.actor import Actor
from autosync.errors import SlowDown
from autosync.files import File
from autosync.ledger import GONE, FleetLimits, Hint, RateGrant, connect
from autosync.model.limits import Limits
from autosync.model.mirror import SHORTEST_LEASE
from lab.servers import wait_until

MEBI = 1 << 20


class Counting(Actor):
    """A target in memory that notes when requests come, how many at once, and when each chunk of content."""

    lock = threading.Lock()
    began: ClassVar[list[float]] = []
    chunks: ClassVar[list[tuple[float, int]]] = []
    content: ClassVar[dict[str, bytes]] = {}
    at_once = most_at_once = 0
    slow = 0.0
    overloaded = False

    @classmethod
    def reset(cls) -> None:
        for record in (cls.began, cls.chunks, cls.content):
            record.clear()
        cls.at_once = cls.most_at_once = 0
        cls.slow, cls.overloaded = 0.0, False

    def _enter(self) -> None:
        with self.lock:
            self.began.append(time.monotonic())
            Counting.at_once += 1
            Counting.most_at_once = max(Counting.most_at_once, Counting.at_once)

    def _leave(self) -> None:
        with self.lock:
            Counting.at_once -= 1

    def upload(self, file: File) -> None:
        self._enter()
        try:
            if self.overloaded:
                raise SlowDown(f"{file.key}: 503")
            chunks = []
            with file.open() as source:
                while data := source.read(1 << 20):
                    self.chunks.append((time.monotonic(), len(data)))
                    chunks.append(data)
            time.sleep(self.slow)
            self.content[file.key] = b"".join(chunks)
        finally:
            self._leave()

    def delete(self, file: File) -> None:
        self._enter()
        self._leave()


class Together(Counting):
    """One that can have many on their way at once, and delete many."""

    sends_together = True

    def upload_many(self, files):  # type: ignore[no-untyped-def, override]
        threads = [threading.Thread(target=self.upload, args=(file,)) for file in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [None] * len(files)

    def delete_many(self, files):  # type: ignore[no-untyped-def, override]
        self._enter()
        self._leave()
        return [None] * len(files)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Counting.reset()


@pytest.fixture
def make(broker: str, tree: Path) -> Iterator[Callable[..., Workbench]]:
    made: list[Workbench] = []

    def one(**options: object) -> Workbench:
        made.append(Workbench(broker, tree, **{"actor": "test_limits.Counting", "threads": 16, **options}))
        return made[-1]

    yield one
    for workbench in made:
        for worker in workbench.workers:
            worker.close()


def work(bench: Workbench, keys: list[str], workers: int = 1) -> list[threading.Thread]:
    """So many workers work on these keys, each on its share; `join` waits for them."""
    made = [bench.worker() for _ in range(workers)]
    for worker in made:
        worker[1].throttle.refresh()
    threads = [threading.Thread(target=bench.work, args=(keys[number::workers], worker)) for number, worker in enumerate(made)]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.01))
    assert not any(thread.is_alive() for thread in threads)


def marked(bench: Workbench, tree: Path, count: int, size: int = 100) -> list[str]:
    keys = [str(number) for number in range(count)]
    for key in keys:
        (tree / key).write_bytes(key.encode()[:1] * size)
    bench.ledger.claims.mark([(key, Hint(size, (tree / key).stat().st_mtime_ns)) for key in keys])
    return keys


class Share(NamedTuple):
    """A share that the broker gave out: when it was reserved, when it is due, and what it is; less than 0 if it was returned."""

    requested_at: float
    due: float
    requests: int
    size: int


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[Share]:
    """All shares of the test. That the broker gives them out at the right times is held in `test_rate_limits.py`."""
    given: list[Share] = []
    reserve = FleetLimits.reserve

    def noted(fleet_limits: FleetLimits, requests: int = 0, size: int = 0, **more: Any) -> RateGrant:
        requested_at = time.monotonic()
        answer = reserve(fleet_limits, requests, size, **more)
        if requests or size:
            given.append(Share(requested_at, requested_at + answer.wait, requests, size))
        return answer

    monkeypatch.setattr(FleetLimits, "reserve", noted)
    return given


def used_before_they_were_due(used: Sequence[tuple[float, int]], due: Sequence[tuple[float, int]]) -> list[float]:
    """The instants at which more had been used than was due; both are pairs of an instant and an amount."""
    return [
        instant for instant, _ in used
        if sum(amount for when, amount in used if when <= instant) > sum(amount for when, amount in due if when <= instant and amount > 0)
    ]  # fmt: skip


def requests(bench: Workbench) -> int:
    """How many scripts the broker has run."""
    return int(connect(bench.broker).info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


def test_without_limits_there_are_no_requests_about_them(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make()
    worker = bench.worker()
    bench.work(marked(bench, tree, 1, 200), worker)  # the broker has learned the scripts
    keys = marked(bench, tree, 40)
    before = requests(bench)

    bench.work(keys, worker)

    assert len(Counting.content) == 40
    assert requests(bench) - before <= 2 + 1, "claim, done, and a check of the limits once a second"


@pytest.mark.parametrize("actor", ["Counting", "Together"])
@pytest.mark.parametrize("workers", [1, 3])
def test_requests_come_no_faster_than_they_may(
    make: Callable[..., Workbench], tree: Path, shares: list[Share], actor: str, workers: int
) -> None:
    bench = make(actor=f"test_limits.{actor}")
    bench.ledger.limits.set(Limits(requests=100))
    keys = marked(bench, tree, 100)

    join(work(bench, keys, workers))

    assert bench.ledger.key_states.count_dirty() == 0
    came = sorted(Counting.began)
    assert len(came) == 100
    assert used_before_they_were_due([(one, 1) for one in came], [(share.due, share.requests) for share in shares]) == []
    unused = sum(share.requests for share in shares) - 100
    assert 0 <= unused <= 2 * workers, "each is paid for, and no more than the next few of each box"


def test_deletions_are_requests_and_those_that_go_together_are_one(
    make: Callable[..., Workbench], tree: Path, shares: list[Share]
) -> None:
    for actor, requests in (("Counting", 30), ("Together", 1)):
        Counting.reset()
        shares.clear()
        bench = make(actor=f"test_limits.{actor}")
        bench.ledger.limits.set(Limits(requests=60))
        keys = [str(number) for number in range(30)]
        bench.ledger.claims.mark([(key, GONE) for key in keys])
        join(work(bench, keys))
        came = Counting.began
        assert len(came) == requests
        assert bench.ledger.key_states.count_dirty() == 0
        assert used_before_they_were_due([(one, 1) for one in came], [(share.due, share.requests) for share in shares]) == []


def test_a_check_that_sends_nothing_costs_nothing(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make(delete=False)
    bench.ledger.limits.set(Limits(requests=0.01))
    keys = [str(number) for number in range(30)]
    bench.ledger.claims.mark([(key, GONE) for key in keys])

    join(work(bench, keys))

    assert Counting.began == []
    assert bench.ledger.key_states.count_dirty() == 0


def test_content_of_large_files_is_sent_in_small_blocks_within_the_limit(
    make: Callable[..., Workbench], tree: Path, shares: list[Share]
) -> None:
    bench = make()
    bench.ledger.limits.set(Limits(bandwidth=4e6))
    keys = marked(bench, tree, 3, MEBI)

    join(work(bench, keys, 3))

    assert {len(content) for content in Counting.content.values()} == {MEBI}
    chunks = sorted(Counting.chunks)
    most = 200_000
    assert max(size for _, size in chunks) <= most, "a twentieth of a second's at most"
    assert used_before_they_were_due(chunks, [(share.due, share.size) for share in shares]) == []
    # All three move on all the time: nobody has more than one block that is not used yet.
    for share in shares:
        used = sum(size for when, size in chunks if when < share.requested_at)
        assert sum(one.size for one in shares if one.requested_at < share.requested_at) - used <= 3 * most


def test_small_files_go_no_faster_than_the_bandwidth_allows(make: Callable[..., Workbench], tree: Path, shares: list[Share]) -> None:
    bench = make(actor="test_limits.Together")
    bench.ledger.limits.set(Limits(bandwidth=1e6))
    keys = marked(bench, tree, 50, 20_000)

    join(work(bench, keys, 2))

    assert bench.ledger.key_states.count_dirty() == 0
    assert sum(size for _, size in Counting.chunks) == 1_000_000
    assert used_before_they_were_due(Counting.chunks, [(share.due, share.size) for share in shares]) == []


@pytest.mark.parametrize("actor", ["Counting", "Together"])
def test_no_more_are_in_flight_than_may_be(make: Callable[..., Workbench], tree: Path, actor: str) -> None:
    bench = make(actor=f"test_limits.{actor}")
    Counting.slow = 0.02
    keys = marked(bench, tree, 60)
    join(work(bench, keys, 2))
    assert Counting.most_at_once > 4, "without a limit"
    Counting.reset()
    Counting.slow = 0.02

    bench.ledger.limits.set(Limits(inflight=2))
    join(work(bench, marked(bench, tree, 60, 200), 2))

    assert len(Counting.content) == 60
    assert Counting.most_at_once == 2
    assert bench.ledger.key_states.count_dirty() == 0


def test_limits_are_changed_while_a_large_file_is_on_its_way(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make()
    bench.ledger.limits.set(Limits(bandwidth=200e3))
    keys = marked(bench, tree, 1, 8 * MEBI)
    threads = work(bench, keys)
    wait_until(lambda: len(Counting.chunks) > 2, 30, "it is on its way")

    bench.ledger.limits.set(Limits())

    join(threads, 30)
    assert len(Counting.content["0"]) == 8 * MEBI


def test_a_worker_that_is_stopped_puts_back_what_waits(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make()
    bench.ledger.limits.set(Limits(requests=0.02))
    keys = marked(bench, tree, 30)
    threads = work(bench, keys)
    wait_until(lambda: len(Counting.content) == 1, 30, "the first has gone")

    bench.workers[0].draining.set()

    join(threads, 30)
    bench.ledger.limits.set(Limits())
    bench.work(keys)
    assert len(Counting.content) == 30
    assert bench.ledger.key_states.count_dirty() == 0


def test_claims_are_renewed_while_they_wait(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make(lease=SHORTEST_LEASE)
    bench.ledger.limits.set(Limits(requests=0.01))
    keys = marked(bench, tree, 2)
    threads = work(bench, keys)
    wait_until(lambda: Counting.content, what="the first has gone, and the other has to wait for long")
    (key,) = set(keys) - set(Counting.content)
    ends: set[float | None] = set()

    def is_renewed() -> bool:
        assert bench.ledger.claims.requeue_orphans() == []
        ends.add(bench.ledger.key_states.facts(key).due)
        return len(ends) > 3

    wait_until(is_renewed, what="three renewals, and so the end of the first lease")
    assert None not in ends
    bench.ledger.limits.set(Limits())

    join(threads)
    assert len(Counting.began) == 2
    assert bench.ledger.key_states.count_dirty() == 0


def test_a_target_that_is_overloaded_slows_all_workers_down(make: Callable[..., Workbench], tree: Path) -> None:
    bench = make(attempts=100)
    keys = marked(bench, tree, 5)
    other = bench.worker()
    other[1].throttle.refresh()
    assert not other[1].throttle.is_on
    Counting.overloaded = True

    bench.work(keys)

    assert len(Counting.began) == 5
    other[1].throttle.refresh()
    assert other[1].throttle.is_on, "one that was not refused knows too"
    assert bench.ledger.limits.reserve().requests > 0
