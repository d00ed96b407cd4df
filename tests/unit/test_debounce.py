"""Quiet time and folding, on a clock that the tests set."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from autosync.model.change import SCAN_ALL, Change, Kind
from autosync.model.file_state import FileState
from autosync.watch import debounce as module
from autosync.watch.debounce import MAX_WAIT, Debouncer, UnsentChange
from autosync.watch.scan_requests import MAX_SCANS, SCAN_DELAY, ScanRequest

QUIET = 1.0
NUMBERS = itertools.count()


class Clock:
    """Stands still unless a test winds it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def debouncer(clock: Clock) -> Debouncer:
    return Debouncer(QUIET, clock)


def popped(debouncer: Debouncer) -> list[UnsentChange]:
    """What is due now. `pop_due` waits on the real clock if there is nothing, so there is always one thing more."""
    marker = f"/marker/{next(NUMBERS)}"
    debouncer.push([Change(Kind.SAVED, marker)])
    return [one for one in debouncer.pop_due() if one.path != marker]


def names(pending: Iterable[UnsentChange]) -> list[str]:
    return [one.path for one in pending]


# Files

@pytest.mark.parametrize("kind", [Kind.SAVED, Kind.DELETED])
def test_a_change_after_quiet_goes_at_once(debouncer: Debouncer, clock: Clock, kind: Kind) -> None:
    debouncer.push([Change(kind, "/f")])

    assert debouncer.pop_due() == [UnsentChange("/f", clock.now, clock.now, kind)]
    assert debouncer.is_idle()


def test_a_file_saved_again_within_the_quiet_time_goes_when_it_is_over(debouncer: Debouncer, clock: Clock) -> None:
    debouncer.push([Change(Kind.SAVED, "/f")])
    debouncer.pop_due()

    clock.now += QUIET / 2
    debouncer.push([Change(Kind.SAVED, "/f")])
    early = popped(debouncer)
    clock.now += QUIET
    late = debouncer.pop_due()

    assert early == []
    assert names(late) == ["/f"]


def test_a_thousand_saves_become_few_and_the_last_is_among_them(debouncer: Debouncer, clock: Clock) -> None:
    sent = []
    begin = clock.now
    for number in range(1000):
        clock.now = begin + number / 100
        debouncer.push([Change(Kind.SAVED, "/f")])
        sent += [clock.now for _ in popped(debouncer)]
    last_save = clock.now
    clock.now += 2 * QUIET
    sent += [clock.now for _ in popped(debouncer)]

    assert 2 <= len(sent) <= 12
    assert sent[0] == begin
    assert sent[-1] >= last_save


def test_a_file_that_never_rests_goes_all_the_same(clock: Clock) -> None:
    debouncer = Debouncer(10 * MAX_WAIT, clock)
    debouncer.push([Change(Kind.SAVED, "/f")])
    debouncer.pop_due()
    began = clock.now
    sent: list[UnsentChange] = []

    while not sent:
        assert clock.now < began + 2 * MAX_WAIT
        clock.now += 1
        debouncer.push([Change(Kind.SAVED, "/f")])
        sent = popped(debouncer)

    assert clock.now >= began + MAX_WAIT


def test_a_file_that_was_sent_though_it_never_rests_is_requeued_and_nothing_waits_for_it(debouncer: Debouncer, clock: Clock) -> None:
    debouncer.requeue_after("/f", "as it was")
    assert debouncer.is_idle()
    assert debouncer.is_drained()

    clock.now += MAX_WAIT - 1
    assert popped(debouncer) == []
    clock.now += 1
    assert debouncer.pop_due() == [UnsentChange("/f", clock.now - MAX_WAIT, clock.now, Kind.APPEARED, "as it was")]

    debouncer.requeue_after("/f", "as it was")
    debouncer.push([Change(Kind.SAVED, "/f")])
    clock.now += 2 * MAX_WAIT
    assert popped(debouncer) == [UnsentChange("/f", clock.now - 2 * MAX_WAIT, clock.now - 2 * MAX_WAIT, Kind.SAVED)]

    debouncer.requeue_after("/f", "as it was")
    debouncer.close()
    assert debouncer.pop_due() == []


def test_a_thread_that_waits_for_files_is_woken_for_one_that_was_requeued() -> None:
    debouncer = Debouncer(0.0, max_wait=0.05)
    debouncer.requeue_after("/f", "as it was")

    assert names(debouncer.pop_due()) == ["/f"]


