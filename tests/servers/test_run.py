"""The main loop's own decisions, each made to happen alone: what it does about a broker that forgets, or does not respond."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from autosync.actor import Actor
from autosync.compare.delete_limit import DeleteLimit
from autosync.compare.diff import Compare
from autosync.compare.scan import Policy, ScanReport
from autosync.daemon.mirror_runner import MirrorRunner, RunSettings
from autosync.errors import BrokerError, Exit, StartError, TargetError
from autosync.feed.broker_retry import Stopped
from autosync.feed.scanner import FinishedScan
from autosync.ledger import GONE, UNKNOWN, Action, Claim, Facts, Failure, Hint, Ledger, Result, connect
from autosync.model.change import SCAN_ALL
from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from autosync.model.withheld import Withheld
from autosync.process.boot_id import boot_id
from autosync.process.process_state import stat_of
from autosync.state.pending import ItemKind, PendingItem, request_in
from autosync.state.state_file import requests_file
from autosync.watch.scan_requests import ScanRequest
from autosync.watch.watcher import identity_of


@pytest.fixture
def make_runner(broker: str, tree: Path, tmp_path: Path) -> Iterator[Callable[..., MirrorRunner]]:
    """Makes a mirror's runner without the main loop: it has its lock, and is registered; the test calls its ticks."""
    made: list[MirrorRunner] = []

    def make(defined: dict[str, object] | None = None, **options: object) -> MirrorRunner:
        mirror = Mirror("m", "file", (Source(str(tree)),), {str(tree): identity_of(str(tree))}, queue="q", host=boot_id())
        mirror = replace(mirror, **(defined or {}))  # type: ignore[arg-type]
        policy = Policy(True, DeleteLimit(), Compare.TIME)
        fields = {"once": False, "settle": 0.0, "rescan": 0.0, **options}
        made.append(MirrorRunner(RunSettings(mirror, policy, Actor(), broker, tmp_path, **fields), None))  # type: ignore[arg-type]
        made[-1]._watcher_lock.acquire(threading.Event())
        made[-1]._registration.publish(mirror)
        return made[-1]

    yield make
    for keeping in made:
        keeping._stop.set()
        keeping._watcher_lock.release()


@pytest.fixture
def ledger(broker: str) -> Ledger:
    return Ledger(connect(broker), "m")


def found(keeping: MirrorRunner, began: float, generation: int) -> None:
    """A scan of everything that began then has ended just now."""
    keeping._scanner._update(finished_scan=FinishedScan(began, time.monotonic(), generation))


def fail(keeping: MirrorRunner, ledger: Ledger, key: str) -> None:
    ledger.claims.mark([(key, UNKNOWN)])
    (claim,) = ledger.claims.claim("w", keeping._registration.version, [key]) or []
    ledger.claims.done("w", [Result(claim, Action.FAILED, failure=Failure(key, "no space", 10, "w", time.time()))])


def test_what_a_scan_found_is_right_once_nothing_is_dirty(make_runner: Callable[..., MirrorRunner], ledger: Ledger) -> None:
    keeping = make_runner()
    began, generation = time.time(), keeping._scanner.state.scan_generation
    ledger.claims.mark([("a", UNKNOWN)])
    found(keeping, began, generation)

    keeping.tick()
    assert ledger.sync_state.last_in_sync() is None

    (claim,) = ledger.claims.claim("w", keeping._registration.version, ["a"]) or []
    ledger.claims.done("w", [Result(claim, Action.UPLOADED)])
    keeping.tick()
    assert ledger.sync_state.last_in_sync() == (keeping._registration.version, began)


def test_another_mount_namespace_after_a_restart_does_not_lose_when_the_mirror_was_in_sync(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger
) -> None:
    """A service or a container may have another one after each start."""
    version = make_runner()._registration.version  # as an earlier version wrote it, with the boot id alone
    ledger.sync_state.set_last_in_sync(version, 5.0, accepted=True)

    states = []
    for host in (f"{boot_id()} mnt:[1]", f"{boot_id()} mnt:[2]", "another boot"):
        keeping = make_runner({"host": host})
        states.append((keeping._registration.version, keeping._scanner.state.last_in_sync_at))

    assert [at for _, at in states] == [5.0, 5.0, 0.0]
    assert len({version for version, _ in states}) == 3, "workers have to know which host it is"


