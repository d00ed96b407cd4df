"""What waits for an operator's acceptance, as it is written, read and shown."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from autosync.cli.ctl.accept import pending_of_mirrors
from autosync.errors import StartError
from autosync.state.pending import AcceptedItems, ItemKind, PendingItem, PendingStore, consume_requests, parse, pending_in_file, request_in
from autosync.state.state_file import StateFile, requests_file
from lab.parts import lacking
from lab.servers import wait_until

ITEMS = [
    PendingItem(ItemKind.EXISTING, count=5, examples=("a", "b\udcff", "c\n"), digest="d1"),
    PendingItem(ItemKind.DELETIONS, count=1, examples=("a",)),
    PendingItem(ItemKind.ROOT, "/s/a b", 7, ("is another directory",)),
    PendingItem(ItemKind.MOUNT, "/s/m\udcff", examples=("is gone",)),
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.kind)
def test_what_was_written_is_read(item: PendingItem) -> None:
    assert parse(item.dumps()) == parse(json.loads(item.dumps())) == item


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "[]", "{}", "null", 7, None, "[" * 100_000,
        '{"kind": "new", "path": "", "count": 1, "examples": [], "digest": ""}',
        '{"kind": "root", "path": 1, "count": 1, "examples": [], "digest": ""}',
        '{"kind": "existing", "path": "", "count": "9", "examples": [], "digest": ""}',
        '{"kind": "existing", "path": "", "count": true, "examples": [], "digest": ""}',
        '{"kind": "existing", "path": "", "count": 1, "examples": [], "digest": 1}',
        '{"kind": "existing", "path": "", "count": 1, "examples": []}',
        '{"kind": "existing", "path": "", "count": 1, "examples": [1], "digest": ""}',
        '{"kind": "existing", "path": "", "count": 1, "examples": 1, "digest": ""}',
    ],
)  # fmt: skip
def test_anything_else_is_none(text: object) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (ITEMS[0], "5 keys that the target held before this mirror: a, b\\udcff, c\\n and 2 more"),
        (ITEMS[1], "1 key that is gone from the source: a"),
        (ITEMS[2], "root /s/a b is another directory; 7 keys of the target are kept for that"),
    ],
    ids=lambda one: "",
)
def test_it_is_printed_in_words(item: PendingItem, text: str) -> None:
    assert item.text() == text


def test_what_has_changed_since_it_was_listed_is_not_covered() -> None:
    listed, root = ITEMS[0], ITEMS[2]
    assert replace(listed, examples=()).is_covered_by(listed)
    assert not replace(listed, digest="d2").is_covered_by(listed), "as many keys, but others"
    assert not replace(listed, kind=ItemKind.DELETIONS).is_covered_by(listed)
    assert not replace(root, digest="d3").is_covered_by(root)
    assert not replace(root, path="/other").is_covered_by(root)


def pop_requests(requests: StateFile) -> list[PendingItem]:
    with consume_requests(requests) as found:
        return found


def test_requests_are_read_once_from_their_file(tmp_path: Path) -> None:
    requests = requests_file(tmp_path, "m")
    assert pop_requests(requests) == []

    request_in(requests, ITEMS)

    assert pop_requests(requests_file(tmp_path, "m")) == ITEMS
    assert pop_requests(requests) == []
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """As if the process had ended at this point."""


def test_requests_that_were_not_handled_to_the_end_are_read_again_before_later_ones(tmp_path: Path) -> None:
    requests = requests_file(tmp_path, "m")
    request_in(requests, ITEMS[:1])
    with pytest.raises(Killed), consume_requests(requests):
        raise Killed
    request_in(requests, ITEMS[1:])

    assert pop_requests(requests_file(tmp_path, "m")) == ITEMS[:1]
    assert pop_requests(requests_file(tmp_path, "m")) == ITEMS[1:]
    assert list(tmp_path.iterdir()) == []


def test_requests_of_a_mirror_that_is_removed_leave_nothing_behind(tmp_path: Path) -> None:
    requests = requests_file(tmp_path, "m")
    request_in(requests, ITEMS)
    with pytest.raises(Killed), consume_requests(requests):
        raise Killed
    request_in(requests, ITEMS)

    requests.remove()
    requests.remove()

    assert list(tmp_path.iterdir()) == []


def test_accepted_items_are_stored_until_they_are_removed(tmp_path: Path) -> None:
    def load() -> AcceptedItems:
        items = AcceptedItems(StateFile(tmp_path, "m"))
        items.load()
        return items

    items = load()
    assert list(items) == []
    items.add(ITEMS[:2])
    items.add(ITEMS[1:3])

    again = load()
    assert list(again) == list(items) == ITEMS[:3]
    again.remove([ITEMS[1], ITEMS[3]])
    assert list(load()) == [ITEMS[0], ITEMS[2]]
    again.remove(again)
    assert list(load()) == []


def test_a_request_does_not_replace_those_before_it(tmp_path: Path) -> None:
    requests = requests_file(tmp_path, "m")
    request_in(requests, ITEMS[:1])
    request_in(requests, [ITEMS[1], replace(ITEMS[0], count=7)])

    assert sorted(item.dumps() for item in pop_requests(requests)) == sorted(
        item.dumps() for item in (replace(ITEMS[0], count=7), ITEMS[1])
    )


def test_requests_that_root_has_written_are_those_of_the_owner_of_the_directory(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        lacking("root")
    os.chown(tmp_path, 65534, 65534)
    requests = requests_file(tmp_path, "m")

    request_in(requests, ITEMS)

    assert requests.path.stat().st_uid == 65534


class SlowLedger:
    """Part of a ledger whose first write takes long."""

    def __init__(self) -> None:
        self.written: list[set[str]] = []
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def set_pending(self, items: Mapping[str, str]) -> None:
        if not self.has_begun.is_set():
            self.has_begun.set()
            assert self.may_end.wait(20)
        self.written.append(set(items))


class CountingLock:
    """A lock that counts who has begun to wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.entered = 0

    def __enter__(self) -> None:
        self.entered += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_an_older_list_is_not_written_last(tmp_path: Path) -> None:
    """The main loop and the thread of scans write it."""
    ledger = SlowLedger()
    store = PendingStore(ledger, StateFile(tmp_path, "m"))  # type: ignore[arg-type]
    lock = store._writing = CountingLock()  # type: ignore[assignment]
    store.replace([ItemKind.EXISTING], ITEMS[:1])
    threads = [threading.Thread(target=store.write)]
    threads[0].start()
    assert ledger.has_begun.wait(20)

    store.replace([ItemKind.EXISTING], [])
    threads.append(threading.Thread(target=store.write))
    threads[1].start()
    wait_until(lambda: lock.entered == 2 or not threads[1].is_alive(), 20, "the second one waits, or has written")
    ledger.may_end.set()
    for thread in threads:
        thread.join(20)

    assert ledger.written == [{"existing"}, set()]
    assert pending_in_file(StateFile(tmp_path, "m")) == []


def test_accept_without_a_mirror_names_each_place_where_it_has_searched(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"no mirror was found below {tmp_path}; "):
        pending_of_mirrors([], None, tmp_path, None)
    with pytest.raises(StartError, match=f"no mirror is called 'm' at redis://:[*]+@host:6379/0 or below {tmp_path}; "):
        pending_of_mirrors([], "redis://:secret@host:6379/0", tmp_path, "m")
