"""Flush points: moments for which autosync reports when every change from before them is marked in the ledger."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .debounce import Debouncer


@dataclass
class _FlushPoint:
    """A flush point that is not yet reached.

    Attributes:
        name: the name of the flush point.
        is_drained: the flush check of the debouncer.
        is_last_check: whether this is the second check. Scans of the first one may have pushed files that are not yet quiet, so those have
            to be drained too.
    """

    name: str
    is_drained: Callable[[], bool]
    is_last_check: bool = False


class FlushPoints:
    """The flush points of one mirror that are not yet reached.

    Args:
        debouncer: the mirror's debouncer.
        on_drained: called for each flush point when everything that was pushed before it is processed, and before its last check. It may
            push more; the flush point waits for that, too.
    """

    def __init__(self, debouncer: Debouncer, on_drained: Callable[[], None] = lambda: None) -> None:
        self._debouncer = debouncer
        self._on_drained = on_drained
        self._new: deque[_FlushPoint] = deque()
        self._waiting: list[_FlushPoint] = []

    def add(self, name: str) -> None:
        """Add a flush point, after the watcher has pushed every change from before it. From any thread."""
        self._new.append(_FlushPoint(name, self._debouncer.flush_check()))

    def pop_reached(self) -> list[str]:
        """Remove the flush points that are reached, and return their names. To be called repeatedly, from one thread."""
        while self._new:
            self._waiting.append(self._new.popleft())
        reached = [point for point in self._waiting if self._is_reached(point)]
        self._waiting = [point for point in self._waiting if point not in reached]
        return [point.name for point in reached]

    def _is_reached(self, point: _FlushPoint) -> bool:
        if not point.is_drained():
            return False
        if point.is_last_check:
            return True
        self._on_drained()
        point.is_drained, point.is_last_check = self._debouncer.flush_check(), True
        return point.is_drained()
