"""Work that is done ahead."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from autosync.process.prefetch import Prefetcher


def test_several_functions_run_at_once_and_errors_are_in_their_futures() -> None:
    together = threading.Barrier(3)
    ahead = Prefetcher(3, "test-ahead")

    requested = [ahead.submit(lambda: together.wait(timeout=30)) for _ in range(3)]
    wrong = ahead.submit(lambda: [][0])

    assert sorted(one.result(timeout=30) for one in requested) == [0, 1, 2]
    with pytest.raises(IndexError):
        wrong.result(timeout=30)
    ahead.close(wait=True)


def test_one_thread_preserves_the_order() -> None:
    done: list[int] = []
    ahead = Prefetcher(1, "test-ahead")

    for number in range(20):
        last = ahead.submit(lambda number=number: done.append(number))
    last.result(timeout=30)
    ahead.close(wait=True)

    assert done == list(range(20))


def test_functions_that_have_not_begun_are_cancelled_and_others_are_waited_for() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()
    ahead = Prefetcher(1, "test-ahead")

    def work() -> None:
        begun.set()
        may_end.wait(30)
        ended.set()

    first, second = ahead.submit(work), ahead.submit(work)
    assert begun.wait(30)
    closing = threading.Thread(target=lambda: ahead.close(wait=True))
    closing.start()
    with pytest.raises(CancelledError):
        second.result(timeout=30)
    may_end.set()
    closing.join(30)

    assert ended.is_set()
    assert first.done()
    assert not [thread for thread in threading.enumerate() if thread.name == "test-ahead"]


def test_nobody_waits_for_it_if_that_is_not_wished() -> None:
    may_end = threading.Event()
    ahead = Prefetcher(2, "test-ahead")
    requested = ahead.submit(lambda: may_end.wait(30))

    ahead.close(wait=False)

    assert not requested.done()
    may_end.set()
    assert requested.result(timeout=30)
