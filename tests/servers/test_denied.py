"""Keys whose files may not be read: when they are tried again, and what the failed list has about them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from autosync.actor import Actor
from autosync.daemon.retry_denied import DeniedRetry
from autosync.errors import BrokerError, SourceDenied, TargetError
from autosync.ledger import UNKNOWN, Action, Claim, Failure, Ledger, Result, connect
from autosync.ledger.redis_keys import Names
from autosync.model.change import SCAN_ALL, Change, Kind
from autosync.model.keys import Keys, Source
from autosync.tasks.retry import RetryPolicy
from autosync.watch.denied_paths import DeniedPaths
from autosync.watch.watcher import Watcher
from lab.servers import wait_until

NAMES = Names("m")
REASON = "/s/a may not be read: Permission denied"


@pytest.fixture
def client(broker: str) -> redis.Redis:
    return connect(broker)


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    made = Ledger(client, "m")
    made.definition.publish("{}", "v")
    return made


def claim(ledger: Ledger, key: str) -> Claim:
    ledger.claims.mark([(key, UNKNOWN)])
    (found,) = ledger.claims.claim("w", "v", [key]) or []
    return found


def deny(ledger: Ledger, *keys: str) -> None:
    """Workers may not read the files of these keys."""
    for key in keys:
        fail(ledger, key, is_denied=True)


def fail(ledger: Ledger, key: str, *, is_denied: bool = False) -> None:
    failure = Failure(key, REASON, 1, "w", 1e9)
    ledger.claims.done("w", [Result(claim(ledger, key), Action.FAILED, failure=failure, is_denied=is_denied)])


def next_try(client: redis.Redis, key: str) -> float:
    """In seconds from now, rounded."""
    score = client.zscore(NAMES.denied, key)
    assert score is not None
    return round(score / 1000 - time.time())


def pass_time(client: redis.Redis, *keys: str) -> None:
    """Make the next tries of keys due."""
    for key in keys:
        assert client.zadd(NAMES.denied, {key: 0}, xx=True, ch=True)


def test_a_file_that_may_not_be_read_is_a_denied_key_and_every_other_failure_is_not(ledger: Ledger) -> None:
    retries = RetryPolicy("m", Actor(), 10, "w")

    results = [retries.result(claim(ledger, "denied"), SourceDenied(REASON)), retries.result(claim(ledger, "too long"), TargetError("x"))]

    assert [(one.action, one.is_denied) for one in results] == [(Action.FAILED, True), (Action.RETRY, False)]
    ledger.claims.done("w", results)
    (failure,) = ledger.failures.all()
    assert (failure.key, failure.reason, failure.attempts) == ("denied", REASON, 1)
    assert failure.next_try == pytest.approx(time.time(), abs=30)
    assert ledger.failures.get("denied") == failure
    assert ledger.stats.read().denied == 1


def test_a_denied_key_is_due_at_once_and_then_after_delays_that_double_up_to_an_hour(ledger: Ledger, client: redis.Redis) -> None:
    deny(ledger, "a")
    assert ledger.failures.pop_due_denied(10) == ["a"]
    assert ledger.failures.pop_due_denied(10) == []

    delays = [next_try(client, "a")]
    while len(delays) < 10:
        deny(ledger, "a")
        assert ledger.failures.pop_due_denied(10) == [], "that it was denied again makes it no earlier"
        pass_time(client, "a")
        assert ledger.failures.pop_due_denied(10) == ["a"]
        delays.append(next_try(client, "a"))

    assert delays == pytest.approx([30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600], abs=20)


def test_a_key_whose_permissions_may_have_changed_is_tried_now_and_its_delays_begin_anew(ledger: Ledger, client: redis.Redis) -> None:
    deny(ledger, "a", "b")
    fail(ledger, "c")
    for _ in range(4):
        ledger.failures.pop_due_denied(10)
        pass_time(client, "a", "b")
    ledger.failures.pop_due_denied(10)
    assert next_try(client, "a") == pytest.approx(480, abs=20)

    assert ledger.failures.pop_denied(["a", "c", "never failed"]) == ["a"]

    assert next_try(client, "a") == pytest.approx(30, abs=20)
    assert next_try(client, "b") == pytest.approx(480, abs=20)
    assert ledger.failures.are_denied(["a", "c", "b"]) == [True, False, True]


def test_a_key_that_is_tried_already_is_not_due_twice(ledger: Ledger, client: redis.Redis) -> None:
    deny(ledger, "a")
    ledger.claims.mark([("a", UNKNOWN)])

    assert ledger.failures.pop_due_denied(10) == []
    assert next_try(client, "a") == pytest.approx(30, abs=20)
    assert ledger.failures.pop_denied(["a"]) == ["a"], "a worker that has opened it before has to try again"


@pytest.mark.parametrize("action", [Action.UPLOADED, Action.DELETED, Action.NOTHING])
def test_a_key_that_became_right_is_denied_no_more(ledger: Ledger, client: redis.Redis, action: Action) -> None:
    deny(ledger, "a")
    ledger.failures.pop_due_denied(10)

    ledger.claims.done("w", [Result(claim(ledger, "a"), action)])

    assert list(ledger.failures.all()) == []
    assert client.exists(NAMES.denied, NAMES.denied_delays) == 0
    assert ledger.stats.read().denied == 0


def test_a_key_that_fails_for_another_reason_is_denied_no_more(ledger: Ledger, client: redis.Redis) -> None:
    deny(ledger, "a")
    ledger.failures.pop_due_denied(10)

    fail(ledger, "a")

    assert [failure.next_try for failure in ledger.failures.all()] == [None]
    assert client.exists(NAMES.denied, NAMES.denied_delays) == 0


def test_a_key_that_a_worker_of_an_older_version_has_sent_is_not_tried_again(ledger: Ledger, client: redis.Redis) -> None:
    deny(ledger, "a", "b")
    ledger.failures.pop_due_denied(10)
    pass_time(client, "a", "b")
    client.hdel(NAMES.failed, "a")

    assert ledger.failures.pop_due_denied(10) == ["b"]
    assert ledger.failures.pop_denied(["a"]) == []
    assert (client.zcard(NAMES.denied), client.hlen(NAMES.denied_delays)) == (1, 1)


def test_what_older_versions_read_and_write_is_as_it_was(ledger: Ledger, client: redis.Redis) -> None:
    client.hset(NAMES.failed, "old", '["no such bucket", 10, "box:1", 5.0]')
    deny(ledger, "new")

    assert ledger.failures.get("old") == Failure("old", "no such bucket", 10, "box:1", 5.0)
    assert client.hget(NAMES.failed, "new") == f'["{REASON}", 1, "w", 1000000000.0]'.encode()


def test_a_new_watcher_treats_denied_keys_like_new_ones(ledger: Ledger, client: redis.Redis) -> None:
    deny(ledger, "a")
    ledger.failures.pop_due_denied(10)

    ledger.failures.forget_denied()
    assert ledger.failures.pop_due_denied(10) == []
    deny(ledger, "a")

    assert ledger.failures.pop_due_denied(10) == ["a"]


def test_many_denied_keys_are_read_page_by_page(ledger: Ledger, client: redis.Redis) -> None:
    keys = [f"k\udcff{number}" for number in range(1500)]
    ledger.claims.mark([(key, UNKNOWN) for key in keys])
    claims = ledger.claims.claim("w", "v", keys) or []
    failures = [Failure(one.key, REASON, 1, "w", 1e9) for one in claims]
    results = [
        Result(one, Action.FAILED, failure=failure, is_denied=int(one.key[2:]) % 3 == 0)
        for one, failure in zip(claims, failures, strict=True)
    ]
    ledger.claims.done("w", results)

    assert {failure.key for failure in ledger.failures.all() if failure.next_try is not None} == set(keys[::3])
    assert ledger.failures.are_denied(keys) == [number % 3 == 0 for number in range(1500)]
    found = [ledger.failures.pop_due_denied(400) for _ in range(3)]
    assert [len(page) for page in found] == [400, 100, 0]
    assert set(ledger.failures.pop_denied(keys)) == set(keys[::3])


def test_nothing_of_it_stays_when_the_mirror_is_deleted(ledger: Ledger, client: redis.Redis) -> None:
    deny(ledger, "a")
    ledger.failures.pop_due_denied(10)

    ledger.delete()

    assert client.keys("autosync:{m}*") == []


# The watcher tries again

class Retries:
    """Tries denied keys of a tree again, with a watcher; the test is the worker."""

    def __init__(self, ledger: Ledger, tree: Path) -> None:
        keys = Keys([Source(str(tree))], source_prefix=f"{tree}/")
        self.pushed: list[Change] = []
        self.marked: list[str] = []
        self.changes: list[Change] = []
        self.watcher = Watcher(keys, self.changes.extend)
        self.denied_retry = DeniedRetry(ledger.failures, keys, self.pushed.extend, self.marked.extend)
        self._ledger = ledger

    def start(self) -> None:
        self.denied_retry.start(self.watcher)
        self.watcher.start()
        wait_until(lambda: SCAN_ALL in self.changes, 20, "all is watched")

    def tick(self) -> tuple[list[Change], list[str]]:
        """What was pushed and marked in a tick after all events until now."""
        flushed: list[bool] = []
        self.watcher.flush(lambda: flushed.append(True))
        wait_until(lambda: flushed, 20, "all events are processed")
        self.pushed.clear()
        self.marked.clear()
        self.denied_retry.retry(self._ledger.stats.read().denied)
        return self.pushed.copy(), sorted(self.marked)

    @property
    def paths(self) -> DeniedPaths:
        return self.denied_retry._paths


@pytest.fixture
def retries(ledger: Ledger, tree: Path) -> Iterator[Retries]:
    for name in ("a", "b", "d/c"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    made = Retries(ledger, tree)
    made.start()
    yield made
    made.watcher.close()


def test_a_new_denied_key_is_observed_and_then_tried_once_more(ledger: Ledger, retries: Retries, tree: Path) -> None:
    """Its permissions may have changed between the try of the worker and the moment from which they are observed."""
    assert retries.tick() == ([], [])
    deny(ledger, "a", "d/c")

    assert retries.tick() == ([], ["a", "d/c"])
    deny(ledger, "a", "d/c")
    assert retries.tick() == ([], [])
    (tree / "a").chmod(0o600)

    assert retries.tick() == ([Change(Kind.APPEARED, f"{tree}/a")], [])
    assert retries.tick() == ([], [])


def test_permissions_of_a_directory_concern_the_keys_below_it(ledger: Ledger, retries: Retries, tree: Path) -> None:
    deny(ledger, "a", "d/c")
    retries.tick()

    (tree / "d").chmod(0o700)

    assert retries.tick() == ([Change(Kind.APPEARED, f"{tree}/d/c")], [])


def test_only_failed_keys_are_tried_when_a_whole_tree_gets_other_permissions(ledger: Ledger, retries: Retries, tree: Path) -> None:
    deny(ledger, "a")
    fail(ledger, "b")
    retries.tick()

    for path in (tree, tree / "d", tree / "a", tree / "b", tree / "d/c"):
        path.chmod(0o700)

    assert retries.tick() == ([Change(Kind.APPEARED, f"{tree}/a")], [])


def test_a_key_that_became_right_is_not_sent_for_later_changes(ledger: Ledger, retries: Retries, tree: Path) -> None:
    deny(ledger, "a", "b", "d/c")
    retries.tick()
    for key in ("a", "d/c"):
        ledger.claims.done("w", [Result(claim(ledger, key), Action.UPLOADED)])

    (tree / "a").chmod(0o600)
    assert retries.tick() == ([], [])
    wait_until(lambda: retries.tick() == ([], []) and len(retries.paths) == 1, 20, "the others are forgotten, with or without a change")
    assert (f"{tree}/b" in retries.paths, f"{tree}/d" in retries.paths) == (True, False)
    ledger.claims.done("w", [Result(claim(ledger, "b"), Action.UPLOADED)])
    retries.tick()
    assert len(retries.paths) == 0


def test_a_key_is_tried_by_time_where_no_event_comes(ledger: Ledger, client: redis.Redis, retries: Retries) -> None:
    deny(ledger, "a")
    retries.tick()
    deny(ledger, "a")
    pass_time(client, "a")

    assert retries.tick() == ([], ["a"])


def test_a_broker_that_is_away_loses_no_change(
    ledger: Ledger, retries: Retries, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deny(ledger, "a")
    retries.tick()
    (tree / "a").chmod(0o600)

    def refuse(*_: object) -> list[str]:
        raise BrokerError("away")

    with monkeypatch.context() as away:
        away.setattr(ledger.failures, "pop_denied", refuse)
        with pytest.raises(BrokerError):
            retries.tick()

    assert retries.tick() == ([Change(Kind.APPEARED, f"{tree}/a")], [])


def test_keys_that_no_path_has_any_more_are_left_to_a_worker(ledger: Ledger, retries: Retries) -> None:
    """The mirror has got other options since."""
    deny(ledger, "/elsewhere/a")

    assert retries.tick() == ([], ["/elsewhere/a"])
    assert len(retries.paths) == 0
