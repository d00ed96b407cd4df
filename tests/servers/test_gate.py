"""The scripts that limit the fleet, against a real Valkey: how long whoever asks has to wait, and who gets the next place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import redis

from autosync.errors import BrokerError
from autosync.ledger import FleetLimits, Ledger, connect
from autosync.model.limits import Limits
from lab.rates import age_last_cut
from lab.servers import Valkey, wait_until

MIRROR = "autosync:{m}:mirror"


@pytest.fixture
def client(broker: str) -> Iterator[redis.Redis]:
    with connect(broker) as connected:
        yield connected


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    made = Ledger(client, "m")
    made.register("{}", "v")
    return made


@pytest.fixture
def gate(ledger: Ledger) -> FleetLimits:
    return ledger.gate


class Since:
    """An instant on the broker's clock, from which waits and rates are counted: both change while a test waits for its processor."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._began = self._now()

    def _now(self) -> float:
        seconds, more = self._client.time()  # type: ignore[misc]
        return float(seconds + more / 1e6)

    @property
    def passed(self) -> float:
        """Not less than what has passed, in seconds."""
        return self._now() - self._began

    def is_left(self, wait: float, of: float) -> bool:
        """Whether a wait that has just been answered is what is left of so many seconds."""
        return of - self.passed <= wait <= of + 1e-4

    def has_grown(self, rate: float, of: float, by: float) -> bool:
        """Whether a rate that has just been answered is what has become of another, which grows by so much in a second."""
        return of - 1e-4 <= rate <= of + by * self.passed + 1e-4


@pytest.fixture
def since(gate: FleetLimits, client: redis.Redis) -> Since:
    return Since(client)


# Requests and bytes

def test_without_limits_nobody_waits(gate: FleetLimits) -> None:
    assert [gate.pace(1000, 10**12).wait for _ in range(3)] == [0, 0, 0]
    assert gate.pace().limits == Limits()


def test_each_waits_for_those_who_asked_before(gate: FleetLimits, since: Since) -> None:
    """5 MB each at 1 MB/s: 0, 5, 10 s, less what nobody had used before."""
    gate.set_limits(Limits(bandwidth=1e6))

    waits = [gate.pace(size=5_000_000).wait for _ in range(3)]

    assert waits[0] == 0
    assert since.is_left(waits[1], of=4.9)
    assert since.is_left(waits[2], of=9.9)


def test_the_longer_of_two_waits_counts(gate: FleetLimits, since: Since) -> None:
    gate.set_limits(Limits(requests=10, bandwidth=1e6))
    gate.pace(20, 1_000_000)
    assert since.is_left(gate.pace(1, 1).wait, of=1.9)
    gate.pace(0, 9_000_000)
    assert since.is_left(gate.pace(1, 1).wait, of=9.9)


def test_what_is_given_back_goes_to_the_next(gate: FleetLimits, since: Since) -> None:
    gate.set_limits(Limits(requests=1))
    gate.pace(10)
    assert since.is_left(gate.pace(10).wait, of=9.9)
    gate.pace(-10)
    assert since.is_left(gate.pace(1).wait, of=9.9)


def test_time_that_nobody_used_is_made_good_for_no_longer_than_a_tenth_of_a_second(gate: FleetLimits, client: redis.Redis) -> None:
    gate.set_limits(Limits(requests=10))
    gate.pace(1)
    client.hincrby("autosync:{m}:pace", "requests", -60_000_000)  # as if nobody had come for a minute

    since = Since(client)
    assert gate.pace(100).wait == 0

    assert since.is_left(gate.pace(1).wait, of=9.9), "a hundred at 10/s, but for one: not the six hundred of the time in which nobody came"


def test_limits_are_changed_for_all_at_once_and_old_debts_are_forgotten(gate: FleetLimits, broker: str) -> None:
    gate.set_limits(Limits(requests=0.1))
    gate.pace(10)
    with connect(broker) as client:
        Ledger(client, "m").set_limits(Limits(requests=1000))
        assert Ledger(client, "m").limits() == Limits(requests=1000)

    answer = gate.pace(1)

    assert answer.wait == 0
    assert answer.limits == Limits(requests=1000)


