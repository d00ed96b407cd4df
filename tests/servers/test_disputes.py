"""An upload box that does not see what the file host saw: it has no verdict about the key, and the file host checks the file once more."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_batch import STORE, Recording, Workbench, hint

from autosync.daemon.disputes import DisputeResolver, Trust
from autosync.ledger import GONE, UNKNOWN, Dispute, Hint, connect
from autosync.ledger.disputes import Resolution
from autosync.model.mirror import IN_DOUBT, Identity, Mirror, version_of
from autosync.process import boot_id
from autosync.tasks import unseen
from autosync.tasks.unseen import UnseenFiles
from autosync.watch.watcher import identity_of
from lab.commands import Commands

#: More than the tries after which a box once believed its own eyes, and than those after which a key fails.
MANY_TRIES = 14
SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Recording.reset()


@pytest.fixture
def make(broker: str, tree: Path) -> Iterator[Callable[..., Workbench]]:
    made: list[Workbench] = []

    def one(**options: object) -> Workbench:
        made.append(Workbench(broker, tree, **options))
        return made[-1]

    yield one
    for workbench in made:
        for worker in workbench.workers:
            worker.close()


@pytest.fixture
def box(make: Callable[..., Workbench]) -> Workbench:
    """Its workers are upload boxes, which see the tree as their share."""
    return make(host="another host")


def make_due(bench: Workbench) -> None:
    """Let the next try of every key be due."""
    client, names = connect(bench.broker), bench.ledger._store.names
    for key in client.zrange(names.due, 0, -1):
        client.zadd(names.due, {key: 0})


def try_often(bench: Workbench, *keys: str, tries: int = MANY_TRIES) -> None:
    worker = bench.worker()
    for _ in range(tries):
        bench.work(list(keys), worker)
        make_due(bench)


def resolve(bench: Workbench, *, has_scanned: bool = True, may_delete: bool = True, in_doubt: tuple[str, ...] = ()) -> list[str]:
    """Let the file host, whose tree is the same directory, resolve all disputes. Returns the keys that need a message."""
    mirror = Mirror.loads(bench.definition)
    identities = {str(bench.tree): identity_of(str(bench.tree))}
    resolver = DisputeResolver(bench.ledger.disputes, mirror.keys(), mirror.file_rules)
    return resolver.resolve(Trust(identities, in_doubt, has_scanned=has_scanned, may_delete=may_delete))


def seen(size: int = 7, mtime_ns: int = 1_700_000_000 * SECOND) -> Hint:
    return Hint(size, mtime_ns)


def link_out(path: Path) -> None:
    path.symlink_to("/etc/hostname")


DIFFERENT: dict[str, tuple[Hint, Callable[[Path], object]]] = {
    "nothing": (seen(), lambda path: None),
    "nothing, and the file host has not checked": (UNKNOWN, lambda path: None),
    "an old version": (seen(), lambda path: write(path, "before!", 1_600_000_000)),
    "another size": (seen(), lambda path: write(path, "before", 1_700_000_000)),
    "a version that was replaced by an older file": (seen(), lambda path: write(path, "before!", 1_800_000_000)),
    "a file that is gone": (GONE, lambda path: write(path, "before!", 1_700_000_000)),
    "a link that leads out": (seen(), link_out),
}


def write(path: Path, text: str, mtime: int) -> None:
    path.write_text(text)
    os.utime(path, ns=(0, mtime * SECOND))


@pytest.mark.parametrize("what", DIFFERENT)
@pytest.mark.parametrize("delete", [True, False])
def test_a_box_never_overrules_the_file_host(make: Callable[..., Workbench], tree: Path, what: str, delete: bool) -> None:
    box = make(host="another host", delete=delete)
    STORE["a"] = b"object"
    seen_there, there = DIFFERENT[what]
    there(tree / "a")
    box.ledger.claims.mark([("a", seen_there)])

    try_often(box, "a")

    assert (STORE, Recording.operations) == ({"a": b"object"}, [])
    assert list(box.ledger.failures.all()) == []
    facts = box.ledger.key_states.facts("a")
    assert facts.dirty is not None
    assert (facts.attempts, facts.hint, facts.dispute) == (0, seen_there, Dispute(MANY_TRIES, None))


@pytest.mark.parametrize("what", ["the root", "a mount point"])
@pytest.mark.parametrize("identity", [IN_DOUBT, Identity(1, 1)], ids=["in doubt", "another directory"])
def test_a_worker_with_the_view_of_the_file_host_leaves_keys_below_another_directory_to_it_and_fails_none(
    make: Callable[..., Workbench], tree: Path, what: str, identity: Identity
) -> None:
    """The file host may believe the directory and be about to publish that."""
    (tree / "d").mkdir()
    bench = make()
    top = str(tree) if what == "the root" else f"{tree}/d"
    mirror = Mirror.loads(bench.definition)
    bench.definition = replace(mirror, identities={**mirror.identities, top: identity}).dumps()
    bench.ledger.definition.publish(bench.definition, version_of(bench.definition))
    STORE["d/a"] = b"object"
    bench.ledger.claims.mark([("d/a", GONE)])

    try_often(bench, "d/a")

    facts = bench.ledger.key_states.facts("d/a")
    assert (STORE, list(bench.ledger.failures.all())) == ({"d/a": b"object"}, [])
    assert (facts.attempts, facts.dispute) == (0, Dispute(MANY_TRIES, None))
    bench.ledger.definition.publish(mirror.dumps(), version_of(mirror.dumps()))
    bench.work(["d/a"])
    assert STORE == {}


@pytest.mark.parametrize("lost", ["the root", "the share"])
@pytest.mark.parametrize("known", [seen(), GONE, UNKNOWN], ids=["seen", "gone", "not checked"])
def test_a_box_that_lacks_the_root_or_cannot_read_it_returns_keys_and_fails_none(
    box: Workbench, tree: Path, monkeypatch: pytest.MonkeyPatch, lost: str, known: Hint
) -> None:
    STORE["a"] = b"object"
    worker = box.worker()
    box.ledger.claims.mark([("a", known)])

    with monkeypatch.context() as patch:
        if lost == "the root":
            tree.rename(tree.with_name("unmounted"))
        else:
            patch.setattr("autosync.tasks.sources.open_root", fail_with(errno.ESTALE))
        for _ in range(MANY_TRIES):
            box.work(["a"], worker)
            make_due(box)

    assert list(box.ledger.failures.all()) == []
    facts = box.ledger.key_states.facts("a")
    assert (STORE, facts.attempts, facts.dispute) == ({"a": b"object"}, 0, Dispute(MANY_TRIES, None))

    if lost == "the root":
        tree.with_name("unmounted").rename(tree)
    changed = resolve(box)
    assert changed == ([] if known == GONE else ["a"])
    box.work(["a"])
    assert (STORE, box.ledger.key_states.count_dirty()) == ({}, 0)


def fail_with(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_box_whose_cache_lists_a_file_that_it_cannot_open_has_no_verdict_either(
    box: Workbench, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    STORE["a"] = b"object"
    box.ledger.claims.mark([("a", GONE)])
    listed = os.stat(__file__)

    with monkeypatch.context() as patch:
        patch.setattr("autosync.tasks.sources.MirrorSource._lstat", lambda *_: listed)
        try_often(box, "a")

    facts = box.ledger.key_states.facts("a")
    assert (STORE, facts.attempts, facts.dispute) == ({"a": b"object"}, 0, Dispute(MANY_TRIES, None))


def test_what_a_box_has_sent_itself_is_not_believed_to_be_the_last_version(box: Workbench, tree: Path) -> None:
    """The share still shows what was sent, when the file host has seen the next version."""
    (tree / "a").write_text("first")
    first = hint(tree / "a")
    newer = Hint(first.size, first.mtime_ns + 5 * SECOND)
    Recording.meanwhile = lambda key: box.ledger.claims.mark([(key, newer)])  # type: ignore[assignment]
    box.ledger.claims.mark([("a", first)])

    box.work(["a"])

    assert STORE == {"a": b"first"}
    assert box.ledger.key_states.facts("a").dispute == Dispute(1, None)


@pytest.mark.parametrize("may_delete", [True, False])
def test_keys_that_are_left_over_or_have_failed_are_no_proof_that_a_file_is_gone_either_on_the_file_host(
    make: Callable[..., Workbench], tree: Path, may_delete: bool
) -> None:
    """Their files may have gone while no watcher ran: acceptance and limits apply, which only a scan knows."""
    bench = make()
    STORE.update({"left over": b"x", "saved": b"x"})
    bench.ledger.claims.mark([("left over", UNKNOWN), ("saved", seen())])

    bench.work(["left over", "saved"])
    resolve(bench, has_scanned=False)
    assert (sorted(STORE), bench.ledger.key_states.count_dirty()) == (["left over", "saved"], 2)

    bench.work(resolve(bench, may_delete=may_delete))
    assert (sorted(STORE), bench.ledger.key_states.count_dirty()) == ([] if may_delete else ["left over", "saved"], 0)


@pytest.mark.parametrize("watched", [True, False])
def test_a_disputed_key_is_tried_again_after_delays_that_grow_to_half_a_minute(box: Workbench, watched: bool) -> None:
    if watched:
        box.ledger.watcher_lock.heartbeat("watcher", lease=600)
    box.ledger.claims.mark([("a", seen())])
    worker = box.worker()
    delays = []
    for _ in range(9):
        box.work(["a"], worker)
        facts = box.ledger.key_states.facts("a")
        assert box.ledger.claims.claim("another", worker[1].version, ["a"]) == [], "nobody tries before that"
        delays.append((facts.due or 0) - facts.now)
        make_due(box)

    expected = [min(0.25 * 2**number, 30) if watched else 30 for number in range(9)]
    assert all(most - 0.25 < delay <= most for delay, most in zip(delays, expected, strict=True)), delays


# What the file host resolves


def test_a_file_that_the_file_host_confirms_waits_until_a_worker_sees_it(box: Workbench, tree: Path) -> None:
    STORE["a"] = b"object"
    away = tree.parent / "a"
    away.write_text("content")
    box.ledger.claims.mark([("a", hint(away))])
    worker = box.worker()
    box.work(["a"], worker)

    for _ in range(MANY_TRIES):
        away.rename(tree / "a")  # the file host sees it
        assert resolve(box) == []
        (tree / "a").rename(away)  # and the box does not
        make_due(box)
        box.work(["a"], worker)

    dispute = box.ledger.key_states.facts("a").dispute
    assert (STORE, list(box.ledger.failures.all())) == ({"a": b"object"}, [])
    assert dispute is not None
    assert dispute.tries == MANY_TRIES + 1
    assert dispute.confirmed_for is not None
    away.rename(tree / "a")
    make_due(box)
    box.work(["a"], worker)
    assert (STORE, box.ledger.key_states.count_dirty()) == ({"a": b"content"}, 0)
    assert box.ledger.disputes.unresolved(10) == []
    assert connect(box.broker).keys("autosync:{m}:disputed") == []


def test_a_key_goes_when_both_confirm_that_its_file_is_gone(box: Workbench) -> None:
    STORE["a"] = b"object"
    box.ledger.claims.mark([("a", UNKNOWN)])
    box.work(["a"])
    assert STORE == {"a": b"object"}

    assert resolve(box) == ["a"]
    box.work(["a"])

    assert (STORE, box.ledger.key_states.count_dirty(), box.ledger.disputes.unresolved(10)) == ({}, 0, [])


def test_a_file_that_is_gone_for_the_file_host_is_not_sent_by_a_box_that_still_sees_it(box: Workbench, tree: Path) -> None:
    (tree / "a").write_text("before")
    STORE["a"] = b"object"
    box.ledger.claims.mark([("a", GONE)])
    worker = box.worker()
    for _ in range(MANY_TRIES):
        box.work(["a"], worker)
        (tree / "a").rename(tree.parent / "a")
        assert resolve(box) == []
        (tree.parent / "a").rename(tree / "a")
        make_due(box)

    assert (STORE, Recording.operations) == ({"a": b"object"}, [])
    (tree / "a").unlink()
    box.work(["a"], worker)
    assert (STORE, box.ledger.key_states.count_dirty()) == ({}, 0)


def test_a_change_without_an_event_is_sent_when_the_file_host_has_seen_it_too(box: Workbench, tree: Path) -> None:
    write(tree / "a", "content", 1_800_000_000)
    box.ledger.claims.mark([("a", seen())])
    box.work(["a"])
    assert STORE == {}

    assert resolve(box) == ["a"]
    write(tree / "a", "and more", 1_800_000_100)  # it goes on changing
    box.work(["a"])

    assert (STORE, box.ledger.key_states.count_dirty()) == ({"a": b"and more"}, 0)


CANNOT_SAY = {
    "before the first scan": {"has_scanned": False},
    "while the source is another directory": {"in_doubt": True},
    "the root is not the directory that it was": {"swapped": True},
}


@pytest.mark.parametrize("when", CANNOT_SAY)
def test_the_file_host_does_not_report_a_file_as_gone_that_may_be_hidden(box: Workbench, tree: Path, when: str) -> None:
    box.ledger.claims.mark([("a", UNKNOWN)])
    box.work(["a"])
    options: dict = dict(CANNOT_SAY[when])
    if options.pop("in_doubt", False):
        options["in_doubt"] = (str(tree),)
    mirror = Mirror.loads(box.definition)
    resolver = DisputeResolver(box.ledger.disputes, mirror.keys(), mirror.file_rules)
    identities = {str(tree): Identity(1, 1) if options.pop("swapped", False) else identity_of(str(tree))}
    trust = Trust(identities, options.pop("in_doubt", ()), has_scanned=options.pop("has_scanned", True), may_delete=True)

    assert resolver.resolve(trust) == []

    assert box.ledger.key_states.facts("a").dispute == Dispute(1, None)
    assert [disputed.key for disputed in box.ledger.disputes.unresolved(10)] == ["a"], "it is checked again"
    assert resolve(box) == ["a"]


def test_what_was_mounted_on_the_file_host_and_is_not_any_more_is_no_proof(box: Workbench, tree: Path) -> None:
    (tree / "disk").mkdir()
    box.ledger.claims.mark([("disk/a", seen())])
    box.work(["disk/a"])
    mirror = Mirror.loads(box.definition)
    resolver = DisputeResolver(box.ledger.disputes, mirror.keys(), mirror.file_rules)
    identities = {str(tree): identity_of(str(tree)), f"{tree}/disk": Identity(1, 1)}

    assert resolver.resolve(Trust(identities, (), has_scanned=True, may_delete=True)) == []

    assert box.ledger.key_states.facts("disk/a").hint == seen()
    assert resolve(box) == ["disk/a"], "where it was never mounted"


def test_what_something_was_mounted_over_is_no_proof(box: Workbench, tree: Path) -> None:
    box.ledger.claims.mark([("d/a", seen())])
    box.work(["d/a"])
    mirror = Mirror.loads(box.definition)
    asked: list[str] = []
    resolver = DisputeResolver(box.ledger.disputes, mirror.keys(), mirror.file_rules, is_certain=lambda path: bool(asked.append(path)))

    assert resolver.resolve(Trust({str(tree): identity_of(str(tree))}, (), has_scanned=True, may_delete=True)) == []

    assert asked == [f"{tree}/d/a"]
    assert box.ledger.key_states.facts("d/a").hint == seen()


def test_a_directory_that_may_not_be_read_on_the_file_host_is_no_proof(box: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    box.ledger.claims.mark([("a", seen())])
    box.work(["a"])

    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("autosync.tasks.sources.MirrorSource._lstat", fail)
        assert resolve(box) == []
    assert box.ledger.key_states.facts("a").dirty is not None


def test_while_deletions_are_withheld_a_disputed_key_is_left_to_the_scans(box: Workbench) -> None:
    STORE.update({"withheld": b"object", "confirmed before": b"object"})
    box.ledger.claims.mark([("withheld", UNKNOWN)])
    box.work(["withheld"])

    assert resolve(box, may_delete=False) == []

    assert (STORE["withheld"], box.ledger.key_states.count_dirty()) == (b"object", 0)


def test_what_the_file_host_does_not_mirror_is_kept(box: Workbench, tree: Path) -> None:
    STORE["a"] = b"object"
    box.ledger.claims.mark([("a", seen())])
    box.work(["a"])
    link_out(tree / "a")

    assert resolve(box) == []

    assert (STORE, box.ledger.key_states.count_dirty(), box.ledger.disputes.unresolved(10)) == ({"a": b"object"}, 0, [])


@pytest.mark.parametrize("what", ["marked", "claimed", "marked and disputed again"])
def test_a_resolution_has_no_effect_on_what_has_happened_since(box: Workbench, what: str) -> None:
    box.ledger.claims.mark([("a", seen())])
    worker = box.worker()
    box.work(["a"], worker)
    (disputed,) = box.ledger.disputes.unresolved(10)
    make_due(box)
    newer = seen(8, 1_700_000_001 * SECOND)
    if what == "claimed":
        assert box.ledger.claims.claim("another", worker[1].version, ["a"])
    else:
        box.ledger.claims.mark([("a", newer)])
    if what == "marked and disputed again":
        box.work(["a"], worker)

    assert box.ledger.disputes.resolve([Resolution(disputed, GONE)]) == []

    assert box.ledger.key_states.facts("a").hint == (seen() if what == "claimed" else newer)
    assert len(box.ledger.disputes.unresolved(10)) == (what != "marked")


def test_the_resolution_of_a_key_that_is_done_leaves_nothing_behind(box: Workbench, tree: Path) -> None:
    box.ledger.claims.mark([("a", seen())])
    box.work(["a"])
    (disputed,) = box.ledger.disputes.unresolved(10)
    write(tree / "a", "content", 1_700_000_000)
    make_due(box)
    box.work(["a"])

    assert box.ledger.disputes.resolve([Resolution(disputed, GONE), Resolution(disputed), Resolution(disputed, is_kept=True)]) == []

    assert STORE == {"a": b"content"}
    assert connect(box.broker).keys("autosync:{m}:[dq]*ed") == connect(box.broker).keys("autosync:{m}:unresolved") == []


def test_a_scan_that_finds_the_same_again_does_not_settle_a_dispute(box: Workbench) -> None:
    box.ledger.claims.mark([("a", seen())])
    try_often(box, "a", tries=3)

    box.ledger.claims.mark([("a", seen()._replace(rested=True, etag="x"))])
    assert box.ledger.key_states.facts("a").dispute == Dispute(3, None)

    box.ledger.claims.mark([("a", seen(8))])
    assert box.ledger.key_states.facts("a").dispute is None
    assert box.ledger.disputes.unresolved(10) == []


def test_that_a_file_is_gone_does_not_outlive_an_event_after_which_nobody_could_check(box: Workbench) -> None:
    STORE["a"] = b"object"
    box.ledger.claims.mark([("a", GONE)])
    box.ledger.claims.mark([("a", UNKNOWN)])

    box.work(["a"])

    assert STORE == {"a": b"object"}
    assert resolve(box) == ["a"]


def test_many_disputes_are_resolved_in_turns(box: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autosync.daemon.disputes._MAX_KEYS", 4)
    keys = [f"k{number}" for number in range(10)]
    box.ledger.claims.mark([(key, UNKNOWN) for key in keys])
    box.work(keys)

    assert resolve(box, has_scanned=False) == []
    resolved_keys = [resolve(box) for _ in range(3)]

    assert sorted(key for page in resolved_keys for key in page) == keys
    assert [len(one) for one in resolved_keys] == [4, 4, 2]


def test_a_mirror_that_is_forgotten_leaves_no_dispute_behind(box: Workbench) -> None:
    box.ledger.claims.mark([("a", seen())])
    box.work(["a"])
    box.ledger.disputes.unseen.write("box1@host", "does not see a", 300)
    assert connect(box.broker).exists("autosync:{m}:disputed", "autosync:{m}:unresolved", "autosync:{m}:unseen") == 3

    box.ledger.delete()

    assert connect(box.broker).keys("autosync:{m}:*") == []


# What operators read


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def confirmed(bench: Workbench, path: Path, minutes: float) -> None:
    """The file host has confirmed the file of a disputed key some minutes ago."""
    path.write_text("content")
    client, names = connect(bench.broker), bench.ledger._store.names
    client.hset(names.disputed, "a", f"1 {int((client.time()[0] - minutes * 60) * 1000)}")
    path.unlink()


def test_five_minutes_after_the_file_host_has_confirmed_a_file_operators_read_which_box_does_not_see_it(
    box: Workbench, tree: Path, commands: Commands, caplog: pytest.LogCaptureFixture
) -> None:
    worker = box.worker()
    box.ledger.claims.mark([("a", seen())])

    def outputs() -> tuple[str, str]:
        texts = [commands.run("autosync-ctl", f"--broker={box.broker}", word).stdout for word in ("status", "doctor")]
        return texts[0], texts[1]

    for minutes in (0, 4.9):
        box.work(["a"], worker)
        confirmed(box, tree / "a", minutes)
        make_due(box)
    box.work(["a"], worker)
    assert not any("does not see" in text for text in outputs())

    for _ in range(3):
        confirmed(box, tree / "a", 5.1)
        make_due(box)
        box.work(["a"], worker)

    what = f"box1@host does not see {tree}/a below {tree}"
    status, doctor = outputs()
    assert "\n  attention   worker box1@host does not see /" in status
    assert "  disputed    1 of them: " in status
    assert "workers: box1@host does not see /" in doctor
    (found,) = json.loads(commands.run("autosync-ctl", f"--broker={box.broker}", "status", "--json").stdout)
    assert (found["disputed"], found["unseen_by"]) == (1, {"box1@host": f"does not see {tree}/a below {tree}"})
    assert [record.getMessage().partition(";")[0] for record in caplog.records if record.levelname == "WARNING"] == [f"worker {what}"]
    why = commands.run("autosync-ctl", f"--broker={box.broker}", "why", "a").stdout
    assert "  state       not watched: " in why
    assert "confirmed it 5 min ago" in why
    assert "  not seen    " in why

    write(tree / "a", "content", 1_700_000_000)
    make_due(box)
    box.work(["a"], worker)
    assert box.ledger.disputes.unseen.read() == {}
    assert not any("does not see" in text or "disputed" in text for text in outputs())


class Notes:
    """In the place of the ledger's."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def write(self, worker: str, text: str, seconds: float) -> None:
        self.calls.append(text)

    def remove(self, worker: str) -> None:
        self.calls.append("removed")


