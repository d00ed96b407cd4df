"""A barrier is reached once all is dealt with that had happened before it."""

from __future__ import annotations

import threading

from autosync.model.change import Change, Kind
from autosync.watch.debounce import Debouncer
from autosync.watch.flush import FlushPoints
from lab.servers import wait_until


def test_a_barrier_is_reached_once() -> None:
    barriers = FlushPoints(Debouncer(0.0))
    barriers.begin("a")
    barriers.begin("b")

    assert barriers.reached() == ["a", "b"]
    assert barriers.reached() == []


def test_a_barrier_waits_for_what_a_look_has_left_to_settle() -> None:
    now = [100.0]
    settle = Debouncer(1.0, lambda: now[0])
    barriers = FlushPoints(settle)
    settle.say([Change(Kind.LOOK, "")])
    barriers.begin("a")
    assert barriers.reached() == []

    settle.take_look()
    assert barriers.reached() == []
    now[0] += 0.5
    settle.say([Change(Kind.APPEARED, "/busy")])  # the look has met a file that changed just now
    threading.Thread(target=settle.take_look, daemon=True).start()  # so this one is over
    wait_until(lambda: not settle._look_out, 20, "the look is over")
    assert barriers.reached() == []

    now[0] += 1.0
    assert [one.path for one in settle.take()] == ["/busy"]
    assert barriers.reached() == [], "it is being dealt with"
    settle.say([Change(Kind.SAVED, "/next")])
    settle.take()
    assert barriers.reached() == ["a"]
    settle.close()