def test_many_changes_of_one_file_are_one(debouncer: Debouncer) -> None:
    debouncer.push([Change(Kind.CREATED, "/f"), Change(Kind.SAVED, "/f"), Change(Kind.SAVED, "/f"), Change(Kind.DELETED, "/f")])

    assert [(one.path, one.kind) for one in debouncer.pop_due()] == [("/f", Kind.DELETED)]
    assert debouncer.is_idle()


@pytest.mark.parametrize("kind", [Kind.CREATED, Kind.APPEARED])
def test_a_file_that_somebody_may_write_to_waits_and_goes_as_soon_as_it_is_closed(debouncer: Debouncer, clock: Clock, kind: Kind) -> None:
    debouncer.push([Change(kind, "/f")])
    waiting = popped(debouncer)
    clock.now += QUIET / 2
    debouncer.push([Change(Kind.SAVED, "/f")])

    assert waiting == []
    assert [(one.path, one.kind, one.is_closed) for one in popped(debouncer)] == [("/f", Kind.SAVED, True)]
    clock.now += 10 * QUIET
    assert popped(debouncer) == []


@pytest.mark.parametrize("kind", [Kind.CREATED, Kind.APPEARED])
def test_a_file_that_is_not_closed_is_due_after_the_quiet_time_as_not_closed(debouncer: Debouncer, clock: Clock, kind: Kind) -> None:
    debouncer.push([Change(kind, "/f")])
    clock.now += QUIET

    (checked,) = debouncer.pop_due()

    assert (checked.path, checked.kind, checked.is_closed) == ("/f", kind, False)


@pytest.mark.parametrize("later", [Kind.CREATED, Kind.APPEARED])
def test_a_file_that_was_closed_does_not_wait_again_for_being_seen(debouncer: Debouncer, later: Kind) -> None:
    debouncer.push([Change(Kind.SAVED, "/f"), Change(later, "/f")])

    assert [(one.path, one.kind) for one in debouncer.pop_due()] == [("/f", Kind.SAVED)]
    assert debouncer.is_idle()


def test_a_file_whose_close_will_be_seen_is_not_treated_as_one_that_was_found(debouncer: Debouncer, clock: Clock) -> None:
    debouncer.push([Change(Kind.CREATED, "/f"), Change(Kind.APPEARED, "/f")])
    clock.now += QUIET

    assert [one.kind for one in debouncer.pop_due()] == [Kind.CREATED]


def test_a_requeued_file_is_due_later_and_its_age_stays(debouncer: Debouncer, clock: Clock) -> None:
    debouncer.push([Change(Kind.CREATED, "/f")])
    since = clock.now
    clock.now += QUIET
    (checked,) = debouncer.pop_due()

    debouncer.requeue(checked)
    early = popped(debouncer)
    clock.now += QUIET

    assert early == []
    assert debouncer.pop_due() == [UnsentChange("/f", since, clock.now, Kind.CREATED)]


def test_a_change_that_came_meanwhile_replaces_a_requeued_file(debouncer: Debouncer, clock: Clock) -> None:
    debouncer.push([Change(Kind.APPEARED, "/f")])
    clock.now += QUIET
    (checked,) = debouncer.pop_due()

    debouncer.push([Change(Kind.DELETED, "/f")])
    debouncer.requeue(checked)
    clock.now += 10 * QUIET

    assert [(one.path, one.kind) for one in debouncer.pop_due()] == [("/f", Kind.DELETED)]
    assert debouncer.is_idle()


def test_a_file_that_a_scan_found_is_due_after_the_quiet_time_with_its_state(debouncer: Debouncer, clock: Clock) -> None:
    file_state = FileState(1, 2, 3.0, clock.now)
    debouncer.push_unsettled("/f", file_state, "etag")
    early = popped(debouncer)
    clock.now += QUIET
    (first,) = debouncer.pop_due()
    debouncer.requeue(first, file_state)
    clock.now += QUIET

    assert early == []
    assert [(one.path, one.kind, one.file_state, one.etag, one.since) for one in (first, *debouncer.pop_due())] == [
        ("/f", Kind.APPEARED, file_state, "etag", 1000.0)
    ] * 2


