"""The ledger's scripts against a real Valkey: a change is never forgotten, and two workers never hold the same key."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from autosync import ledger as module
from autosync.broker.embedded_valkey import EmbeddedServer
from autosync.errors import BrokerError, ConfigurationError
from autosync.ledger import (
    GONE,
    UNKNOWN,
    Action,
    Claim,
    DisputedKey,
    Facts,
    Failure,
    FleetLimits,
    Hint,
    Ledger,
    Marked,
    Message,
    Result,
    address,
    check_reachable,
    connect,
    mirror_names,
    owner_prefix,
    queues_of_mirrors,
)
from autosync.ledger.claims import Claims
from autosync.ledger.disputes import Resolution
from autosync.ledger.store import MirrorStore
from autosync.model.limits import Limits
from autosync.model.mirror import LEASE, LONGEST_WATCHER_LEASE
from autosync.model.skipped import SkippedList
from lab.servers import Valkey, wait_until

HINT = Hint(5, 1_000_000_007)
NEWER = Hint(6, 2_000_000_007, "etag")
LIMIT = 20.0


@pytest.fixture
def client(broker: str) -> Iterator[redis.Redis]:
    with connect(broker) as connected:
        yield connected


class RememberedClaims(Claims):
    """Claims that keep the last claim of each owner and key, so that a test need not pass claims on."""

    def __init__(self, store: MirrorStore) -> None:
        super().__init__(store)
        self.last: dict[tuple[str, str], Claim] = {}

    def claim(self, owner: str, version: str, keys: Sequence[str], lease: float = LEASE) -> list[Claim] | None:
        claims = super().claim(owner, version, keys, lease)
        self.last.update(((owner, claim.key), claim) for claim in claims or [])
        return claims

    def done(self, owner: str, results: Sequence[Result]) -> tuple[list[Claim], list[str]]:
        again, lost = super().done(owner, results)
        self.last.update(((owner, claim.key), claim) for claim in again)
        return again, lost


class Remembering(Ledger):
    """A ledger with `RememberedClaims`."""

    claims: RememberedClaims

    def __init__(self, client: redis.Redis, mirror: str) -> None:
        super().__init__(client, mirror)
        self.claims = RememberedClaims(self._store)

    def outcome(self, owner: str, key: str, action: Action, *more: Any, **named: Any) -> Result:
        """The result of the last claim of a key; of one that there never was, if nobody has claimed it."""
        return Result(self.claims.last.get((owner, key), Claim(key, 0, UNKNOWN)), action, *more, **named)


@pytest.fixture
def ledger(client: redis.Redis) -> Remembering:
    """The ledger of a mirror m whose definition has the version v."""
    made = Remembering(client, "m")
    made.definition.publish("{}", "v")
    return made


#: A lease, or a lock, that runs out at once.
SHORT = 0.02


def mark(ledger: Ledger, *keys: str, hint: Hint = HINT) -> Marked:
    return ledger.claims.mark([(key, hint) for key in keys])


def claimed(ledger: Ledger, owner: str, *keys: str, lease: float = LEASE) -> list[str]:
    claims = ledger.claims.claim(owner, "v", keys, lease)
    assert claims is not None
    return [claim.key for claim in claims]


def done(ledger: Remembering, owner: str, key: str, action: Action = Action.UPLOADED, **more: object) -> tuple[list[Claim], list[str]]:
    return ledger.claims.done(owner, [ledger.outcome(owner, key, action, **more)])


def failure(key: str, reason: str = "no such bucket") -> Failure:
    return Failure(key, reason, 3, "box:1", 1e9)


# mark

def test_a_new_key_is_dirty_and_needs_a_message(ledger: Ledger) -> None:
    assert mark(ledger, "a", "b") == Marked(2, ["a", "b"])
    assert ledger.key_states.count_dirty() == 2


def test_a_key_that_waits_in_the_queue_needs_no_second_message_and_has_the_newest_hint(ledger: Ledger) -> None:
    mark(ledger, "a")

    assert mark(ledger, "a", "b", hint=NEWER) == Marked(2, ["b"])
    assert ledger.claims.claim("one", "v", ["a"]) == [Claim("a", 0, NEWER)]


def test_a_key_that_is_worked_on_needs_no_message(ledger: Ledger) -> None:
    mark(ledger, "a")
    claimed(ledger, "one", "a")

    assert mark(ledger, "a", hint=NEWER) == Marked(1, [])


def test_a_key_that_waits_for_its_next_try_is_tried_now_and_counted_anew(ledger: Remembering) -> None:
    mark(ledger, "a")
    claimed(ledger, "one", "a")
    done(ledger, "one", "a", Action.RETRY, delay=3600.0)

    assert mark(ledger, "a", hint=NEWER) == Marked(1, ["a"])
    assert ledger.claims.claim("two", "v", ["a"]) == [Claim("a", 0, NEWER)]


def test_marking_nothing_is_nothing(ledger: Ledger) -> None:
    assert ledger.claims.mark([]) == Marked(0, [])


# claim

def test_a_claim_brings_the_hint_along(ledger: Ledger) -> None:
    ledger.claims.mark([("a", HINT), ("b", GONE), ("c", UNKNOWN), ("d", NEWER)])

    assert ledger.claims.claim("one", "v", ["d", "c", "b", "a"]) == [
        Claim("d", 0, NEWER), Claim("c", 0, UNKNOWN), Claim("b", 0, GONE), Claim("a", 0, HINT),
    ]  # fmt: skip


def test_a_key_that_is_not_dirty_is_not_claimed(ledger: Ledger) -> None:
    mark(ledger, "a")

    assert claimed(ledger, "one", "x", "a", "y") == ["a"]


def test_a_key_that_another_holds_is_not_claimed(ledger: Ledger) -> None:
    mark(ledger, "a", "b")
    claimed(ledger, "one", "a")

    assert claimed(ledger, "two", "a", "b") == ["b"]
    assert claimed(ledger, "one", "a", "b") == [], "not even by its owner: a message can come twice"


def test_a_key_whose_lease_ran_out_is_claimed_by_another(ledger: Remembering) -> None:
    mark(ledger, "a", "b")
    claimed(ledger, "one", "a")
    claimed(ledger, "one", "b", lease=SHORT)

    wait_until(lambda: claimed(ledger, "two", "a", "b") == ["b"], LIMIT)
    assert done(ledger, "one", "b") == ([], ["b"])
    assert done(ledger, "two", "b") == ([], [])
    assert done(ledger, "one", "a") == ([], [])
    assert ledger.key_states.count_dirty() == 0


def test_nothing_is_claimed_by_a_worker_with_an_old_definition(ledger: Ledger) -> None:
    mark(ledger, "a")
    ledger.definition.publish("{...}", "v2")

    assert ledger.claims.claim("one", "v", ["a"]) is None
    assert ledger.claims.claim("one", "v2", ["a"]) == [Claim("a", 0, HINT)]
    assert ledger.definition.read() == ("{...}", "v2", "")


def test_nothing_is_claimed_of_a_mirror_that_nobody_registered(client: redis.Redis) -> None:
    stranger = Ledger(client, "stranger")

    assert stranger.definition.read() is None
    assert stranger.claims.claim("one", "v", ["a"]) is None


# renew

@pytest.mark.parametrize("lease", [LEASE, 6.0, 3600.0])
def test_a_claim_and_its_renewal_hold_for_the_lease(ledger: Ledger, lease: float) -> None:
    mark(ledger, "a")

    began = ledger.key_states.facts("a").now
    claimed(ledger, "one", "a", lease=lease)
    first = ledger.key_states.facts("a")
    ledger.claims.renew("one", ["a"], lease=2 * lease)
    second = ledger.key_states.facts("a")

    for facts, length, since in ((first, lease, began), (second, 2 * lease, first.now)):
        assert facts.due is not None
        assert since + length - 0.001 <= facts.due <= facts.now + length  # the server counts in milliseconds


def test_a_claim_that_is_renewed_lasts(ledger: Ledger) -> None:
    mark(ledger, "kept", "left")
    claimed(ledger, "one", "kept", "left", lease=0.5)
    assert ledger.claims.renew("one", ["kept"]) == []

    wait_until(lambda: claimed(ledger, "two", "kept", "left") == ["left"], LIMIT)
    assert ledger.claims.renew("one", ["kept", "left", "never"]) == ["left", "never"]


# done

def test_a_key_that_is_done_is_clean(ledger: Remembering) -> None:
    mark(ledger, "a")
    claimed(ledger, "one", "a")

    assert done(ledger, "one", "a") == ([], [])
    assert ledger.key_states.count_dirty() == 0
    assert claimed(ledger, "two", "a") == []


@pytest.mark.parametrize("action", [Action.UPLOADED, Action.DELETED, Action.NOTHING, Action.FAILED])
def test_a_key_that_changed_meanwhile_is_still_claimed_and_read_again(ledger: Remembering, action: Action) -> None:
    mark(ledger, "a")
    claimed(ledger, "one", "a")
    mark(ledger, "a", hint=NEWER)
    failed = failure("a") if action is Action.FAILED else None

    assert done(ledger, "one", "a", action, failure=failed) == ([Claim("a", 0, NEWER)], [])
    assert claimed(ledger, "two", "a") == []
    assert list(ledger.failures.all()) == []
    assert done(ledger, "one", "a") == ([], [])
    assert ledger.key_states.count_dirty() == 0


def test_a_key_that_this_owner_has_not_claimed_is_returned_as_lost_and_stays_as_it_is(ledger: Remembering) -> None:
    mark(ledger, "held", "waiting")
    claimed(ledger, "two", "held")

    message = ledger.claims.done("one", [ledger.outcome("one", key, Action.UPLOADED) for key in ("held", "waiting", "clean")])

    assert message == ([], ["held", "waiting", "clean"])
    assert ledger.key_states.count_dirty() == 2
    assert claimed(ledger, "three", "held", "waiting") == ["waiting"]


@pytest.mark.parametrize("action", [Action.UPLOADED, Action.DELETED, Action.NOTHING, Action.FAILED, Action.RETRY, Action.BACK])
def test_a_result_that_comes_twice_since_the_answer_was_lost_forgets_no_change(ledger: Remembering, action: Action) -> None:
    """A broker that hung, or a connection that was cut, may have carried out a script whose response was lost."""
    mark(ledger, "a")
    claimed(ledger, "one", "a")
    mark(ledger, "a", hint=NEWER)
    message = [ledger.outcome("one", "a", action, failure=failure("a"))]

    ledger.claims.done("one", message)
    assert ledger.claims.done("one", message) == ([], ["a"])

    assert ledger.key_states.count_dirty() == 1
    assert list(ledger.failures.all()) == []


@pytest.mark.parametrize("action", [Action.UPLOADED, Action.RETRY, Action.BACK])
def test_a_claim_that_was_replaced_in_the_same_process_does_not_count_for_the_new_one(ledger: Remembering, action: Action) -> None:
    """All batches of a process have one owner; a lease that ran out may have been claimed again by another of them."""
    mark(ledger, "a")
    claimed(ledger, "one", "a")
    late = [ledger.outcome("one", "a", action)]
    ledger.release_all_of_dead("one")
    assert claimed(ledger, "one", *ledger.claims.requeue_orphans()) == ["a"]

    assert ledger.claims.done("one", late) == ([], ["a"])

    assert (ledger.key_states.count_dirty(), claimed(ledger, "two", "a"), ledger.claims.requeue_orphans()) == (1, [], [])
    assert done(ledger, "one", "a") == ([], [])


@pytest.mark.parametrize("how", ["made right by another", "forgotten by the broker"])
def test_a_claim_that_ended_does_not_count_for_one_in_a_later_life_of_its_key(ledger: Remembering, client: redis.Redis, how: str) -> None:
    for key in map(str, range(200 if how == "made right by another" else 1)):  # within a millisecond, now and then
        mark(ledger, key)
        claimed(ledger, "one", key)
        late = [ledger.outcome("one", key, Action.UPLOADED)]
        ledger.release_all_of_dead("one")
        assert claimed(ledger, "two", *ledger.claims.requeue_orphans()) == [key]
        done(ledger, "two", key)
        if how == "forgotten by the broker":
            client.flushall()
            ledger.definition.publish("{}", "v")

        mark(ledger, key)
        assert claimed(ledger, "one", key) == [key]
        assert ledger.claims.done("one", late) == ([], [key])
        assert ledger.key_states.count_dirty() == 1
        done(ledger, "one", key)


def test_a_try_that_failed_waits_for_its_time(ledger: Remembering) -> None:
    mark(ledger, "later", "now")
    claimed(ledger, "one", "later", "now")

    delays = {"later": 3600.0, "now": 0.0}
    ledger.claims.done("one", [ledger.outcome("one", key, Action.RETRY, delay=delay) for key, delay in delays.items()])

    assert ledger.claims.claim("two", "v", ["later", "now"]) == [Claim("now", 1, HINT)]
    assert ledger.claims.requeue_orphans(age=0.0) == []
    assert ledger.key_states.count_dirty() == 2


def test_tries_are_counted(ledger: Remembering) -> None:
    mark(ledger, "a")

    for tries in range(3):
        assert ledger.claims.claim("one", "v", ["a"]) == [Claim("a", tries, HINT)]
        done(ledger, "one", "a", Action.RETRY)


def test_a_delay_ends_by_itself(ledger: Remembering) -> None:
    mark(ledger, "a")
    claimed(ledger, "one", "a")
    done(ledger, "one", "a", Action.RETRY, delay=0.02)

    wait_until(lambda: ledger.claims.requeue_orphans() == ["a"], LIMIT)
    assert ledger.claims.claim("two", "v", ["a"]) == [Claim("a", 1, HINT)]


def test_a_key_that_fails_for_good_is_clean_and_in_the_failed_list(ledger: Remembering) -> None:
    mark(ledger, "a")
    claimed(ledger, "one", "a")

    done(ledger, "one", "a", Action.FAILED, failure=failure("a"))

    assert ledger.key_states.count_dirty() == 0
    assert list(ledger.failures.all()) == [failure("a")]


@pytest.mark.parametrize("action", [Action.UPLOADED, Action.DELETED, Action.NOTHING])
def test_a_key_that_is_made_right_leaves_the_failed_list(ledger: Remembering, action: Action) -> None:
    for key in ("a", "b"):
        mark(ledger, key)
        claimed(ledger, "one", key)
        done(ledger, "one", key, Action.FAILED, failure=failure(key))

    mark(ledger, "a")
    claimed(ledger, "one", "a")
    done(ledger, "one", "a", action)

    assert list(ledger.failures.all()) == [failure("b")]


def test_a_key_that_is_released_is_anothers_at_once_and_no_try_is_counted(ledger: Remembering) -> None:
    mark(ledger, "a")
    claimed(ledger, "one", "a")
    done(ledger, "one", "a", Action.RETRY)
    claimed(ledger, "one", "a")

    assert done(ledger, "one", "a", Action.BACK) == ([], [])
    assert ledger.claims.requeue_orphans() == ["a"]
    assert ledger.claims.claim("two", "v", ["a"]) == [Claim("a", 1, HINT)]


def test_a_change_during_a_try_that_failed_is_not_forgotten(ledger: Remembering) -> None:
    mark(ledger, "a")
    claimed(ledger, "one", "a")
    mark(ledger, "a", hint=NEWER)
    done(ledger, "one", "a", Action.RETRY)

    (claim,) = ledger.claims.claim("two", "v", ["a"]) or []

    assert claim.hint == NEWER
    assert done(ledger, "two", "a") == ([], [])


def test_a_change_during_a_try_that_failed_is_a_reason_to_try_now_and_has_its_own_tries(ledger: Remembering) -> None:
    mark(ledger, "k")
    assert claimed(ledger, "w", "k") == ["k"]
    mark(ledger, "k", hint=Hint(7, 7))

    done(ledger, "w", "k", Action.RETRY, delay=3600.0)

    assert ledger.claims.requeue_orphans() == ["k"]
    assert ledger.claims.claim("w", "v", ["k"]) == [Claim("k", 0, Hint(7, 7))]


def test_what_was_done_is_counted(ledger: Remembering) -> None:
    mark(ledger, *"abcd")
    claimed(ledger, "one", *"abcd")

    sent = [ledger.outcome("one", "a", Action.UPLOADED, 5), ledger.outcome("one", "b", Action.UPLOADED, 7)]
    ledger.claims.done("one", [*sent, ledger.outcome("one", "c", Action.DELETED), ledger.outcome("one", "d", Action.NOTHING)])

    stats = ledger.watcher_lock.heartbeat("me")
    assert (stats.files, stats.bytes, stats.deleted, stats.dirty) == (2, 12, 1, 0)


# requeue_orphans and release_all_of_dead

def test_keys_that_are_claimed_or_fresh_are_no_orphans(ledger: Ledger) -> None:
    mark(ledger, "held", "fresh")
    claimed(ledger, "one", "held")

    assert ledger.claims.requeue_orphans() == []
    assert ledger.claims.requeue_orphans(age=3600.0) == []


def test_keys_whose_message_seems_to_be_lost_are_orphans(ledger: Remembering) -> None:
    mark(ledger, "stray", "held", "later")
    claimed(ledger, "one", "held", "later")
    done(ledger, "one", "later", Action.RETRY, delay=3600.0)

    assert ledger.claims.requeue_orphans(age=0.0) == ["stray"]
    assert claimed(ledger, "two", "stray") == ["stray"]
    assert ledger.claims.requeue_orphans(age=0.0) == []


def test_keys_that_a_dead_worker_had_claimed_are_orphans(ledger: Remembering) -> None:
    mark(ledger, "a")
    claimed(ledger, "dead", "a", lease=SHORT)

    wait_until(lambda: ledger.claims.requeue_orphans() == ["a"], LIMIT)

    assert ledger.claims.requeue_orphans() == [], "it is returned once"
    assert ledger.claims.renew("dead", ["a"]) == ["a"]
    assert claimed(ledger, "two", "a") == ["a"]
    assert done(ledger, "dead", "a") == ([], ["a"])


def test_no_more_orphans_are_returned_than_the_limit_and_all_in_the_end(ledger: Remembering) -> None:
    keys = [str(number) for number in range(25)]
    mark(ledger, *keys)
    claimed(ledger, "one", *keys[:20])
    ledger.claims.done("one", [ledger.outcome("one", key, Action.BACK) for key in keys[:20]])

    pages = [ledger.claims.requeue_orphans(7) for _ in range(4)]
    strays = ledger.claims.requeue_orphans(1000, age=0.0)

    assert [len(page) for page in pages] == [7, 7, 6, 0]
    assert sorted(key for page in pages for key in page) == sorted(keys[:20])
    assert sorted(strays) == sorted(keys)


def test_strays_behind_many_that_wait_are_found(ledger: Ledger) -> None:
    waiting = [f"waiting {number}" for number in range(2500)]
    mark(ledger, *waiting)
    claimed(ledger, "one", *waiting)
    mark(ledger, "stray")

    assert ledger.claims.requeue_orphans(10, age=0.0) == ["stray"]


def test_a_dead_workers_claims_end_at_once_and_nobody_elses(ledger: Remembering) -> None:
    mark(ledger, *"abcd")
    claimed(ledger, owner_prefix("host", 1) + "x", "a")
    claimed(ledger, owner_prefix("host", 12) + "x", "b")
    claimed(ledger, "other", "c")
    done(ledger, "other", "c", Action.RETRY, delay=3600.0)

    assert ledger.release_all_of_dead(owner_prefix("host", 1)) == 1
    assert ledger.claims.requeue_orphans() == ["a"]
    assert ledger.release_all_of_dead(owner_prefix("host", 1)) == 0
    assert ledger.release_all_of_dead("") == 1
    assert ledger.claims.requeue_orphans() == ["b"]
    assert claimed(ledger, "new", *"abcd") == ["a", "b", "d"]


# multipart uploads

def unfinished(ledger: Ledger, owner: str, key: str) -> tuple[str, ...]:
    claims = ledger.claims.claim(owner, "v", [key])
    assert claims is not None
    (claim,) = claims
    return claim.unfinished


@pytest.mark.parametrize("hint", [NEWER, GONE], ids=["a new content", "a deletion"])
def test_an_upload_that_a_dead_worker_left_open_is_returned_with_the_next_claim_of_the_key(
    ledger: Ledger, hint: Hint
) -> None:
    mark(ledger, "a", "b")
    assert ledger.claims.claim("dead", "v", ["a", "b"], SHORT) == [Claim("a", 0, HINT), Claim("b", 0, HINT)]
    ledger.uploads.add("a", "token")
    mark(ledger, "a", hint=hint)

    wait_until(lambda: sorted(ledger.claims.requeue_orphans()) == ["a", "b"], LIMIT)

    assert ledger.claims.claim("heir", "v", ["a", "b"]) == [Claim("a", 0, hint, ("token",)), Claim("b", 0, HINT)]


def test_an_upload_that_ended_is_not_returned_and_leaves_nothing_behind(ledger: Remembering, client: redis.Redis) -> None:
    mark(ledger, "a")
    claimed(ledger, "one", "a")
    ledger.uploads.add("a", "token")
    ledger.uploads.remove("a", "token")
    ledger.uploads.remove("a", "token")
    done(ledger, "one", "a", Action.RETRY)

    assert unfinished(ledger, "two", "a") == ()
    assert not client.exists(f"{module.PREFIX}{{m}}:uploads")


def test_an_upload_is_returned_until_it_has_ended_whatever_became_of_the_key(ledger: Remembering) -> None:
    for action in (Action.RETRY, Action.BACK, Action.FAILED, Action.UPLOADED):
        mark(ledger, "a")
        claimed(ledger, "one", "a")
        ledger.uploads.add("a", "token")  # adding it twice is as good as once
        done(ledger, "one", "a", action, **{"failure": failure("a")} if action is Action.FAILED else {})

        mark(ledger, "a")
        assert unfinished(ledger, "two", "a") == ("token",), action
        done(ledger, "two", "a")


def test_a_worker_that_lost_its_claim_removes_only_its_own_upload(ledger: Remembering) -> None:
    mark(ledger, "a")
    ledger.uploads.add("a", "first")
    ledger.uploads.add("a", "second")

    ledger.uploads.remove("a", "first")
    assert unfinished(ledger, "one", "a") == ("second",)
    ledger.uploads.add("a", "third")
    done(ledger, "one", "a", Action.BACK)
    assert unfinished(ledger, "two", "a") == ("second", "third"), "one that could not be ended is not forgotten over another"


def test_one_token_replaces_another_and_the_watcher_reads_all(ledger: Ledger) -> None:
    assert ledger.uploads.all() == {}
    ledger.uploads.add("a", "intention")
    ledger.uploads.add("a", "other")
    ledger.uploads.add("\udcff", "elsewhere")
    ledger.uploads.add("a", "token", "intention")
    assert ledger.uploads.all() == {"a": ["other", "token"], "\udcff": ["elsewhere"]}


def test_uploads_of_a_key_that_another_has_claimed_are_not_returned(ledger: Ledger) -> None:
    mark(ledger, "a")
    claimed(ledger, "one", "a")
    ledger.uploads.add("a", "token")

    assert ledger.claims.claim("two", "v", ["a", "not dirty"]) == []


def test_a_token_is_one_line_of_any_text(ledger: Ledger) -> None:
    for token in ("", "a\nb"):
        with pytest.raises(ValueError, match="not one line"):
            ledger.uploads.add("a", token)
    for token in ("2~x y", "ü+/=", "%s %d", "\udcff"):
        mark(ledger, token)
        ledger.uploads.add(token, token)
        assert unfinished(ledger, "one", token) == (token,)


# heartbeat, broker generation, last in sync

def test_a_mirror_has_one_watcher(ledger: Ledger) -> None:
    assert ledger.watcher_lock.holder() is None
    assert ledger.watcher_lock.heartbeat("first").holder == "first"
    assert ledger.watcher_lock.heartbeat("second").holder == "first"
    locked = ledger.watcher_lock.holder()

    assert locked is not None
    assert locked[0] == "first"
    assert 0 < locked[1] <= LONGEST_WATCHER_LEASE


def test_only_the_holder_releases_the_lease(ledger: Ledger) -> None:
    ledger.watcher_lock.heartbeat("first")

    ledger.watcher_lock.release("second")
    assert ledger.watcher_lock.heartbeat("second").holder == "first"

    ledger.watcher_lock.release("first")
    assert ledger.watcher_lock.heartbeat("second").holder == "second"


def test_a_lease_that_is_not_renewed_becomes_free(ledger: Ledger) -> None:
    ledger.watcher_lock.heartbeat("first", lease=SHORT)

    wait_until(lambda: ledger.watcher_lock.heartbeat("second").holder == "second", LIMIT)


def test_the_heartbeat_returns_the_figures_of_the_mirror(ledger: Remembering) -> None:
    assert ledger.watcher_lock.heartbeat("me").lag == 0
    mark(ledger, *"abcde")
    claimed(ledger, "one", *"abc")
    failed = ledger.outcome("one", "a", Action.FAILED, failure=failure("a"))
    ledger.claims.done("one", [failed, ledger.outcome("one", "b", Action.RETRY, delay=3600.0)])

    stats = ledger.watcher_lock.heartbeat("me")
    assert (stats.dirty, stats.claimed, stats.failed) == (4, 2, 1)
    wait_until(lambda: ledger.watcher_lock.heartbeat("me").lag > 0, LIMIT)


def test_a_broker_that_lost_its_memory_is_of_another_generation(ledger: Ledger, client: redis.Redis) -> None:
    first = ledger.definition.publish("{}", "v")
    assert ledger.definition.publish("{}", "v2") == first == ledger.watcher_lock.heartbeat("me").broker_generation

    client.flushall()

    assert ledger.watcher_lock.heartbeat("me").broker_generation.partition(" ")[0] == ""
    assert ledger.definition.publish("{}", "v") not in ("", first)


def test_ledgers_of_one_client_share_its_connections(own_valkey: Valkey) -> None:
    """A worker that refuses a mirror, and an exporter, make a ledger each time that they need one."""
    client, observer = connect(own_valkey.url), connect(own_valkey.url)
    Ledger(client, "m").claims.claim("w", "v", ["a"])
    before = len(observer.client_list())

    for number in range(150):  # redis-py allows 100 connections by default
        Ledger(client, f"m{number}").claims.claim("w", "v", ["a"])

    assert len(observer.client_list()) == before


def test_a_forked_process_uses_no_connection_of_its_parent(own_valkey: Valkey) -> None:
    client, observer = connect(own_valkey.url), connect(own_valkey.url)
    Ledger(client, "m").claims.mark([("parent", UNKNOWN)])  # the server has the script from now on
    before = len(observer.client_list())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest may have threads
        child = os.fork()
    if child == 0:
        with suppress(BaseException):
            Ledger(client, "m").claims.mark([("child", UNKNOWN)])
            signal.pause()
        os._exit(1)
    try:
        wait_until(lambda: Ledger(observer, "m").key_states.count_dirty() == 2, LIMIT, "the child has marked its key")
        assert len(observer.client_list()) > before
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_more_threads_than_a_hundred_use_the_broker_at_the_same_time(own_valkey: Valkey) -> None:
    pool = connect(own_valkey.url).connection_pool
    used = [pool.get_connection() for _ in range(120)]
    for connection in used:
        pool.release(connection)


def test_a_broker_that_was_started_again_is_of_another_generation_even_where_it_remembers(own_valkey: Valkey) -> None:
    """Writes that it had confirmed in its last second may be lost all the same."""
    ledger = Ledger(connect(own_valkey.url), "m")
    before = ledger.definition.publish("{}", "v")
    assert ledger.watcher_lock.heartbeat("me").broker_generation == before

    own_valkey.stop()
    own_valkey.start()

    assert ledger.definition.publish("{}", "v").partition(" ")[2] != before.partition(" ")[2]


def test_a_broker_that_does_not_reveal_its_run_id_will_do(own_valkey: Valkey) -> None:
    own_valkey.client().acl_setuser("careful", enabled=True, passwords=["+p"], keys=["*"], categories=["+@all", "-@dangerous"])
    ledger = Ledger(connect(own_valkey.url.replace("://", "://careful:p@")), "m")

    first = ledger.definition.publish("{}", "v")

    assert ledger.watcher_lock.heartbeat("me").broker_generation == first
    own_valkey.client().flushall()
    assert ledger.watcher_lock.heartbeat("me").broker_generation != first


def test_when_it_was_last_in_sync_is_stored_with_the_version(ledger: Ledger) -> None:
    assert ledger.sync_state.last_in_sync() is None

    ledger.sync_state.set_last_in_sync("v", 1234567890.123456, accepted=True)
    ledger.definition.publish("{}", "v2")

    assert ledger.sync_state.last_in_sync() == ("v", 1234567890.123456)


def test_a_mirror_is_accepted_once_it_is_noted_or_an_older_version_has_seen_it_in_sync(ledger: Ledger, client: redis.Redis) -> None:
    ledger.definition.publish("{}", "v")
    assert not ledger.sync_state.accepted()

    client.hset("autosync:{m}:mirror", "cleared", "another-version 1.0")
    assert ledger.sync_state.accepted()

    ledger.sync_state.revoke_acceptance("{}")
    assert not ledger.sync_state.accepted()
    ledger.sync_state.set_last_in_sync("v", 1.0, accepted=False)
    assert not ledger.sync_state.accepted()
    ledger.sync_state.set_accepted("{}")
    ledger.definition.publish("{}", "v2")
    assert ledger.sync_state.accepted()

    client.delete("autosync:{m}:mirror")
    ledger.sync_state.set_last_in_sync("v", 1.0, accepted=False)
    assert not ledger.sync_state.accepted(), "also if the broker has forgotten since that it was not"


def test_mirrors_are_found_by_name_and_do_not_mix(ledger: Ledger, client: redis.Redis) -> None:
    other = Ledger(client, "other")
    other.definition.publish("{}", "v")
    mark(ledger, "a")

    assert mirror_names(client) == ["m", "other"]
    assert other.key_states.count_dirty() == 0
    assert claimed(other, "one", "a") == []
    assert other.watcher_lock.heartbeat("me").holder == "me"
    assert ledger.watcher_lock.holder() is None


def test_messages_that_wait_are_counted_over_all_priorities(ledger: Ledger, client: redis.Redis) -> None:
    for queue, messages in (("q", 1), ("q:5", 2), ("q:9", 3), ("other", 4)):
        client.rpush(f"{module.PREFIX}{queue}", *range(messages))

    assert ledger.queues.count_waiting("q") == 6
    assert ledger.queues.count_waiting("nobody's") == 0


# Keys

@pytest.mark.parametrize("key", ["\udcff\udc80", "é😀", "a b", "two\nlines", "%s %d", "'\"\\", "{m}", "-", "0", "a\x00b", "x" * 5000])
def test_any_key_goes_all_the_way(ledger: Remembering, key: str) -> None:
    assert mark(ledger, key).fresh == [key]
    assert ledger.claims.requeue_orphans(age=0.0) == [key]
    assert ledger.claims.claim("one", "v", [key]) == [Claim(key, 0, HINT)]
    assert ledger.claims.renew("one", [key]) == []
    assert mark(ledger, key, hint=NEWER).fresh == []
    assert done(ledger, "one", key) == ([Claim(key, 0, NEWER)], [])
    assert done(ledger, "one", key, Action.FAILED, failure=failure(key, f"what about {key}")) == ([], [])
    assert list(ledger.failures.all()) == [failure(key, f"what about {key}")]
    assert ledger.key_states.count_dirty() == 0


def test_names_that_differ_in_one_byte_are_different_keys(ledger: Ledger) -> None:
    keys = [*(bytes([byte]).decode("utf-8", "surrogateescape") for byte in range(256)), "é", "e\u0301"]

    assert mark(ledger, *keys).dirty == len(set(keys)) == 258


@pytest.mark.parametrize("hint", [HINT, NEWER, GONE, UNKNOWN, Hint(0, -5), Hint(2**62, 2**62, 'W/"a b"'), Hint(1, 1, " %s ")])
def test_a_hint_is_read_as_it_was_written(ledger: Ledger, hint: Hint) -> None:
    ledger.claims.mark([("a", HINT)])
    ledger.claims.mark([("a", hint)])

    assert Hint.loads(hint.dumps()) == hint
    expected = hint if hint.was_checked else HINT  # who knows nothing adds nothing
    assert ledger.claims.claim("one", "v", ["a"]) == [Claim("a", 0, expected)]
    assert [hint.gone for hint in (GONE, UNKNOWN, HINT)] == [True, False, False]
    assert [hint.was_checked for hint in (GONE, UNKNOWN, HINT)] == [True, False, True]


# Two owners at once

def test_two_owners_never_hold_the_same_key_and_the_last_change_wins(broker: str) -> None:
    """A model of the whole: writers change a disk and mark, workers copy what they see while they hold the key."""
    keys = [f"key {number}" for number in range(12)]
    disk = dict.fromkeys(keys, 0)
    target: dict[str, int] = {}
    holders: dict[str, str] = {}
    broken: list[str] = []
    actions: Counter[Action | str] = Counter()
    guard = threading.Lock()
    stop = threading.Event()

    def work(name: str, dice: random.Random) -> None:
        with connect(broker) as client:
            ledger = Ledger(client, "m")
            while not stop.is_set():
                swept = ledger.claims.requeue_orphans(age=0.0) if dice.random() < 0.3 else []
                claims = ledger.claims.claim(name, "v", swept or dice.sample(keys, 4)) or []
                hold(name, claims)
                while claims:
                    outcomes = [Result(claim, act(claim.key, dice)) for claim in claims]
                    if dice.random() < 0.2:
                        change(ledger, claims[0].key)  # right behind the copy
                    release(name, claims)
                    claims, lost = ledger.claims.done(name, outcomes)
                    actions["again"] += len(claims)
                    hold(name, claims)
                    broken.extend(f"{name} lost {key}" for key in lost)

    def hold(name: str, claims: list[Claim]) -> None:
        with guard:
            for claim in claims:
                if claim.key in holders:
                    broken.append(f"{claim.key} is held by {holders[claim.key]} and {name}")
                holders[claim.key] = name

    def release(name: str, claims: list[Claim]) -> None:
        with guard:
            for claim in claims:
                del holders[claim.key]

    def act(key: str, dice: random.Random) -> Action:
        action = dice.choice([Action.UPLOADED, Action.UPLOADED, Action.RETRY, Action.BACK])
        if action is Action.UPLOADED:
            target[key] = disk[key]
        actions[action] += 1
        return action

    def write(dice: random.Random) -> None:
        with connect(broker) as client:
            ledger = Ledger(client, "m")
            for _ in range(400):
                change(ledger, dice.choice(keys))

    def change(ledger: Ledger, key: str) -> None:
        with guard:
            disk[key] += 1
        mark(ledger, key)

    def reported(run: Callable[..., None], *args: object) -> threading.Thread:
        def body() -> None:
            try:
                run(*args)
            except Exception as error:  # a thread must not fail unseen
                broken.append(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    with connect(broker) as client:
        ledger = Ledger(client, "m")
        ledger.definition.publish("{}", "v")
        workers = [reported(work, f"worker {number}".replace(" ", "-"), random.Random(number)) for number in range(4)]
        writers = [reported(write, random.Random(-number)) for number in range(1, 3)]
        try:
            for writer in writers:
                writer.join()
            wait_until(lambda: broken or ledger.key_states.count_dirty() == 0, 60, "nothing is dirty")
        finally:
            stop.set()
            for worker in workers:
                worker.join()

        assert broken == []
        assert target == {key: value for key, value in disk.items() if value}
        assert all(actions[action] for action in (Action.UPLOADED, Action.RETRY, Action.BACK, "again"))
        left = {name.decode().rpartition(":")[2] for name in client.scan_iter(f"{module.PREFIX}*")}
        assert left == {"mirrors", "mirror", "stats", "recent"}, "nothing else is left of keys that are clean"


# Addresses

@pytest.fixture(scope="module")
def socket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A broker on a unix socket."""
    directory = tmp_path_factory.mktemp("broker")
    server = EmbeddedServer(directory)
    server.start()
    server.wait()
    yield server
    server.stop()


