"""Quiet time and folding, on a clock that the tests wind by hand."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from autosync.model.change import LOOK_EVERYWHERE, Change, Kind
from autosync.model.file_state import FileState
from autosync.watch import debounce as module
from autosync.watch.debounce import LOOK_DELAY, MOST_LOOKS, MOST_PATIENCE, Debouncer, Pending, ScanRequest

QUIET = 1.0
NUMBERS = itertools.count()


class Clock:
    """Stands still unless it is wound."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settle(clock: Clock) -> Debouncer:
    return Debouncer(QUIET, clock)


def taken(settle: Debouncer) -> list[Pending]:
    """What is due now. `take` waits on the real clock if there is nothing, so there is always one thing more."""
    bell = f"/bell/{next(NUMBERS)}"
    settle.say([Change(Kind.SAVED, bell)])
    return [one for one in settle.take() if one.path != bell]


def names(pending: Iterable[Pending]) -> list[str]:
    return [one.path for one in pending]


# Files

@pytest.mark.parametrize("kind", [Kind.SAVED, Kind.DELETED])
def test_a_change_after_quiet_goes_at_once(settle: Debouncer, clock: Clock, kind: Kind) -> None:
    settle.say([Change(kind, "/f")])

    assert settle.take() == [Pending("/f", clock.now, clock.now, kind)]
    assert settle.is_idle()


def test_a_file_saved_again_within_the_quiet_time_goes_when_it_is_over(settle: Debouncer, clock: Clock) -> None:
    settle.say([Change(Kind.SAVED, "/f")])
    settle.take()

    clock.now += QUIET / 2
    settle.say([Change(Kind.SAVED, "/f")])
    early = taken(settle)
    clock.now += QUIET
    late = settle.take()

    assert early == []
    assert names(late) == ["/f"]


def test_a_thousand_saves_become_few_and_the_last_is_among_them(settle: Debouncer, clock: Clock) -> None:
    sent = []
    begin = clock.now
    for number in range(1000):
        clock.now = begin + number / 100
        settle.say([Change(Kind.SAVED, "/f")])
        sent += [clock.now for _ in taken(settle)]
    last_save = clock.now
    clock.now += 2 * QUIET
    sent += [clock.now for _ in taken(settle)]

    assert 2 <= len(sent) <= 12
    assert sent[0] == begin
    assert sent[-1] >= last_save


def test_a_file_that_never_rests_goes_all_the_same(clock: Clock) -> None:
    settle = Debouncer(10 * MOST_PATIENCE, clock)
    settle.say([Change(Kind.SAVED, "/f")])
    settle.take()
    began = clock.now
    sent: list[Pending] = []

    while not sent:
        assert clock.now < began + 2 * MOST_PATIENCE
        clock.now += 1
        settle.say([Change(Kind.SAVED, "/f")])
        sent = taken(settle)

    assert clock.now >= began + MOST_PATIENCE


def test_a_file_that_was_sent_though_it_never_rests_comes_back_and_nobody_waits_for_it(settle: Debouncer, clock: Clock) -> None:
    settle.come_back("/f", "as it was")
    assert settle.is_idle()
    assert settle.is_through()

    clock.now += MOST_PATIENCE - 1
    assert taken(settle) == []
    clock.now += 1
    assert settle.take() == [Pending("/f", clock.now - MOST_PATIENCE, clock.now, Kind.APPEARED, "as it was")]

    settle.come_back("/f", "as it was")
    settle.say([Change(Kind.SAVED, "/f")])
    clock.now += 2 * MOST_PATIENCE
    assert taken(settle) == [Pending("/f", clock.now - 2 * MOST_PATIENCE, clock.now - 2 * MOST_PATIENCE, Kind.SAVED)]

    settle.come_back("/f", "as it was")
    settle.close()
    assert settle.take() == []


def test_whoever_waits_for_files_is_woken_for_one_that_comes_back() -> None:
    settle = Debouncer(0.0, patience=0.05)
    settle.come_back("/f", "as it was")

    assert names(settle.take()) == ["/f"]


def test_many_changes_of_one_file_are_one(settle: Debouncer) -> None:
    settle.say([Change(Kind.CREATED, "/f"), Change(Kind.SAVED, "/f"), Change(Kind.SAVED, "/f"), Change(Kind.DELETED, "/f")])

    assert [(one.path, one.kind) for one in settle.take()] == [("/f", Kind.DELETED)]
    assert settle.is_idle()


@pytest.mark.parametrize("kind", [Kind.CREATED, Kind.APPEARED])
def test_a_file_that_somebody_may_write_to_waits_and_goes_as_soon_as_it_is_closed(settle: Debouncer, clock: Clock, kind: Kind) -> None:
    settle.say([Change(kind, "/f")])
    waiting = taken(settle)
    clock.now += QUIET / 2
    settle.say([Change(Kind.SAVED, "/f")])

    assert waiting == []
    assert [(one.path, one.kind, one.is_closed) for one in taken(settle)] == [("/f", Kind.SAVED, True)]
    clock.now += 10 * QUIET
    assert taken(settle) == []


