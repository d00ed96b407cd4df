"""Carrying out the steps of a walk: one after the other on a fast disk, and by threads, ahead of the walk, on a slow one."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from ..process.prefetch import Prefetcher
from .disk_speed import DiskSpeed
from .walk_level import Level, Step, StepResult

#: Number of threads that read ahead of the walk on a slow disk,
_HELPERS = 16
#: and the most open directories and portions of files that they hold.
_DIRECTORIES_AHEAD, _FILES_AHEAD = 32, 128


class ReadAhead:
    """The results of the steps of one walk, in the order of the walk.

    Where each call takes long, as on a network share, several threads read ahead of the walk; on a fast disk they would only be in each
    other's way.

    Args:
        work: returns the function that carries out a step of a level; None if the walk leaves the step out.
        disk: measures the steps.
    """

    def __init__(self, work: Callable[[Level, Step], Callable[[], StepResult] | None], disk: DiskSpeed) -> None:
        self._work = work
        self._disk = disk
        self._helpers: Prefetcher | None = None
        self._directories_ahead = self._files_ahead = 0

    def next_result(self, levels: list[Level]) -> StepResult | None:
        """Carry out the next step of the last level; None if it has no more.

        Args:
            levels: the directories that the walk is in, from the top.
        """
        level = levels[-1]
        if self._helpers is not None or level.ahead:
            return self._next_begun(levels)
        while (step := level.next_step()) is not None:
            work = self._work(level, step)
            if work is not None:
                began = time.perf_counter()
                done = work()
                self._disk.add(done.calls, time.perf_counter() - began)
                if self._disk.is_slow:
                    self._helpers = Prefetcher(_HELPERS, "autosync-walk")
                return done
        return None

    def discard(self, level: Level) -> None:
        """Close a directory that is not entered, after the steps that were begun ahead of the walk."""
        for step, future in level.ahead:
            self._count_ahead(step, -1)
            with suppress(Exception):
                below = future.result().level
                if below is not None:
                    self.discard(below)
        level.ahead.clear()
        level.close()

    def close(self) -> None:
        """Wait for the threads. No thread may use a descriptor after it is closed."""
        if self._helpers is not None:
            self._helpers.close(wait=True)
            self._helpers = None

    # Many steps at once, on a slow disk

    def _next_begun(self, levels: list[Level]) -> StepResult | None:
        """Begin the steps that come next in the order of the walk, as many as there is room for, and wait for the first result."""
        for level in reversed(levels):
            if not self._begin_more(level, is_here=level is levels[-1]):
                break
        if not levels[-1].ahead:
            return None
        step, future = levels[-1].ahead.popleft()
        self._count_ahead(step, -1)
        return future.result()

    def _begin_more(self, level: Level, *, is_here: bool) -> bool:
        """Begin steps of a level, and of the open levels below it. Returns whether there is room for more."""
        for _, future in level.ahead:
            below = future.result().level if future.done() else None
            if below is not None and not below.is_large and not self._begin_more(below, is_here=False):
                return False
        while (step := level.next_step()) is not None:
            if not self._has_room(level, step, is_here=is_here):
                level.put_back = step
                return False
            work = self._work(level, step)
            if work is not None:
                assert self._helpers is not None
                level.ahead.append((step, self._helpers.submit(work)))
                self._count_ahead(step, 1)
        return True

    def _has_room(self, level: Level, step: Step, *, is_here: bool) -> bool:
        """Whether a step may begin. Results that wait are bounded in number, except that the walk must always go on where it is."""
        if isinstance(step, str):
            return self._directories_ahead < _DIRECTORIES_AHEAD or (is_here and not level.ahead)
        return self._files_ahead < _FILES_AHEAD or (is_here and len(level.ahead) < _HELPERS)

    def _count_ahead(self, step: Step, count: int) -> None:
        if isinstance(step, str):
            self._directories_ahead += count
        else:
            self._files_ahead += count
