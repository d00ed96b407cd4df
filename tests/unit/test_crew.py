"""As many threads as are of use work on all batches of a mirror, and never more than it allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from autosync.tasks.thread_pool import AdaptivePool
from lab.servers import wait_until

LIMIT = 20.0


@pytest.fixture
def crew() -> Iterator[Callable[[int], AdaptivePool]]:
    made: list[AdaptivePool] = []

    def make(most: int) -> AdaptivePool:
        made.append(AdaptivePool(most, "m"))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Work:
    """Pieces that are done when the test lets them; it notes who did them."""

    def __init__(self, pieces: int) -> None:
        self.left = list(range(pieces))
        self.done: list[tuple[int, str]] = []
        self.running = self.most = 0
        self.go_on = threading.Event()
        self._lock = threading.Lock()

    def step(self) -> bool:
        with self._lock:
            if not self.left:
                return False
            piece = self.left.pop(0)
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.go_on.wait(LIMIT)
        with self._lock:
            self.running -= 1
            self.done.append((piece, threading.current_thread().name))
        return True


def start(crew: AdaptivePool, work: Work) -> threading.Thread:
    thread = threading.Thread(target=crew.work_off, args=(work.step, len(work.left)))
    thread.start()
    return thread


def took(crew: AdaptivePool, seconds: float) -> None:
    for _ in range(3):
        crew.took(seconds)


def test_a_target_that_answers_at_once_is_given_few_at_once_and_a_slow_one_many(crew: Callable[[int], AdaptivePool]) -> None:
    many = crew(100)
    assert many.at_once() == 16, "as long as nothing is known"
    took(many, 0.05)
    assert many.at_once() == 100
    took(many, 0.004)
    assert many.at_once() == 20
    took(many, 0.0003)
    took(many, 0.5)  # one that waited for others says nothing of the target
    assert many.at_once() == 2
    assert crew(3).at_once() == 3


def test_what_was_quick_long_ago_counts_no_more(crew: Callable[[int], AdaptivePool], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("autosync.tasks.thread_pool.time.monotonic", lambda: now)
    one = crew(100)
    one.took(0.0003)
    for now in (102.0, 104.0, 108.0):  # noqa: B007 - the clock's
        one.took(0.05)
    assert one.at_once() == 100


def test_small_transfers_are_taken_by_the_handful_once_the_target_answers(crew: Callable[[int], AdaptivePool]) -> None:
    many, few = crew(100), crew(3)
    assert many.piece(together=True) == 1, "as long as nothing is known"
    for one in (many, few):
        one.took(0.016, 16)
    assert many.at_once() == 5, "a thread waits for a millisecond with each of sixteen"
    assert many.piece(together=True) == 16
    assert few.piece(together=True) == 3, "no more than may be in flight"
    assert many.piece(together=False) == 4, "as are done in four milliseconds, one after the other"
    slow = crew(100)
    slow.took(0.05)
    assert slow.piece(together=False) == 1, "others can be doing them at the same time"


def test_no_more_transfers_are_in_flight_than_are_allowed(crew: Callable[[int], AdaptivePool]) -> None:
    one, inside = crew(20), threading.Event()
    with one.room(16), one.room(4):
        other = threading.Thread(target=lambda: one.room(4).__enter__() or inside.set())
        other.start()
        wait_until(lambda: one._fewer_in_flight._waiters, LIMIT, "the other waits")  # type: ignore[attr-defined]
        assert one._in_flight == 20
        assert not inside.is_set()
    assert inside.wait(LIMIT)
    other.join()


@pytest.mark.parametrize("most", [1, 2, 7])
def test_every_piece_is_done_once_and_no_more_at_a_time_than_are_allowed(crew: Callable[[int], AdaptivePool], most: int) -> None:
    one, work = crew(most), Work(50)
    thread = start(one, work)
    wait_until(lambda: work.running == most, LIMIT)
    work.go_on.set()
    thread.join(LIMIT)

    wait_until(lambda: len(work.done) == 50, LIMIT)
    assert sorted(piece for piece, _ in work.done) == list(range(50))
    assert work.most == most


def test_batches_share_the_crew_and_one_that_hangs_does_not_keep_it(crew: Callable[[int], AdaptivePool]) -> None:
    one = crew(4)
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


def test_helpers_go_on_with_a_batch_that_comes_while_they_work(crew: Callable[[int], AdaptivePool]) -> None:
    one = crew(3)
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
    crew: Callable[[int], AdaptivePool], caplog: pytest.LogCaptureFixture
) -> None:
    one, work = crew(4), Work(20)
    work.go_on.set()
    ours = threading.current_thread()

    def step() -> bool:
        if threading.current_thread() is not ours and not caplog.records:
            raise RuntimeError("what nobody thought of")
        return work.step()

    wait_until(lambda: one.work_off(step, 20) is None and (caplog.records or work.left.extend(range(20))), LIMIT, "a helper met it")
    assert "not expected" in caplog.text
    one.work_off(work.step, len(work.left))
    wait_until(lambda: not work.left and work.running == 0, LIMIT)
