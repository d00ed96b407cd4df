"""The scripts that limit the fleet, against a real Valkey: how long each process has to wait, and which one gets the next slot."""

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
    made.definition.publish("{}", "v")
    return made


@pytest.fixture
def fleet_limits(ledger: Ledger) -> FleetLimits:
    return ledger.limits


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
def since(fleet_limits: FleetLimits, client: redis.Redis) -> Since:
    return Since(client)


# Requests and bytes

def test_without_limits_nobody_waits(fleet_limits: FleetLimits) -> None:
    assert [fleet_limits.reserve(1000, 10**12).wait for _ in range(3)] == [0, 0, 0]
    assert fleet_limits.reserve().limits == Limits()


def test_each_waits_for_the_reservations_before(fleet_limits: FleetLimits, since: Since) -> None:
    """5 MB each at 1 MB/s: 0, 5, 10 s, less what nobody had used before."""
    fleet_limits.set(Limits(bandwidth=1e6))

    waits = [fleet_limits.reserve(size=5_000_000).wait for _ in range(3)]

    assert waits[0] == 0
    assert since.is_left(waits[1], of=4.9)
    assert since.is_left(waits[2], of=9.9)


def test_the_longer_of_two_waits_counts(fleet_limits: FleetLimits, since: Since) -> None:
    fleet_limits.set(Limits(requests=10, bandwidth=1e6))
    fleet_limits.reserve(20, 1_000_000)
    assert since.is_left(fleet_limits.reserve(1, 1).wait, of=1.9)
    fleet_limits.reserve(0, 9_000_000)
    assert since.is_left(fleet_limits.reserve(1, 1).wait, of=9.9)


def test_a_share_that_is_returned_goes_to_the_next(fleet_limits: FleetLimits, since: Since) -> None:
    fleet_limits.set(Limits(requests=1))
    fleet_limits.reserve(10)
    assert since.is_left(fleet_limits.reserve(10).wait, of=9.9)
    fleet_limits.reserve(-10)
    assert since.is_left(fleet_limits.reserve(1).wait, of=9.9)


def test_time_that_nobody_used_is_made_good_for_no_longer_than_a_tenth_of_a_second(fleet_limits: FleetLimits, client: redis.Redis) -> None:
    fleet_limits.set(Limits(requests=10))
    fleet_limits.reserve(1)
    client.hincrby("autosync:{m}:pace", "requests", -60_000_000)  # as if nobody had come for a minute

    since = Since(client)
    assert fleet_limits.reserve(100).wait == 0

    wait = fleet_limits.reserve(1).wait
    assert since.is_left(wait, of=9.9), "a hundred at 10/s, but for one: not the six hundred of the time in which nobody came"


def test_limits_are_changed_for_all_at_once_and_old_debts_are_forgotten(fleet_limits: FleetLimits, broker: str) -> None:
    fleet_limits.set(Limits(requests=0.1))
    fleet_limits.reserve(10)
    with connect(broker) as client:
        Ledger(client, "m").limits.set(Limits(requests=1000))
        assert Ledger(client, "m").limits.read() == Limits(requests=1000)

    response = fleet_limits.reserve(1)

    assert response.wait == 0
    assert response.limits == Limits(requests=1000)


def test_limits_that_are_lost_are_set_again_and_others_stay(fleet_limits: FleetLimits, client: redis.Redis) -> None:
    fleet_limits.set(Limits())
    fleet_limits.set(Limits(inflight=2), if_lost=True)
    assert fleet_limits.read() == Limits(), "somebody has set that there are none"

    client.flushall()
    fleet_limits.set(Limits(inflight=2), if_lost=True)
    assert fleet_limits.read() == Limits(inflight=2)


def test_a_claim_notes_whether_there_are_limits(ledger: Ledger) -> None:
    ledger.claims.claim("one", "v", ["a"])
    assert not ledger.claims.is_limited
    for limits in (Limits(requests=1), Limits(bandwidth=1), Limits(inflight=1)):
        ledger.limits.set(limits)
        ledger.claims.claim("one", "v", ["a"])
        assert ledger.claims.is_limited
        ledger.limits.set(Limits())
        ledger.claims.claim("one", "v", ["a"])
        assert not ledger.claims.is_limited
    ledger.limits.reserve(slow=10.0)
    ledger.claims.claim("one", "v", ["a"])
    assert ledger.claims.is_limited