def test_a_unix_socket_may_be_spelled_as_celery_does_or_as_redis_does(socket_server: EmbeddedServer) -> None:
    path = socket_server.url.removeprefix("redis+socket://").partition("?")[0]

    with connect(f"redis+socket://{path}?virtual_host=3") as celerys, connect(f"unix://{path}?db=3") as rediss:
        celerys.set("who", "me")
        assert rediss.get("who") == b"me"
    with connect(f"redis+socket://{path}") as unnumbered, connect(socket_server.url) as first:
        first.set("where", "here")
        assert unnumbered.get("where") == b"here"
        assert unnumbered.get("who") is None


def test_a_tcp_address_may_name_a_database(valkey: Valkey) -> None:
    with connect(f"redis://127.0.0.1:{valkey.port}/4") as four, connect(f"redis://localhost:{valkey.port}?db=4") as also_four:
        four.set("who", "me")
        assert also_four.get("who") == b"me"
        four.flushdb()


def test_an_encrypted_address_is_accepted() -> None:
    with connect("rediss://user:secret@host:6380/1") as client:
        assert client.connection_pool.connection_class is redis.SSLConnection
        assert client.connection_pool.connection_kwargs["password"] == "secret"


@pytest.mark.parametrize(
    "url",
    ["", "host:6379", "http://host/", "amqp://:secret@host//", "redis//host", "redis://host:port/0", "redis://:secret@host:port/0",
     "redis://:secret@host:99999/0", "redis://:secret/more@host:6379/0", "redis://:a/secret@host:6379/0", "redis://:secret@[::1", "rediss://:secret@host/0?db=x"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_in_one_line_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        connect(url)

    assert "broker" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "visible"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://host", "redis://host"),
        ("redis://user@host:1/0", "redis://user@host:1/0"),
        ("redis://:secret@host:6380/0", "redis://:***@host:6380/0"),
        ("rediss://user:secret@host:6380/1?ssl_cert_reqs=none", "rediss://user:***@host:6380/1?ssl_cert_reqs=none"),
        ("redis://user:sec%40ret@host:6380/1", "redis://user:***@host:6380/1"),
        ("redis://:secret@[::1]:6379/0", "redis://:***@[::1]:6379/0"),
        ("redis+socket:///run/b.sock?virtual_host=1", "redis+socket:///run/b.sock?virtual_host=1"),
        ("unix:///run/b.sock?db=1", "unix:///run/b.sock?db=1"),
    ],
)
def test_an_address_is_printed_without_its_password(url: str, visible: str) -> None:
    assert address(url) == visible


