"""Barriers: moments of which it is to be known when all that had happened by then is marked in the ledger."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .debounce import Debouncer


@dataclass
class _FlushPoint:
    name: str
    is_through: Callable[[], bool]
    #: Looks may say that files are still to settle, so what they have said has to pass too.
    is_last_round: bool = False


class FlushPoints:
    """The barriers of one mirror that are yet to be reached.

    Args:
        settle: where changes wait.
    """

    def __init__(self, settle: Debouncer) -> None:
        self._settle = settle
        self._new: deque[_FlushPoint] = deque()
        self._waiting: list[_FlushPoint] = []

    def begin(self, name: str) -> None:
        """The watcher has said all that had happened when this barrier was asked for. From any thread."""
        self._new.append(_FlushPoint(name, self._settle.passage()))

    def reached(self) -> list[str]:
        """Those that are reached, each told once. To be asked now and then, from one thread."""
        while self._new:
            self._waiting.append(self._new.popleft())
        found = [one for one in self._waiting if self._is_reached(one)]
        self._waiting = [one for one in self._waiting if one not in found]
        return [one.name for one in found]

    def _is_reached(self, one: _FlushPoint) -> bool:
        if not one.is_through():
            return False
        if one.is_last_round:
            return True
        one.is_through, one.is_last_round = self._settle.passage(), True
        return one.is_through()