def dispute(keeping: MirrorRunner, ledger: Ledger, key: str) -> None:
    """A worker does not see what the file host saw."""
    (claim,) = ledger.claims.claim("w", keeping._registration.version, [key]) or []
    ledger.claims.done("w", [Result(claim, Action.DISPUTED)])


def test_ticks_resolve_what_boxes_do_not_see_and_the_first_scan_decides_what_is_gone(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, tree: Path
) -> None:
    keeping = make_runner()
    seen = Hint(7, 1_700_000_000_000_000_000)
    (tree / "there").write_text("content")
    os.utime(tree / "there", ns=(0, seen.mtime_ns))
    for name in ("there", "gone"):
        ledger.claims.mark([(f"{tree}/{name}", seen)])
        dispute(keeping, ledger, f"{tree}/{name}")

    def facts(name: str) -> Facts:
        return ledger.key_states.facts(f"{tree}/{name}")

    for report in (None, ScanReport(error=TargetError("the target is away"))):
        keeping._scanner._update(last_report=report, accepted=True)
        keeping.tick()
        assert (facts("there").hint, facts("gone").hint) == (seen, seen)
        assert [disputed.key for disputed in ledger.disputes.unresolved(10)] == [f"{tree}/gone"]
    confirmed = facts("there").dispute
    assert confirmed is not None
    assert confirmed.confirmed_for is not None

    keeping._scanner._update(last_report=ScanReport())
    keeping.tick()

    assert (facts("there").hint, facts("gone").hint) == (seen, GONE)
    assert ledger.queues.count_waiting("q") >= 1, "a worker tries it at once"
    assert ledger.disputes.unresolved(10) == []


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("seen", [UNKNOWN, GONE, Hint(7, 1)], ids=["not checked", "gone", "seen"])
def test_once_does_not_wait_for_keys_below_a_root_in_doubt_and_leaves_them_to_a_later_scan(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, tree: Path, seen: Hint, once: bool
) -> None:
    keeping = make_runner(once=once)
    keeping._root_watch.begin()
    ledger.claims.mark([(f"{tree}/a", seen)])
    dispute(keeping, ledger, f"{tree}/a")
    tree.rename(tree.with_name("before"))
    tree.mkdir()
    keeping._scanner._update(last_report=None, accepted=True)
    keeping.tick()
    assert ledger.key_states.count_dirty() == 1, "a scan decides first whether the root is believed"

    keeping._scanner._update(last_report=ScanReport(complete=False))
    found(keeping, time.time(), keeping._scanner.state.scan_generation)
    keeping.tick()
    keeping.tick()

    assert (ledger.key_states.count_dirty(), keeping.is_through()) == ((0, True) if once else (1, False))
    assert ledger.sync_state.last_in_sync() is None
    keeping._roots.adopt(str(tree), identity_of(str(tree)))
    keeping.tick()
    if once:
        assert keeping._debouncer.pop_scan() == ScanRequest(str(tree)), "it is scanned when it is believed"
        keeping._scanner._update(last_report=ScanReport())
        assert keeping.end(finished=True) == Exit.INCOMPLETE
        found(keeping, time.time(), keeping._scanner.state.scan_generation)
        assert keeping.end(finished=True) == Exit.DONE, "a scan of the same run has compared them"
    else:
        assert ledger.disputes.unresolved(1) == []


def request_acceptance(how: str, ledger: Ledger, directory: Path, *items: PendingItem) -> None:
    if how == "ledger":
        for item in items:
            ledger.requests.request_accept(item.dumps())
    else:
        request_in(requests_file(directory, "m"), items)