@pytest.mark.parametrize("kind", [Kind.CREATED, Kind.APPEARED])
def test_a_file_that_is_not_closed_is_shown_after_the_quiet_time_as_not_closed(settle: Debouncer, clock: Clock, kind: Kind) -> None:
    settle.say([Change(kind, "/f")])
    clock.now += QUIET

    (shown,) = settle.take()

    assert (shown.path, shown.kind, shown.is_closed) == ("/f", kind, False)


@pytest.mark.parametrize("later", [Kind.CREATED, Kind.APPEARED])
def test_a_file_that_was_closed_does_not_wait_again_for_being_seen(settle: Debouncer, later: Kind) -> None:
    settle.say([Change(Kind.SAVED, "/f"), Change(later, "/f")])

    assert [(one.path, one.kind) for one in settle.take()] == [("/f", Kind.SAVED)]
    assert settle.is_idle()


def test_a_file_whose_close_will_be_seen_is_not_taken_for_one_that_was_found(settle: Debouncer, clock: Clock) -> None:
    settle.say([Change(Kind.CREATED, "/f"), Change(Kind.APPEARED, "/f")])
    clock.now += QUIET

    assert [one.kind for one in settle.take()] == [Kind.CREATED]


def test_a_postponed_file_comes_again_later_and_keeps_its_age(settle: Debouncer, clock: Clock) -> None:
    settle.say([Change(Kind.CREATED, "/f")])
    since = clock.now
    clock.now += QUIET
    (shown,) = settle.take()

    settle.postpone(shown)
    early = taken(settle)
    clock.now += QUIET

    assert early == []
    assert settle.take() == [Pending("/f", since, clock.now, Kind.CREATED)]


def test_a_change_that_came_meanwhile_is_stronger_than_a_postponed_file(settle: Debouncer, clock: Clock) -> None:
    settle.say([Change(Kind.APPEARED, "/f")])
    clock.now += QUIET
    (shown,) = settle.take()

    settle.say([Change(Kind.DELETED, "/f")])
    settle.postpone(shown)
    clock.now += 10 * QUIET

    assert [(one.path, one.kind) for one in settle.take()] == [("/f", Kind.DELETED)]
    assert settle.is_idle()


def test_a_file_that_a_look_found_comes_after_the_quiet_time_with_what_was_seen_of_it(settle: Debouncer, clock: Clock) -> None:
    sight = FileState(1, 2, 3.0, clock.now)
    settle.wait_for_rest("/f", sight, "etag")
    early = taken(settle)
    clock.now += QUIET
    (first,) = settle.take()
    settle.postpone(first, sight)
    clock.now += QUIET

    assert early == []
    assert [(one.path, one.kind, one.sight, one.etag, one.since) for one in (first, *settle.take())] == [
        ("/f", Kind.APPEARED, sight, "etag", 1000.0)
    ] * 2


def test_a_change_is_stronger_than_what_a_look_found(settle: Debouncer, clock: Clock) -> None:
    settle.say([Change(Kind.SAVED, "/f")])
    settle.wait_for_rest("/f", FileState(1, 2, 3.0, clock.now), "etag")

    assert settle.take() == [Pending("/f", clock.now, clock.now, Kind.SAVED)]


def test_too_many_files_that_a_look_found_become_a_look(settle: Debouncer, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PENDING", 10)
    for number in range(11):
        settle.wait_for_rest(f"/f{number}", FileState(1, 2, 3.0, clock.now), "")

    assert settle.take_look() == ScanRequest("")
    clock.now += QUIET
    assert taken(settle) == []


def test_at_most_as_many_are_taken_as_asked_for_and_the_oldest_first(settle: Debouncer, clock: Clock) -> None:
    for name in "cab":
        settle.say([Change(Kind.SAVED, f"/{name}")])
        clock.now += 0.1

    assert names(settle.take(2)) == ["/c", "/a"]
    assert names(settle.take(2)) == ["/b"]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([kind for kind in Kind if kind not in (Kind.LOOK, Kind.LEFT)]), st.sampled_from(["/a", "/b", "/c"])),
        st.sampled_from([0.0, 0.1, QUIET / 2, QUIET, 3 * QUIET]),
        st.just("postpone"),
    ),
    max_size=40,
)


