"""The lock of a mirror's watcher: how long it holds, and who may take it."""

from __future__ import annotations

import json
import threading

import pytest

from autosync.errors import StartError
from autosync.ledger import Ledger, connect
from autosync.ledger.watcher_lock import WatcherLock
from autosync.model.mirror import LONGEST_WATCHER_LEASE


@pytest.fixture
def ledger(broker: str) -> Ledger:
    return Ledger(connect(broker), "m")


def elsewhere(name: str) -> str:
    """A watcher on another host; whether it lives cannot be found out from here."""
    return json.dumps({"host": name, "pid": 1, "boot": name, "started": 0.0})


def test_a_watcher_holds_its_lock_for_as_long_as_its_mirror_defines(ledger: Ledger) -> None:
    lock = WatcherLock(ledger.watcher_lock, "m", "boot", 3.0)
    lock.acquire(threading.Event())

    for renew in (lock.renew, lock.heartbeat, lambda: lock.acquire(threading.Event())):
        locked = ledger.watcher_lock.holder()
        assert locked is not None
        assert 0 < locked[1] <= 3.0
        renew()


def test_a_watcher_with_a_short_lock_waits_for_a_long_one_of_a_dead_watcher(ledger: Ledger) -> None:
    ledger.watcher_lock.heartbeat(elsewhere("dead"), lease=2.0)
    lock = WatcherLock(ledger.watcher_lock, "m", "boot", 0.2)

    lock.acquire(threading.Event())

    assert "dead" not in ledger.stats.read().holder


def test_a_watcher_that_renews_a_short_lock_does_not_count_as_dead(ledger: Ledger) -> None:
    stop = threading.Event()
    other = elsewhere("other")
    ledger.watcher_lock.heartbeat(other, lease=LONGEST_WATCHER_LEASE)

    def renew() -> None:
        while not stop.wait(0.1):
            ledger.watcher_lock.heartbeat(other, lease=LONGEST_WATCHER_LEASE)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(StartError, match="already watched by process 1 on other"):
            WatcherLock(ledger.watcher_lock, "m", "boot", 3.0).acquire(threading.Event())
    finally:
        stop.set()
        thread.join()
