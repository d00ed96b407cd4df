"""As many threads as are of use work on all batches of a mirror, and never more than it allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from autosync.tasks.thread_pool import AdaptivePool
from lab.servers import wait_until

LIMIT = 20.0


@pytest.fixture
def pool() -> Iterator[Callable[[int], AdaptivePool]]:
    made: list[AdaptivePool] = []

    def make(most: int) -> AdaptivePool:
        made.append(AdaptivePool(most, "m"))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Chunk(NamedTuple):
    number: int
    transfers: int = 0


class Work:
    """Chunks that are done when the test lets them."""

    def __init__(self, chunks: int) -> None:
        self.left = list(range(chunks))
        self.done: list[int] = []
        self.running = self.most = 0
        self.go_on = threading.Event()
        self._lock = threading.Lock()

    def next_chunk(self) -> Chunk | None:
        with self._lock:
            return Chunk(self.left.pop(0)) if self.left else None

    def __len__(self) -> int:
        return len(self.left)

    def work(self, chunk: Chunk) -> list[int]:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.go_on.wait(LIMIT)
        with self._lock:
            self.running -= 1
        return [chunk.number]

    def report(self, results: Sequence[int]) -> None:
        with self._lock:
            self.done += results


def start(pool: AdaptivePool, work: Work) -> threading.Thread:
    thread = threading.Thread(target=pool.run, args=(work, work.work, work.report))
    thread.start()
    return thread


def respond(pool: AdaptivePool, seconds: float) -> None:
    for _ in range(3):
        pool.add_response_time(seconds)


def test_a_target_that_responds_at_once_gets_few_threads_and_a_slow_one_many(pool: Callable[[int], AdaptivePool]) -> None:
    many = pool(100)
    assert many.useful_threads() == 16, "as long as nothing is known"
    respond(many, 0.05)
    assert many.useful_threads() == 100
    respond(many, 0.004)
    assert many.useful_threads() == 20
    respond(many, 0.0003)
    respond(many, 0.5)  # one that waited for others is no measure of the target
    assert many.useful_threads() == 2
    assert pool(3).useful_threads() == 3


def test_what_was_quick_long_ago_counts_no_more(pool: Callable[[int], AdaptivePool], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("autosync.tasks.thread_pool.time.monotonic", lambda: now)
    one = pool(100)
    one.add_response_time(0.0003)
    for now in (102.0, 104.0, 108.0):  # noqa: B007 - the clock's
        one.add_response_time(0.05)
    assert one.useful_threads() == 100


def test_small_transfers_go_in_chunks_once_the_target_has_responded(pool: Callable[[int], AdaptivePool]) -> None:
    many, few = pool(100), pool(3)
    assert many.chunk_size(together=True) == 1, "as long as nothing is known"
    for one in (many, few):
        one.add_response_time(0.016, 16)
    assert many.useful_threads() == 5, "a thread waits for a millisecond with each of sixteen"
    assert many.chunk_size(together=True) == 16
    assert few.chunk_size(together=True) == 3, "no more than may be in flight"
    assert many.chunk_size(together=False) == 4, "as are done in four milliseconds, one after the other"
    slow = pool(100)
    slow.add_response_time(0.05)
    assert slow.chunk_size(together=False) == 1, "others can be doing them at the same time"


def test_no_more_transfers_are_in_flight_than_are_allowed(pool: Callable[[int], AdaptivePool]) -> None:
    one, inside = pool(20), threading.Event()
    with one.in_flight(16), one.in_flight(4):
        other = threading.Thread(target=lambda: one.in_flight(4).__enter__() or inside.set())
        other.start()
        wait_until(lambda: one._fewer_in_flight._waiters, LIMIT, "the other waits")  # type: ignore[attr-defined]
        assert one._in_flight == 20
        assert not inside.is_set()
    assert inside.wait(LIMIT)
    other.join()


@pytest.mark.parametrize("most", [1, 2, 7])
def test_every_chunk_is_done_once_and_no_more_at_a_time_than_are_allowed(pool: Callable[[int], AdaptivePool], most: int) -> None:
    one, work = pool(most), Work(50)
    thread = start(one, work)
    wait_until(lambda: work.running == most, LIMIT)
    work.go_on.set()
    thread.join(LIMIT)

    wait_until(lambda: len(work.done) == 50, LIMIT)
    assert sorted(work.done) == list(range(50))
    assert work.most == most


def test_batches_share_the_pool_and_one_that_hangs_does_not_block_it(pool: Callable[[int], AdaptivePool]) -> None:
    one = pool(4)
    hanging, quick = Work(1), Work(30)
    first = start(one, hanging)
    wait_until(lambda: hanging.running == 1, LIMIT)

    second = start(one, quick)
    wait_until(lambda: quick.running == 3, LIMIT, "all others work on the second")
    quick.go_on.set()
    second.join(LIMIT)
    wait_until(lambda: len(quick.done) == 30, LIMIT)
    assert hanging.done == []

    hanging.go_on.set()
    first.join(LIMIT)
    assert len(hanging.done) == 1


def test_helpers_go_on_with_a_batch_that_comes_while_they_work(pool: Callable[[int], AdaptivePool]) -> None:
    one = pool(3)
    first, second = Work(30), Work(30)
    threads = [start(one, first)]
    wait_until(lambda: first.running == 3, LIMIT)
    threads.append(start(one, second))
    for work in (first, second):
        work.go_on.set()
    for thread in threads:
        thread.join(LIMIT)

    wait_until(lambda: len(first.done) == len(second.done) == 30, LIMIT)


def test_a_helper_that_meets_something_unexpected_leaves_the_rest_to_others(
    pool: Callable[[int], AdaptivePool], caplog: pytest.LogCaptureFixture
) -> None:
    one, work = pool(4), Work(20)
    work.go_on.set()
    ours = threading.current_thread()

    def fail_once(chunk: Chunk) -> list[int]:
        if threading.current_thread() is not ours and not caplog.records:
            raise RuntimeError("not foreseen")
        return work.work(chunk)

    def has_failed() -> bool:
        one.run(work, fail_once, work.report)
        work.left.extend(range(20))
        return bool(caplog.records)

    wait_until(has_failed, LIMIT, "a helper has met it")
    assert "not expected" in caplog.text
    one.run(work, work.work, work.report)
    assert (work.left, work.running) == ([], 0)


def test_a_batch_does_not_end_while_a_helper_works_on_a_chunk_that_was_added_late(pool: Callable[[int], AdaptivePool]) -> None:
    """The helper comes when the batch's own thread has found no chunk any more, and reports."""
    one, work = pool(4), Work(1)
    work.go_on.set()
    began = threading.Event()
    jobs, helpers = one._jobs, list[threading.Thread]()

    def add_late(results: Sequence[int]) -> None:
        work.report(results)
        if results and not helpers:
            (job,) = jobs
            work.left.append(1)
            work.go_on.clear()
            helpers.append(threading.Thread(target=job.step))
            helpers[0].start()
            wait_until(lambda: work.running == 1, LIMIT, "the helper has begun")
            began.set()

    thread = threading.Thread(target=one.run, args=(work, work.work, add_late))
    thread.start()
    assert began.wait(LIMIT)
    wait_until(lambda: not jobs, LIMIT, "the batch's own thread has found no chunk")
    ended_early = not thread.is_alive()
    work.go_on.set()
    for each in (*helpers, thread):
        each.join(LIMIT)
    assert (ended_early, work.done) == (False, [0, 1])


def test_no_chunk_begins_when_a_batch_has_ended(pool: Callable[[int], AdaptivePool]) -> None:
    one, work = pool(4), Work(1)
    work.go_on.set()
    jobs: list[Any] = []

    def note_job(results: Sequence[int]) -> None:
        work.report(results)
        jobs.extend(one._jobs)

    one.run(work, work.work, note_job)
    work.left.append(1)

    assert not jobs[0].step()
    assert (work.left, work.done) == ([1], [0])
