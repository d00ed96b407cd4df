"""Whether filters part two mirrors: what the automata decide, against the expressions themselves."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosync.model.keys import Keys, Source
from autosync.model.pattern_automaton import PatternAutomaton, _automaton, have_common_ending

EVERYTHING = "^.*$"


def common(one: str, other: str, *exclude: str, other_exclude: tuple[str, ...] = ()) -> bool:
    return have_common_ending(PatternAutomaton("/a/", "/a", one, exclude), PatternAutomaton("/b/", "/b", other, other_exclude))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r".*\.jpg$", r".*\.txt$"),
        (r"(?i).*\.jpe?g$", r"(?i).*\.(txt|png)\Z"),
        (r"/a/[a-m][^/]*$", r"/b/[n-z]"),
        (r".*/\d+$", r".*/\D+$"),
        (r".*/x{2,3}$", r".*/x{4}$"),
        (r".*(?=\.jpg$)\.jpg$", r"/nowhere/"),
        (r"/a/x\Z", r"/b/x\n"),
        (r"/a/x$", r"/b/x\n\n\Z"),
        (r".*\.jpg", r".+^"),
    ],
)
def test_filters_without_a_common_path_part(one: str, other: str) -> None:
    assert not common(one, other)
    assert not common(other.replace("/b", "/a"), one.replace("/a", "/b"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (EVERYTHING, r".*\.txt$"),
        (r".*\.jpg", r".*\.txt$"),  # without $, x.jpg.txt is of both
        (r"(?i).*\.jpg$", r".*\.JPG$"),
        (r".*\.txt$", r".*\.txt\n"),  # $ also matches before a last line break
        (r".*(?!\.jpg)$", r".*\.jpg$"),  # lookaheads are not evaluated: in doubt, they meet
        (r".*\bjpg$", r".*\.png$|.*-jpg$"),
        ("(a|b", EVERYTHING),  # no expression; it is refused elsewhere
    ],
)
def test_filters_that_may_have_a_common_path_do_not(one: str, other: str) -> None:
    assert common(one, other)


@pytest.mark.parametrize("wanted", [r".*\.jpg$", r"^.*\.jpg$", r".*\.jpg\Z", r"\A.*\.jpg\Z", r"(?:^.*\.jpg$)", r".*\.jpg\n\Z"])
@pytest.mark.parametrize(
    "unwanted", [r".*\.jpg", r".*\.jpg$", r"^.*\.jpg$", r"(^.*\.jpg$)+", r"(?:^.*\.jpg$|^.*\.txt$)", r"\A.*\.(jpg|txt)$"]
)
def test_what_one_sends_and_the_other_leaves_out_parts(wanted: str, unwanted: str) -> None:
    assert not common(wanted, EVERYTHING, other_exclude=(unwanted,))
    assert not common(EVERYTHING, wanted, unwanted)


@pytest.mark.parametrize(
    ("wanted", "unwanted"),
    [
        (r".*\.jpg$", r".*\.jpg\Z"),  # x.jpg and a line break: only $ matches there
        (r".*\.jpg\n\Z", r".*\.jpg\Z"),
        (r".*\.jpg$", r".*\.jpg\n$"),
        (r".*\.jpg", r".*\.jpg$"),  # x.jpg.txt
        (r".*\.jpg$", r".+^.*\.jpg$"),  # ^ never matches there
    ],
)
def test_an_exclusion_that_matches_less_does_not(wanted: str, unwanted: str) -> None:
    assert common(wanted, EVERYTHING, other_exclude=(unwanted,))


def test_an_excluded_directory_parts_only_what_is_in_it() -> None:
    assert not common(EVERYTHING, r"/b/x/", r"/a/x$")
    assert not common(EVERYTHING, r"/b/x/", r"/a/x")
    assert common(EVERYTHING, r"/b/x", r"/a/x$"), "/b/xy is no directory x"
    assert common(EVERYTHING, EVERYTHING, r"/a$"), "of a root itself, an expression that ends there excludes nothing"
    assert not common(EVERYTHING, EVERYTHING, r"/a")
    assert common(EVERYTHING, r"/b/x/", r"(?i)/a/x$"), "in doubt, nothing is excluded"


def test_a_search_that_grows_too_long_finds_something_in_common() -> None:
    assert common(r".*x.{16}$", r".*y.{17}$")


#: Classes of one character that overlap in few places: letters that are the same in another case, digits inside of a range.
_CLASSES = [
    *(r"(?i:\u017f)", r"(?i:\u1e9e)", r"(?i:\u0131)", r"(?i:\u0130)", r"(?i:\u03c2)", r"(?i:k)", r"(?i:[^\u017f])", r"(?ia:k)"),
    *(r"\u00df", r"\u03c3", "s", "i", "A", r"[\u0900-\u097f]", r"[^\x00-\x7f]", r"(?i:[\u0370-\u03ff])", r"\u00b5"),
    *(r"\d", r"\W", r"[^\d\s]", r"(?a:\w)", r"(?a:\W)", r"(?a:(?u:\w))", r"(?-s:.)"),
]


def test_classes_of_characters_overlap_where_re_finds_a_character_of_both() -> None:
    every = "".join(chr(code) for code in range(1, 0x3000)).replace("/", "")
    # A lookahead, since findall without one begins a search by the class, and in Python 3.11 forgets (?a:) for that.
    found = {one: set(re.findall(f"(?=){one}", every, re.DOTALL)) for one in _CLASSES}

    wrong = [
        (one, other)
        for one, other in itertools.combinations(_CLASSES, 2)
        if common(rf".*/x(?:{one})\Z", rf".*/x(?:{other})\Z") != bool(found[one] & found[other])
    ]
    assert not wrong


_ANCHORS = ("$", "^", r"\Z", r"\A")
_ATOMS = st.sampled_from(
    ["a", "b", "/", ".", r"\n", "[ab]", "[^a]", r"\w", r"\W", "(?:a|b/)", "(?:a$|b)", r"(?:\Z|a)", r"(?:^|\n)", "(?-s:.)", *_ANCHORS]
)
_ENDINGS = st.lists(st.tuples(_ATOMS, st.sampled_from(["", "", "*", "+", "?", "{2}"])), max_size=4).map(
    lambda parts: "".join(atom + ("" if atom in _ANCHORS else count) for atom, count in parts)
)
_PATTERNS = st.tuples(st.sampled_from(["/s/", "^/s/", "(?:^)?/s/", r"\A/s/", ".*"]), _ENDINGS).map("".join)
_NAMES = ["".join(one) for length in range(1, 6) for one in itertools.product("ab/\n", repeat=length)]


@settings(deadline=None, max_examples=300)
@given(_PATTERNS)
def test_an_automaton_matches_what_re_matches(pattern: str) -> None:
    """Exactly: a filter that matched less would part mirrors that meet, and an exclusion that matched less would part none."""
    automaton, expected = _automaton(pattern, exact=True), re.compile(pattern, re.DOTALL)
    assert automaton is not None
    for name in (*_NAMES, "a\nb\n", "\n\n\n"):
        text, reached, has_matched = f"/s/{name}", automaton.first(), False
        for character in text:
            has_matched = has_matched or automaton.has_matched(reached)
            reached = automaton.after(reached, character)
        assert (has_matched or automaton.matches_at_end(reached)) == bool(expected.match(text)), text


@settings(deadline=None, max_examples=150)
@given(_PATTERNS, _PATTERNS, _PATTERNS)
def test_no_path_of_both_is_missed(one: str, other: str, exclude: str) -> None:
    """Every path that the rules themselves accept on both sides is found; what is found beyond that is longer, or of other characters."""
    mine = Keys([Source("/s")], source_filter=one, source_exclude=[exclude])
    theirs = Keys([Source("/s")], source_filter=other)
    found = [name for name in _NAMES if mine.path(f"/s/{name}") and theirs.path(f"/s/{name}")]

    machines = PatternAutomaton("/s/", "/s", one, [exclude]), PatternAutomaton("/s/", "/s", other, [])
    assert have_common_ending(*machines) or not found, found
