"""The threads that work on one mirror in this process: on all its batches, and as many at once as are of use."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

log = logging.getLogger("autosync.transfer")

#: What one transfer costs this process, in seconds. As long as the target takes to answer, so many others can be begun; more threads than
#: that do not make it faster, they only fight for the interpreter (measured: 8 at once cost twice the CPU of one that has 16 in flight).
_COST = 0.0002
#: As long as nothing is known.
_AT_FIRST = 16
#: So many small transfers a thread takes in one piece, once it is known that the target answers: less is said and waited for between them.
#: Where they go one after the other, no more than are done in so many seconds: others could be doing them.
_PIECE, _PIECE_SECONDS = 16, 0.004
#: For so long a batch waits until no more are at work than are of use, in seconds; then something takes its time, and it goes on.
_LONGEST_WAIT = 0.5
#: For so long a thread goes on with one batch before it lets another have its turn, in seconds.
_SLICE = 0.01
#: The quickest answer of so many seconds counts; the others tell how long things waited for each other.
_WINDOW = 3.0

#: Does one piece of work; False if none is left.
Step = Callable[[], bool]


class AdaptivePool:
    """Works on batches.

    Args:
        most: transfers in flight at most.
        name: of the mirror.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._running = self._in_flight = 0
        counts = threading.Lock()
        self._fewer_running, self._fewer_in_flight = threading.Condition(counts), threading.Condition(counts)
        self._pool = ThreadPoolExecutor(most, f"autosync-{name}")
        self._lock = threading.Lock()
        self._open: deque[Step] = deque()
        self._helpers = 0
        self._quickest = self._before = math.inf
        self._window_ends = 0.0

    def work_off(self, step: Step, pieces: int) -> None:
        """Have one batch done: in this thread, and beside it by others that are free. Returns when there is nothing left to begin; others
        may still be busy with the last of it.

        Args:
            step: does one piece of it; called from several threads at once.
            pieces: how many there are.
        """
        with self._lock:
            self._open.append(step)
            wanted = min(self.at_once() - len(self._open) - self._helpers, pieces - 1)
            self._helpers += max(wanted, 0)
        for _ in range(wanted):
            self._pool.submit(self._help)
        try:
            while self._do(step):
                pass
        finally:
            self._close(step)

    def took(self, seconds: float, count: int = 1) -> None:
        """A target took so long for so many transfers that one thread had in flight together."""
        seconds /= count
        now = time.monotonic()
        if now > self._window_ends:
            self._window_ends = now + _WINDOW
            self._before, self._quickest = self._quickest, math.inf
        if seconds < self._quickest:
            self._quickest = seconds

    def at_once(self) -> int:
        """How many threads at once are of use now."""
        quickest = self._answer()
        useful = _AT_FIRST if quickest == math.inf else math.ceil(quickest / _COST)
        return min(useful, self._most)

    def piece(self, *, together: bool) -> int:
        """How many small transfers a thread takes at a time, which go together or one after the other."""
        answer = self._answer()
        most = min(_PIECE, self._most) if answer < math.inf else 1
        return most if together else max(1, min(int(_PIECE_SECONDS / max(answer, 1e-9)), most))

    def _answer(self) -> float:
        """How long a thread waits for the target with one transfer, in seconds; infinite as long as that is not known."""
        return min(self._quickest, self._before)

    @contextmanager
    def room(self, count: int) -> Iterator[None]:
        """Have so many transfers in flight, waiting until there may be as many more."""
        with self._fewer_in_flight:
            self._fewer_in_flight.wait_for(lambda: self._in_flight + count <= self._most)
            self._in_flight += count
        try:
            yield
        finally:
            with self._fewer_in_flight:
                self._in_flight -= count
                self._fewer_in_flight.notify_all()

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False)

    def _help(self) -> None:
        """Take a piece of each batch in turn, as long as there are any and so many hands are of use."""
        try:
            while True:
                with self._lock:
                    if not self._open or self._helpers + len(self._open) > self.at_once():
                        return
                    step = self._open[0]
                    self._open.rotate(-1)
                if not self._do(step):
                    self._close(step)
        except Exception:  # the file host requeues its key
            log.exception("a transfer ended in a way that was not expected")
        finally:
            with self._lock:
                self._helpers -= 1

    def _do(self, step: Step) -> bool:
        """Do some pieces, as one of those that are at work. Returns False if there are no more."""
        with self._fewer_running:
            if not self._fewer_running.wait_for(lambda: self._running < self.at_once(), _LONGEST_WAIT):
                self._fewer_running.wait_for(lambda: self._running < self._most)
            self._running += 1
        try:
            until = time.monotonic() + _SLICE
            while step():
                if time.monotonic() > until:
                    return True
            return False
        finally:
            with self._fewer_running:
                self._running -= 1
                self._fewer_running.notify()

    def _close(self, step: Step) -> None:
        with self._lock:
            if step in self._open:
                self._open.remove(step)
