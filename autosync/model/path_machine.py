"""Decides whether regular expressions leave two sets of paths something in common, without a search for files.

An expression becomes a nondeterministic automaton (Thompson, 1968), which is run over all paths at once: a state of the search is the set
of states that the automata of both sides have reached (Rabin and Scott, 1959). What an automaton cannot express (lookaheads,
backreferences, word boundaries) is left out in the direction of more paths: a filter accepts everything then, and an exclusion nothing.
"""

from __future__ import annotations

import functools
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

try:
    from re import _constants as _names  # type: ignore[attr-defined]
    from re import _parser  # type: ignore[attr-defined]
except ImportError:  # inner parts of Python: without them, every expression is one that cannot be expressed
    _names = _parser = None

#: The most states of one automaton, and of one search. Beyond them, the answer is "in common".
_MOST_STATES, _MOST_STEPS = 2000, 5000
#: The characters that matter in a path and at its end, whatever the expressions are.
_SPECIAL = "/.\n"
#: What a component of a path is so far.
_EMPTY, _DOT, _DOTS, _NAME = range(4)

Accepts = Callable[[str], bool]


class _Unknown(Exception):  # noqa: N818 - not an error
    """The automaton cannot express this."""


@dataclass
class _Automaton:
    """The automaton of one expression, as `re.match` would use it. Its states are numbers; 0 is the first.

    Attributes:
        free: for each state, the states that follow without a character.
        at_end: for each state, the states that follow at the end of the text.
        steps: for each state, which characters lead to which state.
        last: the state that means a match.
        classes: the characters of each step, as an expression.
        edges: the characters that the expression names, and those that follow them.
    """

    free: list[list[int]] = field(default_factory=lambda: [[]])
    at_end: list[list[int]] = field(default_factory=lambda: [[]])
    steps: list[list[tuple[Accepts, int]]] = field(default_factory=lambda: [[]])
    last: int = 0
    classes: set[re.Pattern[str]] = field(default_factory=set)
    edges: set[str] = field(default_factory=set)

    def add(self) -> int:
        """A new state."""
        if len(self.free) >= _MOST_STATES:
            raise _Unknown
        for edges in (self.free, self.at_end, self.steps):
            edges.append([])
        return len(self.free) - 1

    def reached(self, states: Iterable[int], *, at_end: bool = False) -> frozenset[int]:
        """These states, and those that follow without a character."""
        found, waiting = set(states), list(states)
        while waiting:
            state = waiting.pop()
            for after in [*self.free[state], *(self.at_end[state] if at_end else ())]:
                if after not in found:
                    found.add(after)
                    waiting.append(after)
        return frozenset(found)

    def after(self, states: Iterable[int], character: str) -> frozenset[int]:
        """The states after one more character."""
        return self.reached({after for state in states for accepts, after in self.steps[state] if accepts(character)})

    def matches_at_end(self, states: Iterable[int]) -> bool:
        """Whether there is a match if the text ends here."""
        return self.last in self.reached(states, at_end=True)