@pytest.mark.parametrize("url", ["redis://host:6379/0?password=secret", "unix:///run/b.sock?username=me&password=secret&db=1"])
def test_a_password_among_the_options_is_not_printed_either(url: str) -> None:
    with connect(url) as client:
        assert client.connection_pool.connection_kwargs["password"] == "secret", "redis-py takes it from there"

    assert "secret" not in address(url)
    assert address(url).startswith(url.partition("?")[0])


# What operators read and request

def test_reading_the_figures_acquires_no_lease(ledger: Ledger) -> None:
    assert ledger.stats.read().holder == ""
    assert ledger.watcher_lock.holder() is None

    ledger.watcher_lock.heartbeat("me")
    assert ledger.stats.read().holder == "me"


def test_the_state_of_a_key(ledger: Ledger) -> None:
    key = "k\udcff"
    nothing = ledger.key_states.facts(key)
    assert nothing == Facts(None, None, "", 0, None, 0, None, nothing.now)

    mark(ledger, key)
    waits = ledger.key_states.facts(key)
    assert (waits.hint, waits.owner, waits.due, waits.attempts) == (HINT, "", None, 0)
    assert waits.dirty is not None
    assert 0 <= waits.now - waits.dirty < LIMIT

    ledger.claims.claim("host:1:x", "v", [key])
    ledger.uploads.add(key, "token")
    locked = ledger.key_states.facts(key)
    assert (locked.owner, locked.uploads) == ("host:1:x", 1)
    assert locked.due is not None
    assert 0 < locked.due - locked.now <= 30
    assert ledger.key_states.claimed_by_worker() == {"host:1": [key]}

    done(ledger, "host:1:x", key, Action.RETRY, delay=5.0)
    retries = ledger.key_states.facts(key)
    assert (retries.owner, retries.attempts) == ("", 1)
    assert ledger.key_states.claimed_by_worker() == {}

    mark(ledger, key)
    ledger.claims.claim("host:1:x", "v", [key])
    failure = Failure(key, "no such bucket", 3, "host:1", 5.0)
    done(ledger, "host:1:x", key, Action.FAILED, failure=failure)
    failed = ledger.key_states.facts(key)
    assert (failed.dirty, failed.failure, ledger.failures.get(key)) == (None, failure, failure)


