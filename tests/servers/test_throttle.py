"""Processes that keep to one limit together: what each of them got, by the one clock of this host."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autosync.errors import Draining
from autosync.ledger import Ledger, connect
from autosync.model.limits import Limits
from autosync.tasks.file_limits import Reservation
from autosync.tasks.throttle import Throttle
from lab.rates import assert_within, steady_rate
from lab.servers import Valkey, wait_until

#: A rate is measured over so long, in seconds.
INTERVAL = 2.0


def fleet(broker: str, processes: int, requests: int, size: int) -> list[list[float]]:
    """When each process got a share, within `INTERVAL` after all of them had got one."""
    command = [sys.executable, str(Path(__file__).with_name("throttled.py")), broker, *map(str, (processes, requests, size, 4))]
    with connect(broker) as client, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as throttled:
        try:
            wait_until(lambda: client.scard("came") == processes, 60, "each has had its first share")
            begin = time.monotonic()
            time.sleep(INTERVAL)
        finally:
            text, _ = throttled.communicate("")
    assert throttled.returncode == 0
    instants: dict[str, list[float]] = {f"p{number}": [] for number in range(processes)}
    for name, instant in map(str.split, text.splitlines()):
        if begin <= float(instant) < begin + INTERVAL:
            instants[name].append(float(instant))
    return list(instants.values())


@pytest.mark.alone
@pytest.mark.parametrize("processes", [1, 2, 8])
def test_the_fleet_makes_as_many_requests_as_it_may(broker: str, processes: int) -> None:
    Ledger(connect(broker), "m").limits.set(Limits(requests=200))

    got = fleet(broker, processes, 1, 0)

    assert_within(steady_rate(itertools.chain(*got)), 200)
    assert min(map(len, got)) > 0.8 * max(map(len, got)), "each gets as much as the others"


@pytest.mark.alone
@pytest.mark.parametrize("processes", [1, 8])
def test_the_fleet_sends_as_many_bytes_as_it_may(broker: str, processes: int) -> None:
    size = 256 << 10
    Ledger(connect(broker), "m").limits.set(Limits(bandwidth=40e6))

    got = fleet(broker, processes, 0, size)

    assert_within(steady_rate(itertools.chain(*got), size), 40e6)
    assert min(map(len, got)) > 0.7 * max(map(len, got)), "each gets as much as the others"


def test_a_few_files_are_paid_for_at_once_and_what_is_not_needed_goes_back(broker: str) -> None:
    ledger = Ledger(connect(broker), "m")
    ledger.limits.set(Limits(requests=0.1))
    throttle = Throttle(ledger.limits, "one", threading.Event())
    throttle.refresh()
    reservation = Reservation(throttle, 4)

    for number in range(4):
        reservation.next()
        if number != 1:
            reservation.acquire(0, lambda: pytest.fail("one share of four, and no waiting"))
    reservation.release(0)
    reservation.close()

    for _ in range(2):  # one that was passed over, and one that was put back
        throttle.acquire(1, 0, lambda: pytest.fail("it is available, and no waiting"))
    assert ledger.limits.reserve(1).wait > 35


def test_waiting_uses_no_processor(broker: str) -> None:
    ledger = Ledger(connect(broker), "m")
    ledger.limits.set(Limits(requests=5))
    throttle = Throttle(ledger.limits, "one", threading.Event())
    throttle.refresh()
    before = time.process_time()
    began = time.monotonic()
    for _ in range(7):
        throttle.acquire(1, 0, lambda: None)
    assert time.monotonic() - began > 1.0
    assert time.process_time() - before < 0.1


def test_waiting_ends_within_a_second_when_there_is_no_limit_any_more(broker: str) -> None:
    ledger = Ledger(connect(broker), "m")
    ledger.limits.set(Limits(requests=0.01))
    throttle = Throttle(ledger.limits, "one", threading.Event())
    throttle.refresh()
    threads = [threading.Thread(target=throttle.acquire, args=(1, 0, lambda: None)) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(thread.is_alive() for thread in threads) == 4, 30, "the first has what it wants")

    ledger.limits.set(Limits())
    throttle.refresh()

    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_a_process_that_is_to_end_waits_no_more_and_its_share_goes_to_the_next(broker: str) -> None:
    ledger = Ledger(connect(broker), "m")
    ledger.limits.set(Limits(requests=0.01))
    draining = threading.Event()
    throttle = Throttle(ledger.limits, "one", draining)
    throttle.refresh()
    throttle.acquire(1, 0, lambda: None)
    ended: list[float] = []

    def go_on() -> None:
        if draining.is_set():
            raise Draining("the worker is being stopped")

    def wait() -> None:
        with pytest.raises(Draining):
            throttle.acquire(1, 0, go_on)
        ended.append(time.monotonic())

    threads = [threading.Thread(target=wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    client = connect(broker)

    def debt() -> float:
        """In seconds."""
        seconds, more = client.time()
        return float(client.hget("autosync:{m}:pace", "requests")) / 1e6 - seconds - more / 1e6  # type: ignore[arg-type]

    wait_until(lambda: debt() > 100, 30, "one of them stands in line")
    assert debt() <= 200, "and no more than one"
    draining.set()
    for thread in threads:
        thread.join(30)
    assert len(ended) == 20, "and none has waited for the hundred seconds of its share"
    assert debt() <= 100


def test_a_broker_that_goes_away_is_waited_for(own_valkey: Valkey) -> None:
    ledger = Ledger(connect(own_valkey.url), "m")
    ledger.limits.set(Limits(requests=1000))
    throttle = Throttle(ledger.limits, "one", threading.Event())
    throttle.refresh()
    throttle.acquire(1, 0, lambda: None)
    own_valkey.kill()
    checks = 0

    def go_on() -> None:
        nonlocal checks
        checks += 1

    thread = threading.Thread(target=throttle.acquire, args=(1000, 0, go_on))
    thread.start()
    wait_until(lambda: checks > 1, 20, "it has met the dead broker")
    assert thread.is_alive()
    own_valkey.start()
    thread.join(20)
    assert not thread.is_alive()


def test_slots_last_for_as_long_as_a_transfer_does(broker: str) -> None:
    ledger = Ledger(connect(broker), "m")
    ledger.limits.set(Limits(inflight=2))
    one, two = (Throttle(ledger.limits, name, threading.Event()) for name in ("one", "two"))
    for throttle in (one, two):
        throttle.refresh()
    began: list[float] = []

    def transfer() -> None:
        with two.in_flight(1, lambda: None, large=False):
            began.append(time.monotonic())

    with one.in_flight(16, lambda: None, large=False) as most:
        assert most == 2
        thread = threading.Thread(target=transfer)
        thread.start()
        wait_until(lambda: connect(broker).zcard("autosync:{m}:queue") == 1, 30, "the other waits")
        assert not began
    thread.join(10)
    assert began
