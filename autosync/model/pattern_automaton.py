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


class _Reached(NamedTuple):
    """Where an automaton is in a text.

    Attributes:
        states: the states that it has reached.
        if_ended: further states that it has reached if the text ends here: `$` also matches before a last line break.
    """

    states: frozenset[int] = frozenset()
    if_ended: frozenset[int] = frozenset()


@dataclass
class _Automaton:
    """The automaton of one expression, as `re.match` would use it. Its states are numbers; 0 is the first.

    Attributes:
        free: for each state, the states that follow without a character.
        at_begin: for each state, the states that follow at the beginning of the text.
        at_end: for each state, the states that follow at the end of the text.
        before_end: for each state, the states that follow before a line break at the end of the text.
        steps: for each state, which characters lead to which state.
        last: the state that means a match.
        classes: the characters of each step, as an expression.
        edges: the characters that the expression names, and those that follow them.
    """

    free: list[list[int]] = field(default_factory=lambda: [[]])
    at_begin: list[list[int]] = field(default_factory=lambda: [[]])
    at_end: list[list[int]] = field(default_factory=lambda: [[]])
    before_end: list[list[int]] = field(default_factory=lambda: [[]])
    steps: list[list[tuple[Accepts, int]]] = field(default_factory=lambda: [[]])
    last: int = 0
    classes: set[re.Pattern[str]] = field(default_factory=set)
    edges: set[str] = field(default_factory=set)

    def add(self) -> int:
        """A new state."""
        if len(self.free) >= _MOST_STATES:
            raise _Unknown
        for edges in (self.free, self.at_begin, self.at_end, self.before_end, self.steps):
            edges.append([])
        return len(self.free) - 1

    def first(self) -> _Reached:
        """Where it is before the first character. The text is not empty."""
        return _Reached(self._closure({0}, self.at_begin))

    def after(self, reached: _Reached, character: str) -> _Reached:
        """Where it is after one more character."""
        states = self._closure(self._stepped(reached.states, character))
        if character != "\n":
            return _Reached(states)
        before = self._closure(reached.states, self.before_end)
        if_ended = self._closure(self._stepped(before, character))
        return _Reached(states, (if_ended | ({self.last} & before)) - states)

    def has_matched(self, reached: _Reached) -> bool:
        """Whether there is a match, whatever follows."""
        return self.last in reached.states

    def matches_at_end(self, reached: _Reached) -> bool:
        """Whether there is a match if the text ends here."""
        return self.last in self._closure(reached.states | reached.if_ended, self.at_end)

    def _stepped(self, states: Iterable[int], character: str) -> set[int]:
        return {after for state in states for accepts, after in self.steps[state] if accepts(character)}

    def _closure(self, states: Iterable[int], more: Sequence[Sequence[int]] = ()) -> frozenset[int]:
        """These states, and those that follow without a character, by `free` and by further edges."""
        found, waiting = set(states), list(states)
        while waiting:
            state = waiting.pop()
            for after in [*self.free[state], *(more[state] if more else ())]:
                if after not in found:
                    found.add(after)
                    waiting.append(after)
        return frozenset(found)


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
            self._made.last = self._sequence(parsed, 0, parsed.state.flags)
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            raise _Unknown from error
        return self._made

    def _sequence(self, items: Iterable[tuple[Any, Any]], start: int, flags: int) -> int:
        """Add items that follow each other. Returns the state after them."""
        if flags & (re.MULTILINE | re.LOCALE) or (flags & re.IGNORECASE and self._exact):
            raise _Unknown
        at = start
        for kind, value in items:
            at = self._item(kind, value, at, flags)
        return at

    def _item(self, kind: Any, value: Any, start: int, flags: int) -> int:
        if kind is _names.AT:
            return self._position(value, start)
        if kind is _names.SUBPATTERN:
            _, added, removed, items = value
            kept = flags & ~(re.ASCII | re.UNICODE) if added & (re.ASCII | re.UNICODE) else flags  # (?u:...) within (?a) ends it
            return self._sequence(items, start, (kept | added) & ~removed)
        if kind is _names.BRANCH:
            end = self._made.add()
            for items in value[1]:
                self._made.free[self._sequence(items, self._follow(start), flags)].append(end)
            return end
        if kind in (_names.MAX_REPEAT, _names.MIN_REPEAT):
            return self._repeated(value, start, flags)
        if kind is _names.POSSESSIVE_REPEAT and not self._exact:
            return self._repeated(value, start, flags)
        if kind is _names.ATOMIC_GROUP and not self._exact:
            return self._sequence(value, start, flags)
        end = self._made.add()
        self._made.steps[start].append((self._character(kind, value, flags), end))
        return end

    def _position(self, value: Any, start: int) -> int:
        end = self._made.add()
        if value in (_names.AT_BEGINNING, _names.AT_BEGINNING_STRING):
            self._made.at_begin[start].append(end)
        elif value in (_names.AT_END, _names.AT_END_STRING):
            self._made.at_end[start].append(end)
            if value is _names.AT_END:
                self._made.before_end[start].append(end)
        else:
            raise _Unknown
        return end

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
        wanted: where the filter is; None once it has matched, whatever follows.
        unwanted: where the exclusions are.
        component: what the last component of the path is so far.
    """

    wanted: _Reached | None
    unwanted: tuple[_Reached, ...]
    component: int


class PatternAutomaton:
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
        wanted = self._filter.first() if self._filter else None
        state = self._state(wanted, tuple(one.first() for one in self._exclusions), _NAME)
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
        wanted = self._filter.after(state.wanted, character) if self._filter and state.wanted else None
        unwanted = tuple(one.after(reached, character) for one, reached in zip(self._exclusions, state.unwanted, strict=True))
        return self._state(wanted, unwanted, component)

    def is_file(self, state: _State) -> bool:
        """Whether a path that ends here can be that of a file of the mirror."""
        if state.component != _NAME or self._is_unwanted_at_end(state):
            return False
        return state.wanted is None or self._filter is None or self._filter.matches_at_end(state.wanted)

    def _state(self, wanted: _Reached | None, unwanted: tuple[_Reached, ...], component: int) -> _State | None:
        """The state; None if the filter cannot match any more, or an exclusion has matched."""
        if any(one.has_matched(reached) for one, reached in zip(self._exclusions, unwanted, strict=True)):
            return None
        if wanted is not None and self._filter is not None:
            if self._filter.has_matched(wanted):
                wanted = None
            elif not (wanted.states or wanted.if_ended):
                return None
        return _State(wanted, unwanted, component)

    def _is_unwanted_at_end(self, state: _State) -> bool:
        return any(one.matches_at_end(reached) for one, reached in zip(self._exclusions, state.unwanted, strict=True))


def have_common_ending(one: PatternAutomaton, other: PatternAutomaton) -> bool:
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
    one: PatternAutomaton, other: PatternAutomaton, here: _State, there: _State, alphabet: str
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
