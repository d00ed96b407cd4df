"""A flush point is reached once all that had happened before it is dealt with."""

from __future__ import annotations

import threading

from autosync.model.change import Change, Kind
from autosync.watch.debounce import Debouncer
from autosync.watch.flush import FlushPoints
from lab.servers import wait_until


def test_a_flush_point_is_reached_once() -> None:
    flush_points = FlushPoints(Debouncer(0.0))
    flush_points.add("a")
    flush_points.add("b")

    assert flush_points.pop_reached() == ["a", "b"]
    assert flush_points.pop_reached() == []


def test_a_flush_point_waits_for_what_a_scan_has_left_to_settle() -> None:
    now = [100.0]
    debouncer = Debouncer(1.0, lambda: now[0])
    flush_points = FlushPoints(debouncer)
    debouncer.push([Change(Kind.SCAN, "")])
    flush_points.add("a")
    assert flush_points.pop_reached() == []

    debouncer.pop_scan()
    assert flush_points.pop_reached() == []
    now[0] += 0.5
    debouncer.push([Change(Kind.APPEARED, "/busy")])  # the scan has met a file that changed just now
    threading.Thread(target=debouncer.pop_scan, daemon=True).start()  # so this scan is over
    wait_until(lambda: not debouncer._scan_in_progress, 20, "the scan is over")
    assert flush_points.pop_reached() == []

    now[0] += 1.0
    assert [one.path for one in debouncer.pop_due()] == ["/busy"]
    assert flush_points.pop_reached() == [], "it is being dealt with"
    debouncer.push([Change(Kind.SAVED, "/next")])
    debouncer.pop_due()
    assert flush_points.pop_reached() == ["a"]
    debouncer.close()