def test_a_paused_mirror_grants_no_claim_and_forgets_nothing(ledger: Ledger) -> None:
    mark(ledger, "a")
    ledger.claims.claim("one", "v", ["a"])
    mark(ledger, "b")
    ledger.requests.pause()

    assert ledger.stats.read().paused
    assert ledger.claims.claim("two", "v", ["b"]) == []
    assert ledger.claims.requeue_orphans(age=0.0) == []
    done(ledger, "one", "a", Action.UPLOADED)
    mark(ledger, "c")
    assert ledger.stats.read().dirty == 2

    ledger.requests.resume()
    assert not ledger.stats.read().paused
    assert sorted(ledger.claims.requeue_orphans(age=0.0)) == ["b", "c"]
    assert [claim.key for claim in ledger.claims.claim("two", "v", ["b", "c"]) or ()] == ["b", "c"]


def test_a_key_that_changed_while_it_was_sent_waits_in_a_paused_mirror(ledger: Ledger) -> None:
    """Its worker would read it again at once, and so delete or send something though the mirror is paused."""
    mark(ledger, "a")
    (claim,) = ledger.claims.claim("one", "v", ["a"]) or ()
    mark(ledger, "a")
    ledger.requests.pause()

    assert ledger.claims.done("one", [Result(claim, Action.UPLOADED)])[0] == []

    assert ledger.stats.read().dirty == 1
    ledger.requests.resume()
    assert ledger.claims.requeue_orphans(age=0.0) == ["a"]
    assert [claim.key for claim in ledger.claims.claim("two", "v", ["a"]) or ()] == ["a"]