# A target that demands fewer requests

def later(client: redis.Redis, seconds: float) -> None:
    """As if the last cut had been so much longer ago."""
    age_last_cut(client, "m", seconds)


def test_a_target_that_demands_fewer_requests_gets_half_and_then_more_again_by_and_by(
    fleet_limits: FleetLimits, client: redis.Redis, since: Since
) -> None:
    first = fleet_limits.reserve(slow=60.0)
    assert first.requests == 30
    assert since.is_left(fleet_limits.reserve(1).wait, of=0.5), "a pause for all at first"

    later(client, 15)
    assert since.has_grown(fleet_limits.reserve().requests, of=60, by=2)
    later(client, 15)
    assert since.has_grown(fleet_limits.reserve().requests, of=90, by=2)
    later(client, 15.1)
    assert fleet_limits.reserve(1).requests == 0, "it is without effect"
    assert client.hget(MIRROR, "slow") is None


def test_many_refusals_in_one_second_are_one(fleet_limits: FleetLimits, client: redis.Redis) -> None:
    since, cuts = Since(client), set()
    for _ in range(20):
        response = fleet_limits.reserve(slow=60.0)
        cuts.add(client.hget(MIRROR, "slow"))
    assert len(cuts) <= 1 + since.passed
    (cut,) = {float(cut.split()[0]) for cut in cuts if cut == client.hget(MIRROR, "slow")}  # type: ignore[union-attr]
    assert cut == 30 or since.passed > 1
    assert since.has_grown(response.requests, of=cut, by=2)

    later(client, 1)
    assert since.has_grown(fleet_limits.reserve(slow=60.0).requests, of=(cut + 2) / 2, by=1)


def test_a_target_that_refuses_everything_gets_a_request_now_and_then(fleet_limits: FleetLimits, client: redis.Redis) -> None:
    fleet_limits.reserve(slow=640.0)
    for _ in range(20):
        later(client, 1)
        response = fleet_limits.reserve(slow=0.0)
    assert 10 <= response.requests < 40
    later(client, 30)
    assert fleet_limits.reserve().requests > 640, "what there was before is reached in half a minute"


def test_it_is_the_rate_of_the_fleet_that_is_halved(fleet_limits: FleetLimits, since: Since) -> None:
    fleet_limits.reserve(made=300)
    fleet_limits.reserve(made=500)
    requests = fleet_limits.reserve(made=0, slow=100.0).requests
    assert 400 / (1 + since.passed) <= requests <= 400, "800 in a second and what has passed since"


def test_a_limit_holds_beside_it(fleet_limits: FleetLimits, client: redis.Redis) -> None:
    fleet_limits.set(Limits(requests=20))
    assert fleet_limits.reserve(slow=1000.0).requests == 10, "no more than the limit can have been made"
    later(client, 16)
    assert fleet_limits.reserve().requests == 20
    assert client.hget(MIRROR, "slow") is None


# Places

def test_there_are_as_many_slots_as_the_limit(fleet_limits: FleetLimits) -> None:
    fleet_limits.set(Limits(inflight=3))
    assert fleet_limits.acquire_slots("one", ["a", "b"]) == 2
    assert fleet_limits.acquire_slots("two", ["c", "d"]) == 1
    assert fleet_limits.acquire_slots("two", ["d"]) == 0
    fleet_limits.release_slots("one", ["a", "b"])
    assert fleet_limits.acquire_slots("two", ["d", "e", "f"]) == 2


def test_slots_are_acquired_in_the_order_of_requests(fleet_limits: FleetLimits) -> None:
    fleet_limits.set(Limits(inflight=1))
    fleet_limits.acquire_slots("one", ["a"])
    for name in ("two", "three", "one"):
        assert fleet_limits.acquire_slots(name, [name]) == 0

    fleet_limits.release_slots("one", ["a"])
    assert fleet_limits.acquire_slots("one", ["one"]) == 0
    assert fleet_limits.acquire_slots("three", ["three"]) == 0
    assert fleet_limits.acquire_slots("two", ["two"]) == 1
    fleet_limits.release_slots("two", ["two"])
    assert fleet_limits.acquire_slots("three", ["three"]) == 1


