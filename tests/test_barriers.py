"""A barrier is reached once all is dealt with that had happened before it."""

from __future__ import annotations

from autosync.barriers import Barriers
from autosync.change import Change, Kind
from autosync.settle import LOOK_DELAY, Settle


def test_a_barrier_is_reached_once() -> None:
    barriers = Barriers(Settle(0.0))
    barriers.begin("a")
    barriers.begin("b")

    assert barriers.reached() == ["a", "b"]
    assert barriers.reached() == []


def test_a_barrier_waits_for_what_a_look_has_left_to_settle() -> None:
    now = [100.0]
    settle = Settle(1.0, lambda: now[0])
    barriers = Barriers(settle)
    settle.say([Change(Kind.LOOK, "")])
    barriers.begin("a")
    assert barriers.reached() == []

    settle.take_look()
    assert barriers.reached() == []
    now[0] += 0.5
    settle.say([Change(Kind.APPEARED, "/busy")])  # the look has met a file that changed just now
    settle.say([Change(Kind.LOOK, "/another")])
    now[0] += LOOK_DELAY
    settle.take_look()  # so the first one is over
    assert barriers.reached() == []

    now[0] += 1.0
    assert [one.path for one in settle.take()] == ["/busy"]
    settle.say([Change(Kind.SAVED, "/next")])
    settle.take()
    assert barriers.reached() == ["a"]