class _Compiler:
    """Builds the automaton of one expression.

    Args:
        exact: whether an automaton that matches more than the expression is of no use.
    """

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._made = _Automaton()

    def compile(self, pattern: str) -> _Automaton:
        """The automaton.

        Raises:
            _Unknown: there is none.
        """
        if _parser is None:
            raise _Unknown
        try:
            parsed = _parser.parse(pattern, re.DOTALL)
            self._made.last = self._sequence(parsed, 0, parsed.state.flags, is_first=True)
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            raise _Unknown from error
        return self._made

    def _sequence(self, items: Iterable[tuple[Any, Any]], start: int, flags: int, *, is_first: bool = False) -> int:
        """Add items that follow each other. Returns the state after them."""
        if flags & (re.MULTILINE | re.LOCALE) or (flags & re.IGNORECASE and self._exact):
            raise _Unknown
        at = start
        for number, (kind, value) in enumerate(items):
            at = self._item(kind, value, at, flags, is_first=is_first and number == 0)
        return at

    def _item(self, kind: Any, value: Any, start: int, flags: int, *, is_first: bool) -> int:
        if kind is _names.AT:
            return self._position(value, start, is_first=is_first)
        if kind is _names.SUBPATTERN:
            _, added, removed, items = value
            kept = flags & ~(re.ASCII | re.UNICODE) if added & (re.ASCII | re.UNICODE) else flags  # (?u:...) within (?a) ends it
            return self._sequence(items, start, (kept | added) & ~removed, is_first=is_first)
        if kind is _names.BRANCH:
            end = self._made.add()
            for items in value[1]:
                self._made.free[self._sequence(items, self._follow(start), flags, is_first=is_first)].append(end)
            return end
        if kind in (_names.MAX_REPEAT, _names.MIN_REPEAT):
            return self._repeated(value, start, flags)
        if kind is _names.POSSESSIVE_REPEAT and not self._exact:
            return self._repeated(value, start, flags)
        if kind is _names.ATOMIC_GROUP and not self._exact:
            return self._sequence(value, start, flags, is_first=is_first)
        end = self._made.add()
        self._made.steps[start].append((self._character(kind, value, flags), end))
        return end

    def _position(self, value: Any, start: int, *, is_first: bool) -> int:
        if value in (_names.AT_BEGINNING, _names.AT_BEGINNING_STRING):
            end = self._made.add()
            if is_first:  # anywhere else, it never matches
                self._made.free[start].append(end)
            elif self._exact:
                raise _Unknown  # after something that may be empty, it can match
            else:
                self._made.free[start].append(end)
            return end
        if value in (_names.AT_END, _names.AT_END_STRING):
            end = self._made.add()
            self._made.at_end[start].append(end)
            return end
        raise _Unknown

    def _repeated(self, value: tuple[int, Any, Any], start: int, flags: int) -> int:
        least, most, items = value
        at = start
        for _ in range(least):
            at = self._sequence(items, at, flags)
        if most is _names.MAXREPEAT:
            loop = self._follow(at)
            self._made.free[self._sequence(items, loop, flags)].append(loop)
            return self._follow(loop)
        end = self._made.add()
        for _ in range(most - least):
            self._made.free[at].append(end)
            at = self._sequence(items, at, flags)
        self._made.free[at].append(end)
        return end

    def _follow(self, start: int) -> int:
        """A new state that follows `start` without a character."""
        end = self._made.add()
        self._made.free[start].append(end)
        return end

    def _character(self, kind: Any, value: Any, flags: int) -> Accepts:
        """Which characters an item accepts that stands for one character."""
        if kind is _names.ANY:
            return (lambda _: True) if flags & re.DOTALL else self._class([(_names.NEGATE, None), (_names.LITERAL, ord("\n"))], flags)
        if kind is _names.LITERAL:
            return self._class([(kind, value)], flags)
        if kind is _names.NOT_LITERAL:
            return self._class([(_names.NEGATE, None), (_names.LITERAL, value)], flags)
        if kind is _names.IN:
            return self._class(value, flags)
        raise _Unknown

    def _class(self, items: Iterable[tuple[Any, Any]], flags: int) -> Accepts:
        """An expression for one character, so that `re` itself decides which case and which letters of other scripts it covers."""
        found = re.compile(f"[{''.join(self._member(*item) for item in items)}]", flags & (re.ASCII | re.IGNORECASE))
        self._made.classes.add(found)
        return lambda character: found.match(character) is not None

    def _member(self, kind: Any, value: Any) -> str:
        if kind is _names.NEGATE:
            return "^"
        if kind is _names.LITERAL:
            return self._named(value)
        if kind is _names.RANGE:
            return f"{self._named(value[0])}-{self._named(value[1])}"
        if kind is _names.CATEGORY:
            name = str(value).removeprefix("CATEGORY_")
            letter = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}[name.removeprefix("NOT_")]
            return "\\" + (letter.upper() if name.startswith("NOT_") else letter)
        raise _Unknown

    def _named(self, code: int) -> str:
        self._made.edges.update(chr(one) for one in (code, code + 1) if one <= sys.maxunicode)
        return f"\\U{code:08x}"


class _State(NamedTuple):
    """Where one side of the search is.

    Attributes:
        wanted: states of the filter; empty once it has matched.
        is_wanted: whether the filter has matched, whatever follows.
        ends_before_line: whether the filter matches if the text ends here, since `$` also matches before a last line break.
        unwanted: states of the exclusions.
        component: what the last component of the path is so far.
    """

    wanted: frozenset[int]
    is_wanted: bool
    ends_before_line: bool
    unwanted: tuple[frozenset[int], ...]
    component: int