def test_a_box_that_sees_nothing_is_reported_also_where_another_one_sends_its_files_at_once(caplog: pytest.LogCaptureFixture) -> None:
    clock, notes = Clock(), Notes()
    files = UnseenFiles(clock)

    def publish() -> list[str]:
        files.publish(notes, "box2@host", {})  # type: ignore[arg-type]
        calls, notes.calls = notes.calls, []
        return calls

    for number in range(int(unseen.REPORT_AFTER)):
        files.add(f"/s/{number}", f"does not see /s/{number}", confirmed_for=0.5)
        files.discard("/s/another that this box has seen")
        assert publish() == []
        clock.now += 1
    files.add("/s/x", "does not see /s/x", confirmed_for=0.5)
    assert publish() == ["does not see /s/x"]

    written = 0
    for _ in range(600):
        clock.now += 1
        files.add("/s/y", "does not see /s/y", confirmed_for=0.5)
        written += len(publish())
    assert written == 20, "once in half a minute"
    assert 10 <= len(caplog.records) <= 11, "once a minute"

    files.discard("/s/3")
    assert publish() == ["removed"]
    assert publish() == []
    files.add("/s/z", "does not see /s/z", confirmed_for=0.5)
    assert publish() == []


# Who is the file host


def test_a_process_with_another_mount_namespace_is_an_upload_box(monkeypatch: pytest.MonkeyPatch) -> None:
    here = boot_id.file_view()
    boot, _, namespace = here.partition(" ")
    assert (boot, namespace) == (boot_id.boot_id(), os.readlink("/proc/self/ns/mnt"))

    assert boot_id.has_file_view(here)
    assert boot_id.has_file_view(boot), "a definition of an earlier version"
    assert not boot_id.has_file_view(f"{boot} mnt:[1]")
    assert not boot_id.has_file_view(f"another {namespace}")
    assert not boot_id.has_file_view("another")
    monkeypatch.setattr(boot_id, "_mount_namespace", lambda: "")
    assert boot_id.file_view() == boot
    assert not boot_id.has_file_view(here), "who does not know is a box"


def test_a_container_on_the_file_host_has_no_verdict(make: Callable[..., Workbench]) -> None:
    bench = make(host=f"{boot_id.boot_id()} mnt:[1]")
    STORE["a"] = b"object"
    bench.ledger.claims.mark([("a", UNKNOWN)])

    bench.work(["a"])

    assert (STORE, bench.ledger.key_states.count_dirty()) == ({"a": b"object"}, 1)