def test_a_change_replaces_what_a_scan_found(debouncer: Debouncer, clock: Clock) -> None:
    debouncer.push([Change(Kind.SAVED, "/f")])
    debouncer.push_unsettled("/f", FileState(1, 2, 3.0, clock.now), "etag")

    assert debouncer.pop_due() == [UnsentChange("/f", clock.now, clock.now, Kind.SAVED)]


def test_too_many_files_that_a_scan_found_become_a_scan(debouncer: Debouncer, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNSENT", 10)
    for number in range(11):
        debouncer.push_unsettled(f"/f{number}", FileState(1, 2, 3.0, clock.now), "")

    assert debouncer.pop_scan() == ScanRequest("")
    clock.now += QUIET
    assert popped(debouncer) == []


def test_no_more_than_the_limit_are_popped_and_the_oldest_first(debouncer: Debouncer, clock: Clock) -> None:
    for name in "cab":
        debouncer.push([Change(Kind.SAVED, f"/{name}")])
        clock.now += 0.1

    assert names(debouncer.pop_due(2)) == ["/c", "/a"]
    assert names(debouncer.pop_due(2)) == ["/b"]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([kind for kind in Kind if kind not in (Kind.SCAN, Kind.LEFT)]), st.sampled_from(["/a", "/b", "/c"])),
        st.sampled_from([0.0, 0.1, QUIET / 2, QUIET, 3 * QUIET]),
        st.just("requeue"),
    ),
    max_size=40,
)


@hypothesis_settings(deadline=None, max_examples=300)
@given(OPERATIONS)
def test_every_change_is_popped_after_it_was_pushed(operations: list[tuple[Kind, str] | float | str]) -> None:
    clock = Clock()
    debouncer = Debouncer(QUIET, clock)
    unseen: set[str] = set()

    for operation in [*operations, 3 * QUIET, 3 * QUIET]:
        if isinstance(operation, tuple):
            debouncer.push([Change(*operation)])
            unseen.add(operation[1])
        elif isinstance(operation, float):
            clock.now += operation
            unseen -= set(names(popped(debouncer)))
        else:
            for one in popped(debouncer):
                debouncer.requeue(one)
                unseen.add(one.path)

    assert not unseen
    assert debouncer.is_idle()


# Scans

def scans(debouncer: Debouncer, clock: Clock) -> list[str | None]:
    """The paths of all scan requests that were pushed until now."""
    clock.now += SCAN_DELAY
    found = []
    while not debouncer.is_idle():
        request = debouncer.pop_scan()
        found.append(request and request.path)
    return found


def push_scans(debouncer: Debouncer, *paths: str) -> None:
    debouncer.push([Change(Kind.SCAN, path) for path in paths])


@pytest.mark.parametrize(
    ("pushed", "left"),
    [
        (["/s/a", "/s/a"], ["/s/a"]),
        (["/s/a", "/s/a/b/c"], ["/s/a"]),
        (["/s/a/b", "/s/a/c", "/s/b", "/s/a"], ["/s/b", "/s/a"]),
        (["/s/a", "/s/ab", "/s/a-b"], ["/s/a", "/s/ab", "/s/a-b"]),
        (["/s/ab", "/s/a-b", "/s/a"], ["/s/ab", "/s/a-b", "/s/a"]),
        (["/s/a", "/t", ""], [""]),
        (["", "/s/a"], [""]),
        (["/s", "/"], ["/"]),
    ],
)
def test_a_scan_covers_those_below_it(debouncer: Debouncer, clock: Clock, pushed: list[str], left: list[str]) -> None:
    push_scans(debouncer, *pushed)

    assert scans(debouncer, clock) == left


def test_a_scan_of_what_has_left_and_an_ordinary_one_are_not_merged(debouncer: Debouncer, clock: Clock) -> None:
    """One of them may delete as much as it finds gone, the other may not."""
    debouncer.push([Change(Kind.SCAN, "/s"), Change(Kind.LEFT, "/s/a/b"), Change(Kind.LEFT, "/s/a"), Change(Kind.SCAN, "")])
    clock.now += SCAN_DELAY

    assert [debouncer.pop_scan(), debouncer.pop_scan()] == [ScanRequest("/s/a", has_left=True), ScanRequest("")]
    assert debouncer.is_idle()