def test_limits_that_are_lost_are_set_again_and_others_stay(gate: FleetLimits, client: redis.Redis) -> None:
    gate.set_limits(Limits())
    gate.set_limits(Limits(inflight=2), if_lost=True)
    assert gate.limits() == Limits(), "somebody has set that there are none"

    client.flushall()
    gate.set_limits(Limits(inflight=2), if_lost=True)
    assert gate.limits() == Limits(inflight=2)


def test_a_claim_says_whether_there_are_limits(ledger: Ledger) -> None:
    ledger.claim("one", "v", ["a"])
    assert not ledger.is_limited
    for limits in (Limits(requests=1), Limits(bandwidth=1), Limits(inflight=1)):
        ledger.set_limits(limits)
        ledger.claim("one", "v", ["a"])
        assert ledger.is_limited
        ledger.set_limits(Limits())
        ledger.claim("one", "v", ["a"])
        assert not ledger.is_limited
    ledger.gate.pace(slow=10.0)
    ledger.claim("one", "v", ["a"])
    assert ledger.is_limited


# A target that asks for fewer

def later(client: redis.Redis, seconds: float) -> None:
    """As if the last cut had been so much longer ago."""
    age_last_cut(client, "m", seconds)


def test_a_target_that_asks_for_fewer_requests_gets_half_and_then_more_again_by_and_by(
    gate: FleetLimits, client: redis.Redis, since: Since
) -> None:
    first = gate.pace(slow=60.0)
    assert first.requests == 30
    assert since.is_left(gate.pace(1).wait, of=0.5), "a pause for all at first"

    later(client, 15)
    assert since.has_grown(gate.pace().requests, of=60, by=2)
    later(client, 15)
    assert since.has_grown(gate.pace().requests, of=90, by=2)
    later(client, 15.1)
    assert gate.pace(1).requests == 0, "it is without effect"
    assert client.hget(MIRROR, "slow") is None


def test_many_refusals_in_one_second_are_one(gate: FleetLimits, client: redis.Redis) -> None:
    since, cuts = Since(client), set()
    for _ in range(20):
        answer = gate.pace(slow=60.0)
        cuts.add(client.hget(MIRROR, "slow"))
    assert len(cuts) <= 1 + since.passed
    (cut,) = {float(cut.split()[0]) for cut in cuts if cut == client.hget(MIRROR, "slow")}  # type: ignore[union-attr]
    assert cut == 30 or since.passed > 1
    assert since.has_grown(answer.requests, of=cut, by=2)

    later(client, 1)
    assert since.has_grown(gate.pace(slow=60.0).requests, of=(cut + 2) / 2, by=1)


def test_a_target_that_refuses_everything_is_asked_now_and_then(gate: FleetLimits, client: redis.Redis) -> None:
    gate.pace(slow=640.0)
    for _ in range(20):
        later(client, 1)
        answer = gate.pace(slow=0.0)
    assert 10 <= answer.requests < 40
    later(client, 30)
    assert gate.pace().requests > 640, "what there was before is reached in half a minute"


def test_it_is_the_rate_of_the_fleet_that_is_halved(gate: FleetLimits, since: Since) -> None:
    gate.pace(made=300)
    gate.pace(made=500)
    requests = gate.pace(made=0, slow=100.0).requests
    assert 400 / (1 + since.passed) <= requests <= 400, "800 in a second and what has passed since"


def test_a_limit_holds_beside_it(gate: FleetLimits, client: redis.Redis) -> None:
    gate.set_limits(Limits(requests=20))
    assert gate.pace(slow=1000.0).requests == 10, "no more than the limit can have been made"
    later(client, 16)
    assert gate.pace().requests == 20
    assert client.hget(MIRROR, "slow") is None


# Places