def test_the_next_process_is_woken(fleet_limits: FleetLimits) -> None:
    fleet_limits.set(Limits(inflight=1))
    fleet_limits.acquire_slots("one", ["a"])
    fleet_limits.acquire_slots("two", ["b"])
    woken: list[float] = []

    def wait() -> None:
        fleet_limits.wait_for_turn("two", 30)
        woken.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    fleet_limits.release_slots("one", ["a"])
    thread.join(30)
    assert woken
    assert fleet_limits.acquire_slots("two", ["b"]) == 1


def test_slots_of_a_process_that_was_killed_come_back(fleet_limits: FleetLimits) -> None:
    fleet_limits.set(Limits(inflight=1))
    fleet_limits.acquire_slots("dead", ["a"], lease=0.05)
    wait_until(lambda: fleet_limits.acquire_slots("two", ["b"]), 30, "its lease has ended")


def test_slots_of_a_dead_process_are_free_at_once(ledger: Ledger, fleet_limits: FleetLimits) -> None:
    fleet_limits.set(Limits(inflight=2))
    fleet_limits.acquire_slots("box:1:x", ["box:1:x 1"])
    fleet_limits.acquire_slots("box:2:x", ["box:2:x 1"])
    assert fleet_limits.acquire_slots("box:1:x", ["box:1:x 2"]) == 0, "it waits"

    ledger.release_all_of_dead("box:1:")

    assert fleet_limits.acquire_slots("box:3:x", ["box:3:x 1", "box:3:x 2"]) == 1


def test_slots_that_are_renewed_stay(fleet_limits: FleetLimits, client: redis.Redis) -> None:
    fleet_limits.set(Limits(inflight=2))
    fleet_limits.acquire_slots("one", ["a", "b"], lease=30)
    fleet_limits.renew_slots("one", ["a", "never had"], lease=60)
    for slot in client.zrange("autosync:{m}:places", 0, -1):
        client.zincrby("autosync:{m}:places", -30_000, slot)  # as if the lease of b had passed
    assert fleet_limits.acquire_slots("two", ["c", "d"]) == 1


def test_a_process_that_waits_no_more_is_passed_over(fleet_limits: FleetLimits) -> None:
    fleet_limits.set(Limits(inflight=1))
    fleet_limits.acquire_slots("one", ["a"])
    fleet_limits.acquire_slots("gone", ["b"])
    began = time.monotonic()
    fleet_limits.acquire_slots("dead", ["c"])
    fleet_limits.acquire_slots("last", ["d"])
    fleet_limits.leave_queue("gone")
    fleet_limits.release_slots("one", ["a"])

    wait_until(lambda: fleet_limits.acquire_slots("last", ["d"]), what="the dead one is not waited for")
    assert time.monotonic() - began > 2, "one that only takes its time is"


def test_every_method_raises_when_the_broker_is_gone(own_valkey: Valkey) -> None:
    fleet_limits = Ledger(connect(own_valkey.url), "m").limits
    own_valkey.kill()
    calls = {
        "read": fleet_limits.read, "set": lambda: fleet_limits.set(Limits()), "reserve": lambda: fleet_limits.reserve(1),
        "acquire_slots": lambda: fleet_limits.acquire_slots("p", ["a"]), "release_slots": lambda: fleet_limits.release_slots("p", ["a"]),
        "renew_slots": lambda: fleet_limits.renew_slots("p", ["a"]),
        "leave_queue": lambda: fleet_limits.leave_queue("p"), "wait_for_turn": lambda: fleet_limits.wait_for_turn("p", 1),
        "release_slots_of_dead": lambda: fleet_limits.release_slots_of_dead("p"),
    }  # fmt: skip
    assert set(calls) == {name for name, value in vars(FleetLimits).items() if callable(value) and not name.startswith("_")}
    for call in calls.values():
        with pytest.raises(BrokerError):
            call()