def test_what_became_of_a_key_is_remembered_with_its_worker(ledger: Remembering) -> None:
    steps = [
        (Action.RETRY, {"delay": 0.0}, "retry", 1), (Action.RETRY, {"delay": 0.0}, "retry", 2), (Action.BACK, {}, "", 0),
        (Action.FAILED, {"failure": failure("a b")}, "failed", 3), (Action.UPLOADED, {"size": 1 << 40}, "sent", 1 << 40),
        (Action.NOTHING, {}, "equal", 0), (Action.DELETED, {}, "deleted", 0),
    ]  # fmt: skip
    before = time.time()
    owner = "box:7:x"
    mark(ledger, "b")
    for action, more, _, _ in steps:
        if ledger.key_states.facts("a b").dirty is None:
            mark(ledger, "a b")
        assert claimed(ledger, owner, "a b") == ["a b"]
        done(ledger, owner, "a b", action, **more)

    found = ledger.history.of_key("a b")

    assert [(one.what, one.number) for one in found] == [(what, number) for _, _, what, number in reversed(steps) if what]
    assert {one.worker for one in found} == {"box:7"}
    assert before - 2 < found[-1].time <= found[0].time < time.time() + 2
    assert ledger.history.of_key("b") == [], "only the end of another's name is the same"