def test_there_are_as_many_places_as_the_limit_says(gate: FleetLimits) -> None:
    gate.set_limits(Limits(inflight=3))
    assert gate.take("one", ["a", "b"]) == 2
    assert gate.take("two", ["c", "d"]) == 1
    assert gate.take("two", ["d"]) == 0
    gate.give("one", ["a", "b"])
    assert gate.take("two", ["d", "e", "f"]) == 2


def test_places_are_given_in_the_order_of_asking(gate: FleetLimits) -> None:
    gate.set_limits(Limits(inflight=1))
    gate.take("one", ["a"])
    for name in ("two", "three", "one"):
        assert gate.take(name, [name]) == 0

    gate.give("one", ["a"])
    assert gate.take("one", ["one"]) == 0
    assert gate.take("three", ["three"]) == 0
    assert gate.take("two", ["two"]) == 1
    gate.give("two", ["two"])
    assert gate.take("three", ["three"]) == 1


def test_whoever_is_next_is_woken(gate: FleetLimits) -> None:
    gate.set_limits(Limits(inflight=1))
    gate.take("one", ["a"])
    gate.take("two", ["b"])
    woken: list[float] = []

    def wait() -> None:
        gate.wait("two", 30)
        woken.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    gate.give("one", ["a"])
    thread.join(30)
    assert woken
    assert gate.take("two", ["b"]) == 1


def test_places_of_a_process_that_was_killed_come_back(gate: FleetLimits) -> None:
    gate.set_limits(Limits(inflight=1))
    gate.take("dead", ["a"], lease=0.05)
    wait_until(lambda: gate.take("two", ["b"]), 30, "its lease has ended")


def test_places_of_a_process_that_is_known_to_be_dead_are_free_at_once(ledger: Ledger, gate: FleetLimits) -> None:
    gate.set_limits(Limits(inflight=2))
    gate.take("box:1:x", ["box:1:x 1"])
    gate.take("box:2:x", ["box:2:x 1"])
    assert gate.take("box:1:x", ["box:1:x 2"]) == 0, "it waits"

    ledger.forfeit("box:1:")

    assert gate.take("box:3:x", ["box:3:x 1", "box:3:x 2"]) == 1


def test_places_that_are_kept_stay(gate: FleetLimits, client: redis.Redis) -> None:
    gate.set_limits(Limits(inflight=2))
    gate.take("one", ["a", "b"], lease=30)
    gate.keep("one", ["a", "never had"], lease=60)
    for place in client.zrange("autosync:{m}:places", 0, -1):
        client.zincrby("autosync:{m}:places", -30_000, place)  # as if the lease of b had passed
    assert gate.take("two", ["c", "d"]) == 1


def test_whoever_waits_no_more_is_passed_over(gate: FleetLimits) -> None:
    gate.set_limits(Limits(inflight=1))
    gate.take("one", ["a"])
    gate.take("gone", ["b"])
    began = time.monotonic()
    gate.take("dead", ["c"])
    gate.take("last", ["d"])
    gate.leave("gone")
    gate.give("one", ["a"])

    wait_until(lambda: gate.take("last", ["d"]), what="the dead one is not waited for")
    assert time.monotonic() - began > 2, "one that only takes its time is"


def test_every_method_says_so_when_the_broker_is_gone(own_valkey: Valkey) -> None:
    gate = Ledger(connect(own_valkey.url), "m").gate
    own_valkey.kill()
    calls = {
        "limits": gate.limits, "set_limits": lambda: gate.set_limits(Limits()), "pace": lambda: gate.pace(1),
        "take": lambda: gate.take("p", ["a"]), "give": lambda: gate.give("p", ["a"]), "keep": lambda: gate.keep("p", ["a"]),
        "leave": lambda: gate.leave("p"), "wait": lambda: gate.wait("p", 1),
        "forfeit": lambda: gate.forfeit("p"),
    }  # fmt: skip
    assert set(calls) == {name for name, value in vars(FleetLimits).items() if callable(value) and not name.startswith("_")}
    for call in calls.values():
        with pytest.raises(BrokerError):
            call()