class PathMachine:
    """All paths of a mirror's files that begin with a given text, as far as expressions decide.

    Args:
        beginning: the text, which is in the source or is its directory.
        root: the directory above which exclusions do not match by themselves.
        source_filter: the expression of `--source-filter`, as for `Keys`.
        source_exclude: the expressions of `--source-exclude`, as for `Keys`.
    """

    def __init__(self, beginning: str, root: str, source_filter: str, source_exclude: Sequence[str]) -> None:
        self._filter = _automaton(source_filter, exact=False)
        self._exclusions = [one for one in (_automaton(pattern, exact=True) for pattern in source_exclude) if one is not None]
        self._root = len(root)
        self._beginning = beginning
        automata = [one for one in [self._filter, *self._exclusions] if one is not None]
        self.classes = set().union(*(one.classes for one in automata))
        self.edges = set().union(*(one.edges for one in automata))

    def first(self) -> _State | None:
        """The state at the end of the beginning; None if no path with this beginning belongs to the mirror."""
        filter_states = self._filter.reached({0}) if self._filter else frozenset[int]()
        is_wanted = self._filter is None or self._filter.last in filter_states
        unwanted = tuple(one.reached({0}) for one in self._exclusions)
        if any(one.last in states for one, states in zip(self._exclusions, unwanted, strict=True)):
            return None
        state: _State | None = _State(filter_states, is_wanted, False, unwanted, _NAME)
        for at, character in enumerate(self._beginning):
            if state is None:
                return None
            state = self.after(state, character, in_root=at <= self._root)
        return state

    def after(self, state: _State, character: str, *, in_root: bool = False) -> _State | None:
        """The state after one more character; None if no such path belongs to the mirror.

        Args:
            state: the one before.
            character: the next one.
            in_root: whether the path up to here is the root or above it, where an exclusion leaves out only what it matches by itself.
        """
        if character == "\0":
            return None
        component = state.component
        if character == "/":
            if not in_root and (component != _NAME or self._is_unwanted_at_end(state)):
                return None
            component = _EMPTY
        else:
            component = {(_EMPTY, "."): _DOT, (_DOT, "."): _DOTS}.get((component, character), _NAME)
        unwanted = tuple(one.after(states, character) for one, states in zip(self._exclusions, state.unwanted, strict=True))
        if any(one.last in states for one, states in zip(self._exclusions, unwanted, strict=True)):
            return None
        if state.is_wanted or self._filter is None:
            return _State(frozenset(), True, False, unwanted, component)
        wanted = self._filter.after(state.wanted, character)
        ends = character == "\n" and self._filter.matches_at_end(state.wanted)
        if self._filter.last in wanted:
            return _State(frozenset(), True, False, unwanted, component)
        return _State(wanted, False, ends, unwanted, component) if wanted or ends else None

    def is_file(self, state: _State) -> bool:
        """Whether a path that ends here can be that of a file of the mirror."""
        if state.component != _NAME or self._is_unwanted_at_end(state):
            return False
        return state.is_wanted or state.ends_before_line or (self._filter is not None and self._filter.matches_at_end(state.wanted))

    def _is_unwanted_at_end(self, state: _State) -> bool:
        return any(one.matches_at_end(states) for one, states in zip(self._exclusions, state.unwanted, strict=True))


def have_common_ending(one: PathMachine, other: PathMachine) -> bool:
    """Whether there is a text that makes a path of both mirrors when it is put behind both beginnings. True if the search is too long."""
    begin = (one.first(), other.first())
    if begin[0] is None or begin[1] is None:
        return False
    alphabet = _alphabet(one.classes | other.classes, one.edges | other.edges)
    seen, waiting = {begin}, deque([begin])
    while waiting:
        here, there = waiting.popleft()
        assert here is not None
        assert there is not None
        for found in _following(one, other, here, there, alphabet):
            if found in seen:
                continue
            if one.is_file(found[0]) and other.is_file(found[1]):
                return True
            seen.add(found)
            if len(seen) > _MOST_STEPS:
                return True
            waiting.append(found)
    return False


def _following(
    one: PathMachine, other: PathMachine, here: _State, there: _State, alphabet: str
) -> Iterator[tuple[_State, _State]]:  # fmt: skip
    for character in alphabet:
        after = one.after(here, character)
        other_after = other.after(there, character) if after is not None else None
        if after is not None and other_after is not None:
            yield after, other_after


def _alphabet(classes: set[re.Pattern[str]], edges: set[str]) -> str:
    """One character of each kind that the expressions can tell apart.

    Between two edges, expressions tell characters apart only by their categories and, if they ignore case, by their case.
    """
    candidates = {*_SPECIAL, *edges, *_first_of_categories()}
    if any(one.flags & re.IGNORECASE for one in classes):
        candidates.update(_with_case())
    text = "".join(sorted(candidates - {"\0"}))
    accepted = [set(one.findall(text)) for one in classes]
    kinds: dict[tuple[object, ...], str] = {}
    for character in text:
        kinds.setdefault((_SPECIAL.find(character), *(character in one for one in accepted)), character)
    return "".join(kinds.values())


@functools.cache
def _first_of_categories() -> str:
    r"""The first character of each run in Unicode that \d, \s and \w do not tell apart, and ASCII, which these can be limited to."""
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    runs = re.finditer(r"\d+|\s+|[^\W\d]+|[^\w\s]+", every)
    return every[:129] + "".join(one[0][0] for one in runs)


@functools.cache
def _with_case() -> str:
    """The characters that are others in lower or upper case, and those."""
    every = map(chr, range(sys.maxunicode + 1))
    return "".join(each + each.lower() + each.upper() for each in every if each.lower() != each or each.upper() != each)


def _automaton(pattern: str, *, exact: bool) -> _Automaton | None:
    """The automaton of an expression; None if it cannot be expressed."""
    try:
        return _Compiler(exact=exact).compile(pattern)
    except _Unknown:
        return None