def test_what_became_of_keys_is_remembered_for_the_last_10000_results(ledger: Remembering, client: redis.Redis) -> None:
    keys = [str(number) for number in range(12_000)]
    mark(ledger, *keys)
    claims = ledger.claims.claim("one", "v", keys) or []
    ledger.claims.done("one", [Result(claim, Action.DELETED) for claim in claims])

    assert client.llen(f"{module.PREFIX}{{m}}:recent") == 10_000
    assert (ledger.history.of_key("0"), [one.what for one in ledger.history.of_key("11999")]) == ([], ["deleted"])


def test_the_queues_of_mirrors_are_listed_and_forgotten_with_what_waits_in_them(client: redis.Redis) -> None:
    ledgers = {name: Ledger(client, name) for name in ("a", "b", "c", "old")}
    for name, queue in (("a", "shared"), ("b", "shared"), ("c", "own"), ("old", "autosync")):
        ledgers[name].definition.publish("{}", "v", queue)
        for priority in (0, 5):
            ledgers[name].queues.send(Message(queue, priority, "x"))
    assert queues_of_mirrors(client) == ["autosync", "own", "shared"]

    for name, left in (("a", {"shared", "own", "autosync"}), ("c", {"shared", "autosync"}), ("old", {"shared", "autosync"})):
        ledgers[name].delete()
        assert {queue for queue in ("shared", "own", "autosync") if ledgers[name].queues.count_waiting(queue)} == left, name
    ledgers["b"].delete()
    assert ledgers["b"].queues.count_waiting("shared") == 0
    assert queues_of_mirrors(client) == []


