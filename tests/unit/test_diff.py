"""Two sorted streams become the differences between them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosync import files
from autosync.compare.diff import MARGIN, Compare, Difference, KeyedFiles, Merge, Rule, in_order
from autosync.errors import OutOfOrder
from autosync.files import File, Page, paged
from autosync.source.entry import Entry, Run
from autosync.source.walk import Walk

KEYS = st.one_of(st.sampled_from(["a", "a/b", "a-b", "a0", "\udcff", "é", "😀", "\n"]), st.text(min_size=1, max_size=4))
SIDES = st.dictionaries(KEYS, st.integers(0, 3), max_size=20)


def walked(source: dict[str, int], changed: float = 100.0) -> Iterator[tuple[str, Entry]]:
    return ((key, Entry(f"/s/{key}", source[key], changed, 0, links=1)) for key in sorted(source))


def lstat(size: int, changed: float) -> os.stat_result:
    whole = int(changed)
    return os.stat_result((0, 0, 0, 1, 0, 0, size, 0, whole, whole), {"st_mtime": changed, "st_ctime": 0.0, "st_mtime_ns": 0})


def in_runs(source: dict[str, int], changed: float = 100.0, most: int = 3) -> Iterator[KeyedFiles]:
    """The same, as the walk gives files that follow one another."""
    keys = sorted(source)
    for start in range(0, len(keys), most):
        some = keys[start : start + most]
        yield some, Run("/s/", some, [lstat(source[key], changed) for key in some], 0.0)


def listed(target: dict[str, int], mtime: float = 1000.0, most: int = 1000) -> Iterator[Page]:
    files = [File(key, target[key], mtime, "etag") for key in sorted(target)]
    return (page for start in range(0, len(files), most) for page in paged(files[start : start + most]))


def compare(source: Iterable[KeyedFiles], target: Iterable[Page], rule: Rule) -> Iterator[Difference]:
    return iter(Merge(source, target, rule))


@settings(deadline=None, max_examples=300)
@given(SIDES, SIDES)
def test_a_target_to_which_the_differences_are_applied_equals_the_source(source: dict[str, int], target: dict[str, int]) -> None:
    differences = list(compare(walked(source), in_order(listed(target)), Rule()))

    after = dict(target)
    for difference in differences:
        if difference.found is None:
            del after[difference.key]
        else:
            after[difference.key] = difference.found.size
    assert after == source


@settings(deadline=None, max_examples=300)
@given(SIDES, SIDES, st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_files_together_have_the_differences_that_they_have_one_by_one(
    source: dict[str, int], target: dict[str, int], run: int, page: int, old: bool
) -> None:
    """Also where most of them are equal, which random ones are not."""
    for theirs in (target, source | target, source):
        made = 50.0 if old else 1000.0
        together = Merge(in_runs(source, most=run), in_order(listed(theirs, made, page)), Rule())
        one_by_one = Merge(walked(source), in_order(listed(theirs, made)), Rule())

        assert list(together) == list(one_by_one)
        assert together.listed == one_by_one.listed == len(theirs)


@pytest.mark.parametrize("by", Compare)
@given(
    times=st.lists(st.tuples(st.integers(95, 110), st.integers(95, 110)), min_size=1, max_size=4),
    last_in_sync=st.integers(90, 115),
    ahead=st.integers(-3, 3),
)
def test_files_are_equal_together_only_if_each_is(by: Compare, times: list[tuple[int, int]], last_in_sync: int, ahead: int) -> None:
    rule = Rule(by, last_in_sync, ahead, lambda _: True)
    page = Page(["k"] * len(times), [1] * len(times), [float(made) for _, made in times], [None] * len(times))

    if rule.are_equal(max(changed for changed, _ in times), page.times):
        assert not any(rule.differ(1, changed, page, number)[0] for number, (changed, _) in enumerate(times))


@settings(deadline=None, max_examples=300)
@given(SIDES, SIDES)
def test_each_difference_is_found_once_in_order_and_nothing_else_is(source: dict[str, int], target: dict[str, int]) -> None:
    differences = list(compare(walked(source), in_order(listed(target)), Rule()))

    assert [one.key for one in differences] == sorted({key for key in {*source, *target} if source.get(key) != target.get(key)})
    assert all(one.listed == (one.key in target) for one in differences)


def test_a_difference_has_what_is_on_the_disk() -> None:
    source = {"new": 1, "other size": 2, "same": 3}
    target = {"gone": 1, "other size": 9, "same": 3}

    new, other, same = (found for _, found in walked(source))
    differences = list(compare([("new", new), ("other size", other), ("same", same)], listed(target), Rule()))

    gone, sized = Difference("gone", None, listed=True), Difference("other size", other, listed=True)
    assert differences == [gone, Difference("new", new, listed=False), sized]


# Equal sizes: (changed, mtime of the object, last_in_sync) -> suspect

@pytest.mark.parametrize(
    ("changed", "made", "last_in_sync", "suspect"),
    [
        (100, 103, 0, False),
        (100, 102, 0, True),
        (100, 100, 0, True),
        (100, 50, 0, True),
        # a scan that began at `last_in_sync` left everything right, and neither side has changed since
        (100, 101, 104, False),
        (100, 50, 200, False),
        (100, 101, 103, True),
        (100, 101, 102, True),
        (199, 50, 200, True),
        (198.5, 199.5, 200, True),
        (100, 199, 200, False),
        (199, 100, 50, True),
    ],
)
def test_an_object_of_equal_size_is_suspect_unless_it_is_newer_or_settled(
    changed: float, made: float, last_in_sync: float, suspect: bool
) -> None:
    assert MARGIN == 2.0, "the table is written for this margin"

    differences = list(compare(walked({"k": 1}, changed), listed({"k": 1}, made), Rule(last_in_sync=last_in_sync)))

    assert [difference.key for difference in differences] == (["k"] if suspect else [])


@pytest.mark.parametrize(
    ("by", "size", "changed", "can_match", "differs"),
    [
        (Compare.SIZE, 1, 2000, True, False),
        (Compare.SIZE, 2, 100, True, True),
        (Compare.TIME, 1, 100, True, False),
        (Compare.TIME, 1, 2000, False, True),
        (Compare.CHECKSUM, 1, 100, True, True),
        (Compare.CHECKSUM, 1, 100, False, False),
        (Compare.CHECKSUM, 1, 2000, False, True),
    ],
)
def test_the_rule_decides_what_is_compared(by: Compare, size: int, changed: float, can_match: bool, differs: bool) -> None:
    rule = Rule(by, can_match=lambda _: can_match)

    assert [one.key for one in compare(walked({"k": size}, changed), listed({"k": 1}, 1000), rule)] == (["k"] if differs else [])


@pytest.mark.parametrize("ahead", [-3600.0, -5.0, 0.0, 5.0, 3600.0])
def test_the_difference_of_the_clocks_is_allowed_for(ahead: float) -> None:
    """The file was changed at 1000, by the clock of this host; the object is made an hour before or afterwards, by the same clock."""
    rule = Rule(clock_ahead=ahead)

    assert list(compare(walked({"k": 1}, 1000.0), listed({"k": 1}, 1003 + ahead), rule)) == []
    assert [one.key for one in compare(walked({"k": 1}, 1000.0), listed({"k": 1}, 999 + ahead), rule)] == ["k"]


def test_what_stays_is_neither_sent_nor_deleted_nor_is_what_may_be_below_it() -> None:
    def stays(key: str) -> tuple[str, Entry]:
        return key, Entry(f"/s/{key}", 0, 0.0, 0, "is a link that leads out", keep_in_target=True)

    source = [stays("film"), stays("link/"), stays("new"), *walked({"z": 1}, 10)]
    target = listed({"film": 3, "film2": 1, "link-": 1, "link/": 1, "link/a": 1, "link/b/c": 1, "link0": 1, "z": 1})

    assert [one.key for one in compare(source, target, Rule())] == ["film2", "link-", "link0"]


def test_the_etag_goes_along_where_only_times_differ() -> None:
    only_times = next(compare(walked({"k": 1}, 100), listed({"k": 1}, 50), Rule()))
    size_too = next(compare(walked({"k": 2}, 100), listed({"k": 1}, 50), Rule()))

    assert only_times.etag == "etag"
    assert size_too.etag is None


@pytest.mark.parametrize("how", ["rename", "copy with its times"])
def test_a_file_of_equal_size_and_older_mtime_put_in_place_of_another_is_seen(tree: Path, tmp_path: Path, how: str) -> None:
    (tree / "f").write_bytes(b"new!")
    old = tmp_path / "old"
    old.write_bytes(b"old!")
    os.utime(old, (1e9, 1e9))
    in_target = [File("f", 4, time.time() - 3600, "etag")]

    if how == "rename":
        old.rename(tree / "f")
    else:
        (tree / "f").write_bytes(old.read_bytes())
        os.utime(tree / "f", (1e9, 1e9))
    source = [("f", found) for found in Walk(str(tree), str(tree))]

    assert (tree / "f").stat().st_mtime == 1e9
    assert [difference.key for difference in compare(source, paged(in_target), Rule())] == ["f"]


# Order

@pytest.mark.parametrize("page", [1, 2, 1000])
@pytest.mark.parametrize("keys", [["b", "a"], ["a", "a"], ["a/b", "a-b"], ["a", "c", "b"], ["😀", "\udcff"]])
def test_a_listing_out_of_order_or_with_a_key_twice_is_not_believed(keys: list[str], monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(files, "_PAGE", page)
    given_out: list[str] = []

    with pytest.raises(OutOfOrder) as error:
        given_out.extend(key for page in in_order(paged(File(key) for key in keys)) for key in page.keys)

    assert given_out == keys[:-1]
    assert repr(keys[-1]) in str(error.value)


@settings(deadline=None)
@given(st.sets(KEYS))
def test_a_listing_in_order_passes_unchanged(keys: set[str]) -> None:
    pages = list(paged(File(key) for key in sorted(keys)))

    assert list(in_order(pages)) == pages


def test_what_comes_before_a_listing_breaks_its_order_is_yielded_and_nothing_after() -> None:
    found: list[str] = []
    differences = compare(walked({"a": 1, "x": 1}), in_order(paged([File("b"), File("a"), File("c")])), Rule())

    with pytest.raises(OutOfOrder):
        found.extend(difference.key for difference in differences)

    assert found == ["a", "b"], "the source is in order, so it is certain that it has no b"


def test_order_is_that_of_code_points_which_is_that_of_utf8() -> None:
    keys = sorted(["a", "Z", "é", "\uffff", "😀", "a/", "a-"])

    assert keys == sorted(keys, key=lambda key: key.encode())
    assert [key for page in in_order(paged(File(key) for key in keys)) for key in page.keys] == keys