@hypothesis_settings(deadline=None, max_examples=300)
@given(OPERATIONS)
def test_every_change_is_taken_after_it_was_said(operations: list[tuple[Kind, str] | float | str]) -> None:
    clock = Clock()
    settle = Debouncer(QUIET, clock)
    unseen: set[str] = set()

    for operation in [*operations, 3 * QUIET, 3 * QUIET]:
        if isinstance(operation, tuple):
            settle.say([Change(*operation)])
            unseen.add(operation[1])
        elif isinstance(operation, float):
            clock.now += operation
            unseen -= set(names(taken(settle)))
        else:
            for one in taken(settle):
                settle.postpone(one)
                unseen.add(one.path)

    assert not unseen
    assert settle.is_idle()


# Looks

def looks(settle: Debouncer, clock: Clock) -> list[str | None]:
    """Every look that is said until now."""
    clock.now += LOOK_DELAY
    found = []
    while not settle.is_idle():
        taken_look = settle.take_look()
        found.append(taken_look and taken_look.path)
    return found


def look(settle: Debouncer, *paths: str) -> None:
    settle.say([Change(Kind.LOOK, path) for path in paths])


@pytest.mark.parametrize(
    ("said", "left"),
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
def test_a_look_swallows_those_below_it(settle: Debouncer, clock: Clock, said: list[str], left: list[str]) -> None:
    look(settle, *said)

    assert looks(settle, clock) == left


def test_a_look_at_what_has_left_and_an_ordinary_one_stand_beside_each_other(settle: Debouncer, clock: Clock) -> None:
    """One of them may delete as much as it finds gone, the other may not."""
    settle.say([Change(Kind.LOOK, "/s"), Change(Kind.LEFT, "/s/a/b"), Change(Kind.LEFT, "/s/a"), Change(Kind.LOOK, "")])
    clock.now += LOOK_DELAY

    assert [settle.take_look(), settle.take_look()] == [ScanRequest("/s/a", seen_leaving=True), ScanRequest("")]
    assert settle.is_idle()


def test_too_many_looks_beside_one_everywhere_become_that_one(settle: Debouncer, clock: Clock) -> None:
    look(settle, "")
    settle.say([Change(Kind.LEFT, f"/s/{number}") for number in range(MOST_LOOKS)])

    assert looks(settle, clock) == [""]


def test_a_look_waits_a_little_for_others_to_fold_into_and_one_everywhere_does_not(settle: Debouncer, clock: Clock) -> None:
    look(settle, "/s/a/b")
    clock.now += LOOK_DELAY * 0.9
    look(settle, "/s/a")
    clock.now += LOOK_DELAY * 0.2
    look(settle, "/t")

    assert not settle.is_idle()
    assert looks(settle, clock) == ["/s/a", "/t"]

    settle.say([LOOK_EVERYWHERE])
    assert settle.take_look() == ScanRequest("")


@pytest.mark.parametrize(("place", "common"), [("/s/d/{}", "/s/d"), ("/s/d{}/x", "/s"), ("/{}", "/")])
def test_too_many_looks_become_one_at_the_directory_they_have_in_common(settle: Debouncer, clock: Clock, place: str, common: str) -> None:
    look(settle, *(place.format(number) for number in range(MOST_LOOKS)))
    assert len(looks(settle, clock)) == MOST_LOOKS

    look(settle, *(place.format(number) for number in range(MOST_LOOKS + 1)))
    assert looks(settle, clock) == [common]


def test_a_look_does_not_hide_the_files_below_it(settle: Debouncer, clock: Clock) -> None:
    settle.say([Change(Kind.LOOK, "/s"), Change(Kind.SAVED, "/s/f")])

    assert names(settle.take()) == ["/s/f"]
    clock.now += LOOK_DELAY
    assert settle.take_look() == ScanRequest("/s")


# Bounds

def test_too_many_files_become_one_look_everywhere(settle: Debouncer, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PENDING", 10)

    settle.say([Change(Kind.APPEARED, f"/{number}") for number in range(10)])
    clock.now += QUIET
    assert len(settle.take()) == 10
    assert settle.is_idle()

    settle.say([Change(Kind.APPEARED, f"/{number}") for number in range(11)])
    settle.say([Change(Kind.SAVED, "/after")])
    assert settle.take_look() == ScanRequest("")
    assert names(settle.take()) == ["/after"]
    assert settle.is_idle()


@pytest.mark.parametrize("files", [1, 20_000])
def test_a_storm_needs_no_more_memory_while_nobody_takes(
    settle: Debouncer, clock: Clock, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    """The broker may be away for an hour, and then nobody does."""
    monkeypatch.setattr(module, "MOST_PENDING", 100)
    settle.say([Change(Kind.SAVED, "/0")])
    settle.take()
    numbers = itertools.count()

    def save(times: int) -> None:
        for _ in range(times):
            clock.now += 0.01
            settle.say([Change(Kind.SAVED, f"/{next(numbers) % files}")])

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


class Taker(threading.Thread):
    """Takes until it is let go."""

    def __init__(self, settle: Debouncer, postpones: bool = False) -> None:
        super().__init__(daemon=True)
        self.files: list[str] = []
        self._settle = settle
        self.postpones = postpones
        self.start()

    def run(self) -> None:
        while pending := self._settle.take():
            self.files += names(pending)
            for one in pending if self.postpones else ():
                self._settle.postpone(one)

    def has_ended(self) -> bool:
        self.join(LIMIT)
        return not self.is_alive()


def test_closing_lets_those_go_who_wait() -> None:
    settle = Debouncer(QUIET)
    taker = Taker(settle)
    looked: list[str | None] = []
    looker = threading.Thread(target=lambda: looked.append(settle.take_look()), daemon=True)
    looker.start()

    settle.close()
    looker.join(LIMIT)

    assert taker.has_ended()
    assert taker.files == []
    assert looked == [None]


def test_closing_makes_due_what_is_pending_and_drops_looks() -> None:
    settle = Debouncer(3600)
    settle.say([Change(Kind.APPEARED, "/b"), Change(Kind.CREATED, "/a"), Change(Kind.LOOK, "/s")])

    settle.close()
    taker = Taker(settle)

    assert taker.has_ended()
    assert sorted(taker.files) == ["/a", "/b"]
    assert settle.take_look() is None


def test_what_is_postponed_after_closing_is_left_to_the_next_start() -> None:
    settle = Debouncer(0.0)
    settle.say([Change(Kind.CREATED, "/being-written")])

    settle.close()
    taker = Taker(settle, postpones=True)
    ended = taker.has_ended()
    taker.postpones = False  # let it go if it did not end

    assert ended
    assert taker.files == ["/being-written"]


def test_one_who_waits_is_woken_by_what_is_said() -> None:
    settle = Debouncer(0.01)
    taker = Taker(settle)
    looked: list[ScanRequest | None] = []
    looker = threading.Thread(target=lambda: looked.append(settle.take_look()), daemon=True)
    looker.start()

    settle.say([Change(Kind.APPEARED, "/f")])
    settle.say([Change(Kind.LOOK, "/s")])
    looker.join(LIMIT)
    settle.close()

    assert taker.has_ended()
    assert taker.files == ["/f"]
    assert looked == [ScanRequest("/s")]


def test_what_many_threads_say_is_taken_to_the_last() -> None:
    settle = Debouncer(0.0)
    taker = Taker(settle)

    def say(thread: int) -> None:
        for number in range(200):
            settle.say([Change(Kind.SAVED, f"/{thread}/{number}")])

    threads = [threading.Thread(target=say, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    settle.close()

    assert taker.has_ended()
    assert sorted(taker.files) == sorted(f"/{thread}/{number}" for thread in range(4) for number in range(200))


# What has passed

def test_a_passage_is_over_when_what_was_said_before_it_is_dealt_with(settle: Debouncer) -> None:
    assert settle.passage()(), "nothing was said"

    settle.say([Change(Kind.SAVED, "/f")])
    is_through = settle.passage()
    assert not is_through(), "it waits"
    settle.take()
    assert not is_through(), "it is being dealt with"
    settle.say([Change(Kind.SAVED, "/later")])
    settle.take()

    assert is_through()
    assert not settle.passage()(), "what came later is another's business"


def test_a_passage_waits_for_quiet_time_and_not_for_what_is_said_later(settle: Debouncer, clock: Clock) -> None:
    settle.say([Change(Kind.APPEARED, "/f")])
    is_through = settle.passage()
    clock.now += QUIET / 2
    for number in range(3):
        settle.say([Change(Kind.SAVED, f"/other/{number}")])
        assert names(taken(settle)) == [f"/other/{number}"]
        assert not is_through()

    clock.now += QUIET
    assert names(settle.take()) == ["/f"]
    assert not is_through()
    settle.say([Change(Kind.SAVED, "/later")])
    settle.take()

    assert is_through()


def test_a_passage_does_not_wait_for_a_file_that_was_never_closed(settle: Debouncer) -> None:
    settle.say([Change(Kind.CREATED, "/open")])

    assert settle.passage()()


def test_a_passage_waits_for_looks_and_what_they_were_folded_into(settle: Debouncer, clock: Clock) -> None:
    settle.say([Change(Kind.LOOK, "/d")])
    is_through = settle.passage()
    settle.say([LOOK_EVERYWHERE])
    clock.now += LOOK_DELAY
    assert not is_through()

    assert settle.take_look() == ScanRequest("")
    assert not is_through(), "it is under way"
    settle.say([Change(Kind.LOOK, "/e")])
    assert not is_through()

    clock.now += LOOK_DELAY
    settle.take_look()
    assert is_through()