@pytest.mark.parametrize("how", ["ledger", "file"])
@pytest.mark.parametrize("kind", [ItemKind.DELETIONS, ItemKind.EXISTING])
def test_what_an_operator_has_accepted_is_carried_out_also_by_the_start_after_a_kill(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, tmp_path: Path, how: str, kind: ItemKind
) -> None:
    def start() -> MirrorRunner:
        runner = make_runner()
        runner._request_handler.handle_unfinished()
        return runner

    def digests(runner: MirrorRunner) -> frozenset[str]:
        return runner._scanner.state.accepted_deletions.digests

    killed = start()
    request_acceptance(how, ledger, tmp_path, PendingItem(kind, count=3, digest="d"))
    killed.tick()
    killed.tick()
    assert (digests(killed), ledger.requests.all(), requests_file(tmp_path, "m").read()) == ({"d"}, [], {})
    killed._watcher_lock.release()

    again = start()
    assert digests(again) == {"d"}
    assert again._debouncer.pop_scan() == ScanRequest("")
    again.tick()
    again._watcher_lock.release()
    again = start()
    assert digests(again) == {"d"}, "no scan has ended since"

    again._scanner._update(scanned_digests=frozenset({"d"}))
    again.tick()
    again._watcher_lock.release()
    assert digests(start()) == frozenset(), "the ledger has what the scan has found"


def in_doubt(runner: MirrorRunner, path: str, digest: str) -> PendingItem:
    """A scan has kept two keys below a path, which is in doubt."""
    runner._roots.remembered.begin_doubt(path, "is gone")
    runner._roots.remembered.note_keys(path, 2, "is gone")
    runner._roots.remembered.note_kept(path, 2, digest)
    return PendingItem(ItemKind(runner._roots.kind(path)), path, 2, ("is gone",), digest)


def test_what_is_accepted_waits_until_it_is_pending_whatever_else_is(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, tree: Path, tmp_path: Path
) -> None:
    runner = make_runner(once=True)
    one, other = (PendingItem(ItemKind.MOUNT, f"{tree}/{name}", 2, ("is gone",), name) for name in ("one", "other"))
    request_acceptance("file", ledger, tmp_path, one, other)
    in_doubt(runner, one.path, "one")
    runner.tick()
    assert runner._roots.remembered.pending().keys() == {one.path}, "the first scan finds out what is in doubt"

    runner._scanner._update(last_report=ScanReport())
    runner._debouncer.push((SCAN_ALL,))
    runner.tick()
    assert runner._scanner.state.accepted_deletions.digests == {"one"}
    assert runner._root_acceptance.has_requests, "a scan is about to find out about the other"

    in_doubt(runner, other.path, "other")
    runner.tick()
    assert runner._scanner.state.accepted_deletions.digests == {"one", "other"}
    assert not runner._root_acceptance.has_requests