def test_the_latency_of_each_key_is_counted_once(ledger: Ledger) -> None:
    for number in range(5):
        mark(ledger, f"k{number}")
    ledger.claims.claim("one", "v", [f"k{number}" for number in range(5)])
    done(ledger, "one", "k0", Action.RETRY)
    done(ledger, "one", "k1", Action.FAILED, failure=failure("k1"))
    for key in ("k2", "k3", "k4", "k4"):
        done(ledger, "one", key)

    counted = ledger.stats.counters()

    assert sum(count for name, count in counted.items() if name.startswith("within:")) == 3
    assert counted["took"] >= 0
    assert counted["files"] == 4, "what is reported twice was sent twice"


def test_only_the_holder_of_the_lease_writes_counters(ledger: Ledger) -> None:
    ledger.watcher_lock.heartbeat("me", {"watches": 7})
    ledger.watcher_lock.heartbeat("other", {"watches": 9})

    assert ledger.stats.counters()["watches"] == 7


def test_requests_of_operators_stay_until_they_are_removed(ledger: Ledger) -> None:
    ledger.requests.request_scan("")
    ledger.requests.request_scan("/s/a b\udcff")
    ledger.requests.request_flush_point("x")

    assert ledger.stats.read().requests == 3
    found = [("look", ""), ("look", "/s/a b\udcff"), ("barrier", "x")]
    assert ledger.requests.all() == ledger.requests.all() == found

    ledger.requests.request_scan("/later")
    ledger.requests.remove_first(len(found))
    assert (ledger.stats.read().requests, ledger.requests.all()) == (1, [("look", "/later")])
    ledger.requests.remove_first(1)
    assert (ledger.stats.read().requests, ledger.requests.all()) == (0, [])


def test_a_flush_point_counts_the_keys_that_are_dirty_since_before_it(ledger: Ledger) -> None:
    mark(ledger, "before", "changed again")
    assert ledger.requests.count_dirty_before("x") is None

    ledger.requests.confirm_flush_point("x")
    reached = int(ledger._store.client.get("autosync:{m}:barrier:x") or 0)
    wait_until(lambda: ledger.key_states.facts("before").now * 1000 > reached + 2, LIMIT, "later")
    mark(ledger, "after", "changed again")

    assert ledger.requests.count_dirty_before("x") == 2
    ledger.claims.claim("one", "v", ["before", "changed again"])
    done(ledger, "one", "before")
    done(ledger, "one", "changed again")
    assert ledger.requests.count_dirty_before("x") == 0


def test_a_mirror_that_is_forgotten_leaves_nothing(ledger: Ledger, client: redis.Redis) -> None:
    other = Ledger(client, "other")
    other.definition.publish("{}", "v")
    mark(ledger, "a")
    ledger.claims.claim("one", "v", ["a"])
    ledger.uploads.add("a", "token")
    ledger.watcher_lock.heartbeat("me")
    ledger.requests.request_scan("")
    ledger.sync_state.set_skipped(SkippedList({"/s": "is a FIFO"}))
    assert len(list(client.scan_iter("*{m}*"))) > 5

    ledger.delete()

    assert list(client.scan_iter("*{m}*")) == []
    assert mirror_names(client) == ["other"]


def test_what_is_withheld_and_what_is_skipped_is_stored(ledger: Ledger) -> None:
    assert (ledger.sync_state.withheld_deletions(), ledger.sync_state.skipped()) == (0, SkippedList({}))

    ledger.sync_state.set_withheld_deletions(7)
    skipped = SkippedList({"/s/f\udcff": "is a FIFO", "/s/g": "is a socket"}, unlisted=5)
    ledger.sync_state.set_skipped(skipped)
    assert (ledger.sync_state.withheld_deletions(), ledger.sync_state.skipped()) == (7, skipped)
    ledger.sync_state.change_skipped({"/s/f\udcff": None, "/s/h": "is a device", "/s/gone before": None})
    assert ledger.sync_state.skipped() == SkippedList({"/s/g": "is a socket", "/s/h": "is a device"}, unlisted=5)

    ledger.sync_state.set_skipped(SkippedList({}))
    assert ledger.sync_state.skipped() == SkippedList({})


# A broker that is gone