def test_too_many_scans_beside_one_of_everything_become_that_one(debouncer: Debouncer, clock: Clock) -> None:
    push_scans(debouncer, "")
    debouncer.push([Change(Kind.LEFT, f"/s/{number}") for number in range(MAX_SCANS)])

    assert scans(debouncer, clock) == [""]


def test_a_scan_waits_a_little_to_be_merged_with_others_and_one_of_everything_does_not(debouncer: Debouncer, clock: Clock) -> None:
    push_scans(debouncer, "/s/a/b")
    clock.now += SCAN_DELAY * 0.9
    push_scans(debouncer, "/s/a")
    clock.now += SCAN_DELAY * 0.2
    push_scans(debouncer, "/t")

    assert not debouncer.is_idle()
    assert scans(debouncer, clock) == ["/s/a", "/t"]

    debouncer.push([SCAN_ALL])
    assert debouncer.pop_scan() == ScanRequest("")


@pytest.mark.parametrize(("place", "common"), [("/s/d/{}", "/s/d"), ("/s/d{}/x", "/s"), ("/{}", "/")])
def test_too_many_scans_become_one_of_their_common_directory(debouncer: Debouncer, clock: Clock, place: str, common: str) -> None:
    push_scans(debouncer, *(place.format(number) for number in range(MAX_SCANS)))
    assert len(scans(debouncer, clock)) == MAX_SCANS

    push_scans(debouncer, *(place.format(number) for number in range(MAX_SCANS + 1)))
    assert scans(debouncer, clock) == [common]


def test_a_scan_does_not_hide_the_files_below_it(debouncer: Debouncer, clock: Clock) -> None:
    debouncer.push([Change(Kind.SCAN, "/s"), Change(Kind.SAVED, "/s/f")])

    assert names(debouncer.pop_due()) == ["/s/f"]
    clock.now += SCAN_DELAY
    assert debouncer.pop_scan() == ScanRequest("/s")


# Bounds

