"""Leases that a mirror's definition sets: a worker renews the claims of each mirror in time, and stops using those that it cannot renew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autosync.errors import BrokerError, LeaseLost, PermanentError
from autosync.ledger import UNKNOWN, Claim, Facts, Ledger, connect
from autosync.model.keys import Source
from autosync.model.limits import Limits
from autosync.model.mirror import LEASE, LONGEST_LEASE, SHORTEST_LEASE, Mirror, version_of
from autosync.tasks import claim_table as module
from autosync.tasks.claim_table import ClaimTable
from autosync.tasks.transfer import _claim
from autosync.tasks.worker_mirror import WorkerMirror
from autosync.tasks.worker_state import WorkerState
from lab.servers import wait_until

#: The renewals of one that is shorter would have to be so punctual that a busy machine could miss one.
SHORT = SHORTEST_LEASE


class Fleet:
    """A broker with mirrors, and one worker process of theirs, in this process."""

    def __init__(self, broker: str, tree: Path, target: Path) -> None:
        self._broker = broker
        self._tree = tree
        self._target = target
        self.worker = WorkerState(broker, [str(tree)], {}, "box1@host")

    def ledger(self, name: str) -> Ledger:
        return Ledger(connect(self._broker), name)

    def register(self, name: str, lease: float) -> None:
        settings = {"target_container": str(self._target)}
        text = Mirror(name, "file", (Source(str(self._tree)),), settings=settings, lease=lease).dumps()
        self.ledger(name).definition.publish(text, version_of(text))

    def learn(self, name: str) -> WorkerMirror:
        return self.worker.mirror(name, fresh=True)

    def claim(self, name: str, key: str = "a") -> Callable[[], None]:
        """Claim a key, as a task does. Returns what raises if the claim may not be used."""
        self.ledger(name).claims.mark([(key, UNKNOWN)])
        claimed = _claim(self.worker, name, [key])
        assert claimed
        mirror, claims, claimed_at = claimed
        assert [claim.key for claim in claims] == [key]
        return lambda: mirror.claim_table.check(key, claimed_at)

    def facts(self, name: str, key: str = "a") -> Facts:
        return self.ledger(name).key_states.facts(key)

    def left(self, name: str) -> float:
        """For how long a claim holds yet, in seconds."""
        facts = self.facts(name)
        assert facts.due is not None
        return facts.due - facts.now


@pytest.fixture
def fleet(broker: str, tree: Path, tmp_path: Path) -> Iterator[Fleet]:
    target = tmp_path / "target"
    target.mkdir()
    made = Fleet(broker, tree, target)
    yield made
    made.worker.close()


def renewals(fleet: Fleet, name: str, count: int, check: Callable[[], None]) -> None:
    """Wait until a claim was renewed so many times; the check must hold all the time."""
    ends: set[float] = set()

    def seen() -> bool:
        check()
        due = fleet.facts(name).due
        assert due is not None
        ends.add(due)
        return len(ends) > count

    wait_until(seen, what=f"{count} renewals of {name}")


def test_each_mirror_of_a_process_is_renewed_by_its_own_lease(fleet: Fleet) -> None:
    fleet.register("long", LONGEST_LEASE)
    fleet.register("short", SHORT)
    long, short = fleet.claim("long"), fleet.claim("short")
    first = fleet.facts("long").due
    assert SHORT < LONGEST_LEASE * 0.9 < fleet.left("long") <= LONGEST_LEASE
    assert fleet.left("short") <= SHORT

    def usable() -> None:
        long()
        short()
        assert fleet.ledger("short").claims.requeue_orphans() == []

    renewals(fleet, "short", 3, usable)

    assert fleet.facts("long").due == first, "nothing is asked of the broker before it is time"


def test_a_renewal_that_failed_is_tried_again_before_the_claim_is_lost(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.register("m", 2 * SHORT)
    usable = fleet.claim("m")
    ledger = fleet.learn("m").ledger
    renew, failed = ledger.claims.renew, []

    def renew_later(*args: Any) -> list[str]:
        if len(failed) < 2:
            failed.append(time.monotonic())
            raise BrokerError("the connection broke")
        return renew(*args)

    monkeypatch.setattr(ledger.claims, "renew", renew_later)

    renewals(fleet, "m", 1, usable)

    assert len(failed) == 2


@pytest.mark.parametrize(("before", "after"), [(SHORT, LONGEST_LEASE), (LONGEST_LEASE, SHORTEST_LEASE)], ids=["longer", "shorter"])
def test_claims_from_before_another_lease_was_set_are_renewed_at_once(fleet: Fleet, before: float, after: float) -> None:
    fleet.register("m", before)
    usable = fleet.claim("m")

    fleet.register("m", after)
    fleet.learn("m")

    wait_until(lambda: after * 0.9 < fleet.left("m") <= after, what="the claim holds for the new lease")
    usable()


def test_slots_in_flight_last_for_the_lease(fleet: Fleet) -> None:
    fleet.register("m", LONGEST_LEASE)
    mirror = fleet.learn("m")
    mirror.ledger.limits.set(Limits(inflight=1))
    mirror.throttle.refresh()
    client = connect(fleet._broker)

    def left() -> float:
        ((_, end),) = client.zrange("autosync:{m}:places", 0, -1, withscores=True)
        seconds, more = client.time()  # type: ignore[misc]
        return float(end) / 1000 - seconds - more / 1e6

    with mirror.throttle.in_flight(1, lambda: None, large=False):
        assert LONGEST_LEASE * 0.9 < left() <= LONGEST_LEASE
        fleet.register("m", SHORT)
        fleet.learn("m")
        wait_until(lambda: left() <= SHORT, what="the place is kept for the new lease")
        seen = [left()]

        def is_renewed() -> bool:
            seen.append(left())
            return seen[-1] > min(seen) + SHORT / 6

        wait_until(is_renewed, what="and is kept again")


@pytest.mark.parametrize("lease", [SHORTEST_LEASE, LEASE, LONGEST_LEASE])
def test_a_claim_that_is_not_renewed_is_used_until_8_thirtieths_of_its_lease_are_left(
    lease: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, fence = 1000.0, lease * 22 / 30
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    claim_table, claimed_at = ClaimTable(), now
    claim_table.add([Claim("a", 0, UNKNOWN)], claimed_at, lease)

    now = claimed_at + fence - 0.01
    claim_table.check("a", claimed_at)
    now = claimed_at + fence + 0.01
    with pytest.raises(LeaseLost):
        claim_table.check("a", claimed_at)

    claim_table.extend(["a"], now, lease)
    claim_table.check("a", claimed_at)


def test_a_worker_refuses_a_definition_whose_lease_is_too_short(fleet: Fleet) -> None:
    fleet.register("m", SHORT / 2)

    with pytest.raises(PermanentError, match=r"the definition of mirror 'm' cannot be read: its lease is 3\.0 s"):
        fleet.learn("m")
