"""Sorting on disk gives what sorting in memory gives, in bounded memory, and leaves nothing behind."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosync.source import external_sort as module
from autosync.source.external_sort import Spool, disksort
from lab.descriptors import Descriptor, descriptors, opened_since

KEYS = st.one_of(st.sampled_from(["a", "a/b", "a-b", "a0", "", "\udcff", "é", "😀", "\n"]), st.binary(max_size=3).map(os.fsdecode))
VALUES = st.one_of(st.none(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=3), st.binary(max_size=3))


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows a page and few runs a merge, so that a small test goes all the ways of a large one."""
    monkeypatch.setattr(module, "_PAGE", 8)
    monkeypatch.setattr(module, "_FAN_IN", 4)


@settings(deadline=None, max_examples=200)
@given(rows=st.lists(st.tuples(KEYS, VALUES), max_size=60), in_memory=st.integers(1, 70), page=st.integers(1, 4), fan_in=st.integers(2, 5))
def test_it_returns_what_sorted_returns_and_is_stable(
    rows: list[tuple[str, Any]], in_memory: int, page: int, fan_in: int
) -> None:
    numbered = [(key, value, number) for number, (key, value) in enumerate(rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAGE", page)
        patch.setattr(module, "_FAN_IN", fan_in)

        assert list(disksort(iter(numbered), None, in_memory)) == sorted(numbered, key=itemgetter(0))


def test_keys_of_bytes_are_sorted_too() -> None:
    rows = [(os.urandom(3), number) for number in range(1000)]

    assert list(disksort(rows, None, 64)) == sorted(rows, key=itemgetter(0))


def test_names_that_are_not_utf8_survive_the_disk() -> None:
    rows = [(os.fsdecode(bytes([byte])), byte) for byte in range(255, 0, -1)]

    found = list(disksort(rows, None, 10))

    assert [os.fsencode(name) for name, _ in found] == [bytes([byte]) for _, byte in found]
    assert found == sorted(rows)


def test_no_more_rows_than_allowed_are_in_memory_at_a_time(small_steps: None) -> None:
    def rows(count: int) -> Iterator[tuple[str, bytes]]:
        for number in range(count):
            yield f"{number * 7919 % count:08}", bytes(1000)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            last, seen = "", 0
            for key, _ in disksort(rows(count), None, 200):
                assert key >= last
                last, seen = key, seen + 1
            assert seen == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # 200 rows of 1,000 bytes and their pages; all 10,000 would be 10 MB.
    assert peak(10_000) < 1_000_000


@pytest.mark.usefixtures("small_steps")
class TestWhatIsLeft:
    """Runs have no name while they are there, and are gone afterwards."""

    @pytest.fixture
    def begun(self, tmp_path: Path) -> tuple[Path, set[Descriptor], Iterator[Any]]:
        before = descriptors()
        spill = tmp_path / "spill"
        spill.mkdir()
        return spill, before, disksort(((number % 97, number) for number in range(500)), str(spill), 20)

    def test_the_runs_are_in_the_directory_without_a_name(self, begun: tuple[Path, set[Descriptor], Iterator[Any]]) -> None:
        spill, before, rows = begun

        next(rows)

        assert any(one.what.startswith(str(spill)) for one in opened_since(before))
        assert list(spill.iterdir()) == []

    def test_no_more_runs_are_open_than_are_merged_at_a_time(self, begun: tuple[Path, set[Descriptor], Iterator[Any]]) -> None:
        _, before, rows = begun

        next(rows)

        assert 1 <= len(opened_since(before)) <= 4

    def test_nothing_is_left_when_all_was_read(self, begun: tuple[Path, set[Descriptor], Iterator[Any]]) -> None:
        spill, before, rows = begun

        assert len(list(rows)) == 500

        assert opened_since(before) == set()
        assert list(spill.iterdir()) == []

    def test_nothing_is_left_when_the_reader_stops_early(self, begun: tuple[Path, set[Descriptor], Iterator[Any]]) -> None:
        spill, before, rows = begun
        next(rows)

        rows.close()  # type: ignore[attr-defined]

        assert opened_since(before) == set()
        assert list(spill.iterdir()) == []


def test_nothing_is_left_when_the_rows_fail(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[int]]:
        for number in range(100):
            yield (number,)
        raise LookupError("the listing broke off")

    before = descriptors()

    with pytest.raises(LookupError):
        list(disksort(rows(), str(tmp_path), 10))

    assert opened_since(before) == set()
    assert list(tmp_path.iterdir()) == []


def test_what_fits_into_memory_needs_no_disk(tmp_path: Path) -> None:
    assert list(disksort([(2,), (1,)], str(tmp_path / "missing"), 3)) == [(1,), (2,)]


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(disksort([(2,), (1,)], str(tmp_path / "missing"), 2))


@settings(deadline=None, max_examples=100)
@given(there=st.lists(KEYS, max_size=9), come=st.lists(KEYS, max_size=9), later=st.lists(KEYS, max_size=9), in_memory=st.integers(1, 5))
def test_a_spool_moves_the_rows_of_another_one(there: list[str], come: list[str], later: list[str], in_memory: int) -> None:
    with closing(Spool(None, in_memory)) as one, closing(Spool(None, in_memory)) as other:
        for key in there:
            one.add((key,))
        for key in come:
            other.add((key,))

        one.move_from(other)
        other.close()
        for key in later:
            one.add((key,))

        assert [key for (key,) in one] == there + come + later
        assert (len(one), len(other), list(other)) == (len(there + come + later), 0, [])