def test_too_many_files_become_one_scan_of_everything(debouncer: Debouncer, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNSENT", 10)

    debouncer.push([Change(Kind.APPEARED, f"/{number}") for number in range(10)])
    clock.now += QUIET
    assert len(debouncer.pop_due()) == 10
    assert debouncer.is_idle()

    debouncer.push([Change(Kind.APPEARED, f"/{number}") for number in range(11)])
    debouncer.push([Change(Kind.SAVED, "/after")])
    assert debouncer.pop_scan() == ScanRequest("")
    assert names(debouncer.pop_due()) == ["/after"]
    assert debouncer.is_idle()


@pytest.mark.parametrize("files", [1, 20_000])
def test_a_storm_needs_no_more_memory_while_nothing_is_popped(
    debouncer: Debouncer, clock: Clock, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    """The broker may be away for an hour, and then nobody does."""
    monkeypatch.setattr(module, "MAX_UNSENT", 100)
    debouncer.push([Change(Kind.SAVED, "/0")])
    debouncer.pop_due()
    numbers = itertools.count()

    def save(times: int) -> None:
        for _ in range(times):
            clock.now += 0.01
            debouncer.push([Change(Kind.SAVED, f"/{next(numbers) % files}")])

    tracemalloc.start()
    try:
        save(1000)
        before = tracemalloc.get_traced_memory()[0]
        save(20_000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert grown < 100_000


# The end, and threads: these run on the real clock

LIMIT = 5.0


class Popper(threading.Thread):
    """Pops files until the debouncer is closed."""

    def __init__(self, debouncer: Debouncer, requeues: bool = False) -> None:
        super().__init__(daemon=True)
        self.files: list[str] = []
        self._debouncer = debouncer
        self.requeues = requeues
        self.start()

    def run(self) -> None:
        while pending := self._debouncer.pop_due():
            self.files += names(pending)
            for one in pending if self.requeues else ():
                self._debouncer.requeue(one)

    def has_ended(self) -> bool:
        self.join(LIMIT)
        return not self.is_alive()


def test_closing_wakes_the_threads_that_wait() -> None:
    debouncer = Debouncer(QUIET)
    popper = Popper(debouncer)
    scanned: list[str | None] = []
    scanner = threading.Thread(target=lambda: scanned.append(debouncer.pop_scan()), daemon=True)
    scanner.start()

    debouncer.close()
    scanner.join(LIMIT)

    assert popper.has_ended()
    assert popper.files == []
    assert scanned == [None]


def test_closing_makes_due_what_is_pending_and_drops_scans() -> None:
    debouncer = Debouncer(3600)
    debouncer.push([Change(Kind.APPEARED, "/b"), Change(Kind.CREATED, "/a"), Change(Kind.SCAN, "/s")])

    debouncer.close()
    popper = Popper(debouncer)

    assert popper.has_ended()
    assert sorted(popper.files) == ["/a", "/b"]
    assert debouncer.pop_scan() is None


def test_what_is_requeued_after_closing_is_left_to_the_next_start() -> None:
    debouncer = Debouncer(0.0)
    debouncer.push([Change(Kind.CREATED, "/being-written")])

    debouncer.close()
    popper = Popper(debouncer, requeues=True)
    ended = popper.has_ended()
    popper.requeues = False  # let it go if it did not end

    assert ended
    assert popper.files == ["/being-written"]


def test_a_thread_that_waits_is_woken_by_what_is_pushed() -> None:
    debouncer = Debouncer(0.01)
    popper = Popper(debouncer)
    scanned: list[ScanRequest | None] = []
    scanner = threading.Thread(target=lambda: scanned.append(debouncer.pop_scan()), daemon=True)
    scanner.start()

    debouncer.push([Change(Kind.APPEARED, "/f")])
    debouncer.push([Change(Kind.SCAN, "/s")])
    scanner.join(LIMIT)
    debouncer.close()

    assert popper.has_ended()
    assert popper.files == ["/f"]
    assert scanned == [ScanRequest("/s")]


def test_what_many_threads_push_is_popped_to_the_last() -> None:
    debouncer = Debouncer(0.0)
    popper = Popper(debouncer)

    def push(thread: int) -> None:
        for number in range(200):
            debouncer.push([Change(Kind.SAVED, f"/{thread}/{number}")])

    threads = [threading.Thread(target=push, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    debouncer.close()

    assert popper.has_ended()
    assert sorted(popper.files) == sorted(f"/{thread}/{number}" for thread in range(4) for number in range(200))


# Flush checks

def test_a_flush_check_is_true_when_what_was_pushed_before_it_is_processed(debouncer: Debouncer) -> None:
    assert debouncer.flush_check()(), "nothing was pushed"

    debouncer.push([Change(Kind.SAVED, "/f")])
    is_drained = debouncer.flush_check()
    assert not is_drained(), "it waits"
    debouncer.pop_due()
    assert not is_drained(), "it is being dealt with"
    debouncer.push([Change(Kind.SAVED, "/later")])
    debouncer.pop_due()

    assert is_drained()
    assert not debouncer.flush_check()(), "what came later is another's business"


def test_a_flush_check_waits_for_quiet_time_and_not_for_what_is_pushed_later(debouncer: Debouncer, clock: Clock) -> None:
    debouncer.push([Change(Kind.APPEARED, "/f")])
    is_drained = debouncer.flush_check()
    clock.now += QUIET / 2
    for number in range(3):
        debouncer.push([Change(Kind.SAVED, f"/other/{number}")])
        assert names(popped(debouncer)) == [f"/other/{number}"]
        assert not is_drained()

    clock.now += QUIET
    assert names(debouncer.pop_due()) == ["/f"]
    assert not is_drained()
    debouncer.push([Change(Kind.SAVED, "/later")])
    debouncer.pop_due()

    assert is_drained()


def test_a_flush_check_does_not_wait_for_a_file_that_was_never_closed(debouncer: Debouncer) -> None:
    debouncer.push([Change(Kind.CREATED, "/open")])

    assert debouncer.flush_check()()


def test_a_flush_check_waits_for_scans_and_what_they_were_merged_into(debouncer: Debouncer, clock: Clock) -> None:
    debouncer.push([Change(Kind.SCAN, "/d")])
    is_drained = debouncer.flush_check()
    debouncer.push([SCAN_ALL])
    clock.now += SCAN_DELAY
    assert not is_drained()

    assert debouncer.pop_scan() == ScanRequest("")
    assert not is_drained(), "it is under way"
    debouncer.push([Change(Kind.SCAN, "/e")])
    assert not is_drained()

    clock.now += SCAN_DELAY
    debouncer.pop_scan()
    assert is_drained()