def calls(ledger: Remembering) -> dict[str, Callable[[], object]]:
    return {
        "check_reachable": lambda: check_reachable(ledger._store.client, "celery.pidbox"),
        "Claims.claim": lambda: ledger.claims.claim("one", "v", ["a"]),
        "Claims.done": lambda: done(ledger, "one", "a", Action.RETRY),
        "Claims.mark": lambda: mark(ledger, "a"),
        "Claims.release_claims_of_dead": lambda: ledger.claims.release_claims_of_dead("one"),
        "Claims.renew": lambda: ledger.claims.renew("one", ["a"]),
        "Claims.requeue_orphans": ledger.claims.requeue_orphans,
        "DefinitionStore.publish": lambda: ledger.definition.publish("{}", "v"),
        "DefinitionStore.queue": ledger.definition.queue,
        "DefinitionStore.ran_at": ledger.definition.ran_at,
        "DefinitionStore.set_ran_at": lambda: ledger.definition.set_ran_at(1.0),
        "DefinitionStore.read": ledger.definition.read,
        "DefinitionStore.note_unreadable": lambda: ledger.definition.note_unreadable("w", "reason"),
        "DefinitionStore.remove_unreadable": lambda: ledger.definition.remove_unreadable("w"),
        "DefinitionStore.unreadable": ledger.definition.unreadable,
        "Disputes.resolve": lambda: ledger.disputes.resolve([Resolution(DisputedKey("a", "1", GONE))]),
        "Disputes.unresolved": lambda: ledger.disputes.unresolved(1),
        "Failures.all": lambda: list(ledger.failures.all()),
        "Failures.are_denied": lambda: ledger.failures.are_denied(["a"]),
        "Failures.forget_denied": ledger.failures.forget_denied,
        "Failures.get": lambda: ledger.failures.get("a"),
        "Failures.pop_denied": lambda: ledger.failures.pop_denied(["a"]),
        "Failures.pop_due_denied": lambda: ledger.failures.pop_due_denied(1),
        "FleetLimits.read": ledger.limits.read,
        "FleetLimits.set": lambda: ledger.limits.set(Limits(requests=1)),
        "History.of_key": lambda: ledger.history.of_key("a"),
        "KeyStates.are_in_work": ledger.key_states.are_in_work,
        "KeyStates.claimed_by_worker": ledger.key_states.claimed_by_worker,
        "KeyStates.count_dirty": ledger.key_states.count_dirty,
        "KeyStates.facts": lambda: ledger.key_states.facts("a"),
        "Ledger.delete": lambda: Ledger(ledger._store.client, "another").delete(),
        "Ledger.release_all_of_dead": lambda: ledger.release_all_of_dead("one"),
        "OpenUploads.add": lambda: ledger.uploads.add("a", "token"),
        "OpenUploads.all": ledger.uploads.all,
        "OpenUploads.remove": lambda: ledger.uploads.remove("a", "token"),
        "OperatorRequests.confirm_flush_point": lambda: ledger.requests.confirm_flush_point("x"),
        "OperatorRequests.count_dirty_before": lambda: ledger.requests.count_dirty_before("x"),
        "OperatorRequests.pause": ledger.requests.pause,
        "OperatorRequests.all": ledger.requests.all,
        "OperatorRequests.remove_first": lambda: ledger.requests.remove_first(1),
        "OperatorRequests.request_accept": lambda: ledger.requests.request_accept("{}"),
        "OperatorRequests.request_flush_point": lambda: ledger.requests.request_flush_point("x"),
        "OperatorRequests.request_scan": lambda: ledger.requests.request_scan("/s"),
        "OperatorRequests.resume": ledger.requests.resume,
        "Queues.count_waiting": lambda: ledger.queues.count_waiting("q"),
        "Queues.delete": lambda: ledger.queues.delete("another"),
        "Queues.send": lambda: ledger.queues.send(Message("q", 5, "text")),
        "RootRecords.read": ledger.root_records.read,
        "RootRecords.write": lambda: ledger.root_records.write("{}", ""),
        "Stats.counters": ledger.stats.counters,
        "Stats.read": ledger.stats.read,
        "SyncState.acceptance": ledger.sync_state.acceptance,
        "SyncState.accepted": ledger.sync_state.accepted,
        "SyncState.last_in_sync": ledger.sync_state.last_in_sync,
        "SyncState.pending": ledger.sync_state.pending,
        "SyncState.revoke_acceptance": lambda: ledger.sync_state.revoke_acceptance("{}"),
        "SyncState.set_accepted": lambda: ledger.sync_state.set_accepted("{}"),
        "SyncState.set_pending": lambda: ledger.sync_state.set_pending({"existing": "{}"}),
        "SyncState.set_last_in_sync": lambda: ledger.sync_state.set_last_in_sync("v", 1.0, accepted=True),
        "SyncState.change_skipped": lambda: ledger.sync_state.change_skipped({"/s/fifo": "is a FIFO"}),
        "SyncState.set_skipped": lambda: ledger.sync_state.set_skipped(SkippedList({"/s/fifo": "is a FIFO"})),
        "SyncState.set_scan_error": lambda: ledger.sync_state.set_scan_error("the source is away"),
        "SyncState.scan_error": ledger.sync_state.scan_error,
        "SyncState.set_unsorted_target": lambda: ledger.sync_state.set_unsorted_target("a hash"),
        "SyncState.set_withheld_deletions": lambda: ledger.sync_state.set_withheld_deletions(3),
        "SyncState.skipped": ledger.sync_state.skipped,
        "SyncState.unsorted_target": ledger.sync_state.unsorted_target,
        "SyncState.withheld_deletions": ledger.sync_state.withheld_deletions,
        "WatcherLockEntry.heartbeat": lambda: ledger.watcher_lock.heartbeat("me"),
        "WatcherLockEntry.holder": ledger.watcher_lock.holder,
        "WatcherLockEntry.release": lambda: ledger.watcher_lock.release("me"),
    }


def public_methods(ledger: Ledger) -> set[str]:
    """All methods of a ledger and its parts that ask the broker; `FleetLimits` has a test of its own for the rest."""
    parts = [Ledger, *(next(one for one in type(part).mro() if one.__module__.startswith("autosync")) for part in vars(ledger).values())]
    parts = [part for part in parts if part not in (MirrorStore, FleetLimits)]
    found = [(part.__name__, name) for part in parts for name, value in vars(part).items() if callable(value)]
    return {f"{part}.{name}" for part, name in found if not name.startswith("_")} - {"Ledger.close"}


def test_every_method_raises_when_the_broker_is_gone_and_works_again_when_it_is_back(own_valkey: Valkey) -> None:
    client = connect(own_valkey.url)
    ledger = Remembering(client, "m")
    assert set(calls(ledger)) == public_methods(ledger) | {"check_reachable", "FleetLimits.read", "FleetLimits.set"}
    ledger.definition.publish("{}", "v")
    mark(ledger, "b")

    own_valkey.kill()
    for name, call in calls(ledger).items():
        with pytest.raises(BrokerError) as error:
            call()
        assert f"127.0.0.1:{own_valkey.port}" in str(error.value), name
        assert "\n" not in str(error.value), name
    with pytest.raises(BrokerError):
        mirror_names(client)

    own_valkey.start()
    for call in calls(ledger).values():
        call()
    assert "b" in ledger.claims.requeue_orphans(age=0.0), "what was marked before is still known"
    client.close()


def test_a_broker_on_a_socket_that_is_gone_is_named_by_its_path(tmp_path: Path) -> None:
    with connect(f"unix://{tmp_path}/none.sock") as client, pytest.raises(BrokerError, match=r"none\.sock"):
        Ledger(client, "m").key_states.count_dirty()


def test_a_broker_that_refuses_a_command_is_an_error(ledger: Ledger, client: redis.Redis) -> None:
    client.set(f"{module.PREFIX}{{m}}:state", "not a hash")

    with pytest.raises(BrokerError, match="WRONGTYPE"):
        ledger.key_states.count_dirty()
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        mark(ledger, "a")