def test_a_request_that_could_not_be_removed_is_handled_again_without_harm(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    runner = make_runner(once=True)
    item = in_doubt(runner, f"{tree}/share", "d")
    runner._scanner._update(last_report=ScanReport())
    request_acceptance("ledger", ledger, tmp_path, item)

    def away(count: int) -> None:
        raise BrokerError("the broker is away")

    with monkeypatch.context() as patch:
        patch.setattr(runner._ledger.requests, "remove_first", away)
        runner.tick()
        runner.tick()
    runner.tick()
    runner.tick()

    assert (ledger.requests.all(), list(runner._accepted_items)) == ([], [item])
    assert runner._roots.remembered.doubts()[item.path].accepted
    assert runner._scanner.state.accepted_deletions.digests == {"d"}
    assert not runner._root_acceptance.has_requests
    assert "is not as it was accepted" not in caplog.text


def test_what_is_not_pending_after_all_scans_is_not_accepted_and_nothing_waits_for_it(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(once=True)
    item = in_doubt(runner, f"{tree}/share", "now")
    request_acceptance("ledger", ledger, tmp_path, replace(item, digest="before"))
    runner._scanner._update(last_report=ScanReport())

    runner.tick()

    assert f"mount {tree}/share is not as it was accepted any more" in caplog.text
    assert (runner._root_acceptance.has_requests, list(runner._accepted_items)) == (False, [])
    assert runner._scanner.state.accepted_deletions.digests == frozenset()
    assert runner.is_through()


def test_a_root_that_was_accepted_before_a_kill_is_accepted_with_the_keys_that_were_listed(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, tree: Path, tmp_path: Path
) -> None:
    killed = make_runner()
    killed._root_watch.begin()
    item = in_doubt(killed, f"{tree}/share", "d")
    killed._scanner._update(last_report=ScanReport())
    request_acceptance("ledger", ledger, tmp_path, item)
    killed.tick()
    killed._scanner._update(scanned_digests=frozenset())
    killed._root_memory.store()
    killed._watcher_lock.release()

    again = make_runner()
    again._root_watch.begin()
    again._request_handler.handle_unfinished()

    assert again._scanner.state.accepted_deletions.digests == {"d"}
    assert not again._root_acceptance.has_requests


NOT_IN_WORK = {
    "nothing": lambda keeping, ledger: None,
    "a key that is disputed": lambda keeping, ledger: dispute(keeping, ledger, "a"),
    "a key with a next try": lambda keeping, ledger: end_claim(keeping, ledger, Action.RETRY),
    "a key whose worker has died": lambda keeping, ledger: (claim(keeping, ledger, "a"), ledger.release_all_of_dead("w")),
    "a key of a mirror that is paused": lambda keeping, ledger: ledger.requests.pause(),
}
IN_WORK = {
    "a key that waits in the queue": lambda keeping, ledger: None,
    "a key that is claimed": lambda keeping, ledger: claim(keeping, ledger, "a"),
    "a claimed key of a mirror that is paused": lambda keeping, ledger: (claim(keeping, ledger, "a"), ledger.requests.pause()),
    "a key that waits in the queue beside a disputed one": lambda keeping, ledger: (
        ledger.claims.mark([("b", UNKNOWN)]), dispute(keeping, ledger, "b"),
    ),
}  # fmt: skip


def claim(keeping: MirrorRunner, ledger: Ledger, key: str) -> Claim:
    (claimed,) = ledger.claims.claim("w", keeping._registration.version, [key]) or []
    return claimed


def end_claim(keeping: MirrorRunner, ledger: Ledger, action: Action) -> None:
    ledger.claims.done("w", [Result(claim(keeping, ledger, "a"), action, delay=0.0)])


@pytest.mark.parametrize(("what", "is_drained"), [*((one, True) for one in NOT_IN_WORK), *((one, False) for one in IN_WORK)])
def test_the_end_waits_for_keys_that_workers_have_or_get_and_for_no_others(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, monkeypatch: pytest.MonkeyPatch, what: str, is_drained: bool
) -> None:
    monkeypatch.setattr("autosync.ledger.key_states._PAGE", 2)
    keeping = make_runner()
    for key in ("x", "y", "z"):  # wait for their next try
        ledger.claims.mark([(key, UNKNOWN)])
        ledger.claims.done("w", [Result(claim(keeping, ledger, key), Action.RETRY, delay=5.0)])
    if what != "nothing":
        ledger.claims.mark([("a", UNKNOWN)])
    {**NOT_IN_WORK, **IN_WORK}[what](keeping, ledger)

    assert keeping.is_drained() == is_drained


def test_failed_keys_are_tried_again_also_while_others_are_disputed(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, tree: Path
) -> None:
    keeping = make_runner()
    ledger.claims.mark([(f"{tree}/a", Hint(7, 1))])
    dispute(keeping, ledger, f"{tree}/a")
    fail(keeping, ledger, f"{tree}/b")

    keeping.tick()

    assert ledger.key_states.facts(f"{tree}/b").dirty is not None


def test_the_log_of_the_file_host_names_once_a_minute_who_does_not_see_its_files(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeping = make_runner()
    ledger.disputes.unseen.write("box2@host", "does not see a", 300)
    keeping.tick()
    assert "box2" not in caplog.text, "no key waits"
    ledger.claims.mark([(f"{tree}/a", Hint(7, 1))])
    dispute(keeping, ledger, f"{tree}/a")

    for _ in range(3):
        keeping.tick()

    assert [record.getMessage() for record in caplog.records if "box2" in record.getMessage()] == [
        "worker box2@host does not see a; 1 keys wait for such files"
    ]


@pytest.mark.parametrize("accepted", [False, True])
def test_a_broker_that_forgets_neither_revokes_nor_grants_an_acceptance(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, broker: str, accepted: bool
) -> None:
    keeping = make_runner()
    keeping._scanner._update(accepted=accepted)
    if accepted:
        keeping._deletion_state.accept()

    connect(broker).flushall()
    ledger.sync_state.set_last_in_sync("v", 1.0, accepted=accepted)  # by the watcher, before it knows
    keeping.tick()

    assert keeping._scanner.state.accepted == ledger.sync_state.accepted() == accepted


@pytest.mark.parametrize(
    ("before", "options", "accepted"),
    [
        ({}, {}, False),
        ({}, {"accept_existing": True}, True),
        ({"cleared": "older-version 1.0"}, {}, True),
        ({"cleared": "older-version 1.0", "accepted": 0}, {}, False),
        ({"accepted": 0}, {"accept_existing": True}, True),
        ({"accepted": 1}, {}, True),
    ],
)
def test_whether_a_mirror_is_accepted_is_read_at_its_start_and_stored(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, broker: str,
    before: dict[str, str | int], options: dict[str, bool], accepted: bool,
) -> None:
    if before:
        make_runner()._watcher_lock.release()
        connect(broker).hdel("autosync:{m}:mirror", "accepted")
        connect(broker).hset("autosync:{m}:mirror", mapping=before)

    keeping = make_runner(**options)
    assert keeping._scanner.state.accepted == ledger.sync_state.accepted() == accepted

    found(keeping, time.time(), keeping._scanner.state.scan_generation)
    keeping.tick()
    assert ledger.sync_state.last_in_sync() is not None
    assert keeping._scanner.state.accepted == ledger.sync_state.accepted() == accepted
    if not accepted:
        keeping._watcher_lock.release()
        assert not make_runner()._scanner.state.accepted, "the start after that knows no better"


@pytest.mark.parametrize(
    ("defined", "accepted"),
    [
        ({"threads": 7, "lease": 60.0, "host": "another boot", "settings": {"target_container": "/t", "new": 1}}, True),
        ({"settings": {"target_container": "/another"}}, False),
        ({"target_prefix": "p/"}, False),
        ({"source_prefix": "/"}, False),
        ({"sources": (Source("/another"),)}, False),
        ({"source_filter": "x"}, True),
        ({"source_exclude": ("x", "y")}, True),
        ({"source_exclude": ("y",)}, False),
        ({"temporary": ("x",)}, True),
        ({"follow_links": False}, True),
        ({"done_marker": "x"}, False),
        ({"actor": "rsync"}, False),
    ],
    ids=str,
)
def test_a_mirror_is_accepted_with_its_target_sources_and_filters(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, defined: dict[str, object], accepted: bool
) -> None:
    first: dict[str, object] = {"settings": {"target_container": "/t"}, "source_exclude": ("x",)}
    make_runner(first, accept_existing=True)._watcher_lock.release()

    other = make_runner({**first, **defined})
    other._watcher_lock.release()
    again = make_runner({**first, **defined})
    again._watcher_lock.release()

    assert other._scanner.state.accepted == again._scanner.state.accepted == ledger.sync_state.accepted() == accepted
    if not accepted:
        assert not make_runner(first)._scanner.state.accepted, "it was accepted once, and is another since"
    elif "source_filter" in defined:
        assert not make_runner(first)._scanner.state.accepted, "more is in scope again"


def test_a_wider_scope_that_is_accepted_lifts_no_withheld_deletions(make_runner: Callable[..., MirrorRunner], tree: Path) -> None:
    first = make_runner(accept_existing=True)
    first._deletion_state.set_withheld(Withheld(400, ("a",), "d"), accepted=True)
    first._watcher_lock.release()

    wider = make_runner({"sources": (Source(str(tree)), Source("/another"))}, accept_existing=True)

    assert (wider._scanner.state.accepted, wider._scanner.state.withheld_deletions) == (True, 400)


def test_nobody_accepts_deletions_where_there_are_none(make_runner: Callable[..., MirrorRunner]) -> None:
    assert not make_runner({"delete": False}, accept_existing=True)._scanner.state.accepted


@pytest.mark.parametrize("ended", ["before", "after"])
def test_that_nothing_is_dirty_since_the_broker_forgot_it_makes_nothing_right(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, broker: str, ended: str
) -> None:
    """Else a file that differs in nothing but its times, and was marked before, would count as equal in all later scans."""
    keeping = make_runner()
    began, generation = time.time(), keeping._scanner.state.scan_generation
    ledger.claims.mark([("a", UNKNOWN)])
    if ended == "before":
        found(keeping, began, generation)
    keeping.tick()

    connect(broker).flushall()
    keeping.tick()
    if ended == "after":
        found(keeping, began, generation)
    keeping.tick()
    assert (ledger.sync_state.last_in_sync(), keeping._scanner.state.last_in_sync_at) == (None, 0.0)

    found(keeping, began := time.time(), keeping._scanner.state.scan_generation)
    keeping.tick()
    assert ledger.sync_state.last_in_sync() == (keeping._registration.version, began)


def test_once_is_not_through_because_the_broker_forgot_what_is_to_be_done(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping = make_runner(once=True)
    keeping._scanner._update(last_report=ScanReport())
    ledger.claims.mark([("a", UNKNOWN)])
    assert not keeping.is_through()

    connect(broker).flushall()
    assert not keeping.is_through()
    assert keeping._debouncer.pop_scan() is not None, "everything is compared again"

    monkeypatch.setattr(keeping._debouncer, "is_drained", lambda: True)
    assert keeping.is_through()


@pytest.mark.parametrize("what", ["failed", "unfinished"])
def test_a_broker_that_goes_away_in_the_middle_of_a_tick_does_not_hold_the_main_loop_up(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is the main loop that starts a dead broker again, and that handles signals."""
    keeping = make_runner(rescan=3600.0)
    if what == "failed":
        fail(keeping, ledger, "a")
    else:
        ledger.uploads.add("a", "token")
    keeping._rescans._next = time.monotonic()

    def away(*_: object) -> None:
        raise BrokerError("the broker is away")

    def tick() -> None:
        with suppress(Stopped):
            keeping.tick()

    with monkeypatch.context() as patch:
        patch.setattr(keeping._ledger.claims, "mark", away)
        ticking = threading.Thread(target=tick)
        ticking.start()
        ticking.join(5.0)
        stuck = ticking.is_alive()
        keeping._stop.set()
        ticking.join()
    assert not stuck

    keeping._stop.clear()
    keeping.tick()
    claims = ledger.claims.claim("w", keeping._registration.version, ["a"])
    assert claims == [Claim("a", 0, UNKNOWN, ("token",) if what == "unfinished" else ())]
    assert keeping._debouncer.pop_scan() is not None, "the rescan was not left out"
    assert keeping._rescans._next > time.monotonic() + 3000


@pytest.mark.parametrize("what", ["a worker has died", "the broker has forgotten", "nothing"])
def test_a_key_whose_message_may_be_lost_is_sent_again_at_the_next_tick(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, broker: str, what: str
) -> None:
    """A dead worker may have had messages whose keys it had not claimed; so may one that did not find the definition."""
    keeping = make_runner()
    if what == "the broker has forgotten":
        connect(broker).flushall()
    ledger.claims.mark([("a", UNKNOWN)])
    if what == "a worker has died":
        keeping.release_claims_of_dead(1)

    sent = []
    for _ in range(3):
        keeping.tick()
        sent.append(ledger.queues.count_waiting("q"))
        connect(broker).delete("autosync:q")
    # The first search for orphans may find leases that have ended, and nothing else.
    assert sent == ([0, 0, 0] if what == "nothing" else [1, 1, 0])


def test_keys_whose_files_may_not_be_read_have_delays_of_their_own_also_with_one_attempt(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger
) -> None:
    keeping = make_runner({"attempts": 1})
    fail(keeping, ledger, "full")
    ledger.claims.mark([("denied", UNKNOWN)])
    (claim,) = ledger.claims.claim("w", keeping._registration.version, ["denied"]) or []
    failure = Failure("denied", "may not be read", 1, "w", time.time())
    ledger.claims.done("w", [Result(claim, Action.FAILED, failure=failure, is_denied=True)])
    ledger.failures.pop_due_denied(1)

    keeping.tick()

    assert [ledger.key_states.facts(key).dirty is not None for key in ("full", "denied")] == [True, False]
    keeping.mark_unfinished()
    assert ledger.key_states.facts("denied").dirty is not None, "a start tries everything again"
    assert ledger.stats.read().denied == 0


def test_what_may_be_readable_waits_while_the_mirror_is_paused(make_runner: Callable[..., MirrorRunner], ledger: Ledger) -> None:
    keeping = make_runner()
    calls: list[int] = []
    keeping._denied_retry.retry = calls.append  # type: ignore[method-assign]

    ledger.requests.pause()
    keeping.tick()
    ledger.requests.resume()
    keeping.tick()

    assert calls == [0]


def test_keys_without_a_message_are_sent_once_a_tick(make_runner: Callable[..., MirrorRunner], ledger: Ledger) -> None:
    keeping = make_runner()
    ledger.claims.mark([(f"{number:04}", UNKNOWN) for number in range(1500)])
    keeping.release_claims_of_dead(1)

    keeping.tick()

    assert ledger.queues.count_waiting("q") == 10, "a page of 1,000 keys, 100 to a message"


def test_a_signal_ends_the_waiting_for_a_place_that_another_host_has(make_runner: Callable[..., MirrorRunner], broker: str) -> None:
    keeping = make_runner()
    holder = {**json.loads(keeping._watcher_lock._holder), "host": "elsewhere", "boot": "elsewhere"}
    connect(broker).set("autosync:{m}:watcher", json.dumps(holder), px=15_000)
    stop = threading.Event()
    stop.set()

    assert not keeping.begin(stop)


@pytest.mark.parametrize("alive", [False, True])
def test_a_lock_that_a_dead_process_has_again_since_the_broker_forgot_the_end_is_acquired(
    make_runner: Callable[..., MirrorRunner], ledger: Ledger, broker: str, alive: bool
) -> None:
    """A broker that is killed may come back with the memory of seconds ago, when the autosync before this one had the place."""
    keeping = make_runner()
    keeping.tick()
    ended = subprocess.Popen(["true"])
    ended.wait()
    holder = json.loads(keeping._watcher_lock._holder)
    parent = stat_of(os.getppid())
    assert parent is not None
    holder |= {"pid": os.getppid(), "start_time": parent.start_time} if alive else {"pid": ended.pid}
    connect(broker).set("autosync:{m}:watcher", json.dumps(holder), px=15_000)
    assert json.loads((ledger.watcher_lock.holder() or ("{}",))[0]) == holder

    if alive:
        with pytest.raises(StartError, match="taken over"):
            keeping.tick()
    else:
        keeping.tick()
        assert (ledger.watcher_lock.holder() or ("",))[0] == keeping._watcher_lock._holder


def gone(*_: object) -> None:
    raise BrokerError("the broker has gone away")


#: With which the definition is published: parts of the ledger, and their methods.
CALLS = [
    ("definition", "publish"),
    ("sync_state", "last_in_sync"),
    ("sync_state", "withheld_deletions"),
    ("sync_state", "unsorted_target"),
    ("sync_state", "accepted"),
    ("sync_state", "revoke_acceptance"),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_broker_that_lost_its_memory_and_goes_away_again_gets_everything_once_it_stays(
    make_runner: Callable[..., MirrorRunner], broker: str, monkeypatch: pytest.MonkeyPatch, call: tuple[str, str]
) -> None:
    keeping = make_runner()
    keeping.tick()
    assert keeping._debouncer.is_idle()

    connect(broker).flushall()
    with monkeypatch.context() as patch:
        patch.setattr(getattr(keeping._ledger, call[0]), call[1], gone)
        keeping.tick()
    keeping.tick()

    assert keeping._debouncer.pop_scan() == ("", False)


@pytest.mark.parametrize("call", CALLS)
def test_another_root_is_the_source_also_if_the_broker_goes_away_during_its_registration(
    make_runner: Callable[..., MirrorRunner], tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: tuple[str, str]
) -> None:
    (tree / "f").touch()
    keeping = make_runner()
    tree.rename(tmp_path / "old")
    tree.mkdir()
    (tree / "f").touch()
    with monkeypatch.context() as patch:
        patch.setattr(getattr(keeping._ledger, call[0]), call[1], gone)
        keeping.tick()
    keeping.tick()

    published = keeping._ledger.definition.read()
    assert published is not None
    assert Mirror.loads(published[0]).identities == {str(tree): identity_of(str(tree))}
    assert keeping._registration.version == published[1]


def test_a_skipped_path_is_logged_with_its_target_like_all_others(
    make_runner: Callable[..., MirrorRunner], caplog: pytest.LogCaptureFixture
) -> None:
    make_runner(about="t1: ")._skipped.add("/s/pipe", "is a FIFO")

    assert caplog.messages[-1] == "t1: skipped: /s/pipe is a FIFO"
