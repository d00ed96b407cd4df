"""The threads that work on one mirror in this process: on all its batches, and as many at once as are of use."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger("autosync.transfer")

#: What one transfer costs this process, in seconds. As long as the target takes to answer one, so many others can be begun; more threads
#: than that do not make it faster, they only fight for the interpreter (measured: 100 at once cost twice the CPU of 8).
_COST = 0.0002
#: Beside those, in case the target becomes slower; and as long as nothing is known.
_SPARE, _AT_FIRST = 3, 16
#: A thread takes so many seconds' worth of small transfers in one piece: less is said and waited for between them.
_PIECE, _LARGEST_PIECE = 0.004, 16
#: The quickest answer of so many seconds counts; the others tell how long things waited for each other.
_WINDOW = 3.0

#: Does one piece of work; False if none is left.
Step = Callable[[], bool]


class Crew:
    """Works on batches.

    Args:
        most: transfers in flight at most.
        name: of the mirror.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._slots = threading.BoundedSemaphore(most)
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

    def took(self, seconds: float) -> None:
        """A target took so long for one transfer."""
        now = time.monotonic()
        if now > self._window_ends:
            self._window_ends = now + _WINDOW
            self._before, self._quickest = self._quickest, math.inf
        if seconds < self._quickest:
            self._quickest = seconds

    def at_once(self) -> int:
        """How many transfers at once are of use now."""
        quickest = self._answer()
        useful = _AT_FIRST if quickest == math.inf else math.ceil(quickest / _COST) + _SPARE
        return min(useful, self._most)

    def piece(self) -> int:
        """How many small transfers a thread takes at a time."""
        return max(1, min(int(_PIECE / max(self._answer(), _COST)), _LARGEST_PIECE))

    def _answer(self) -> float:
        """How long the target takes for one transfer, in seconds; infinite as long as that is not known."""
        return min(self._quickest, self._before)

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
        except Exception:  # its key is left to the sweep
            log.exception("a transfer ended in a way that was not expected")
        finally:
            with self._lock:
                self._helpers -= 1

    def _do(self, step: Step) -> bool:
        with self._slots:
            return step()

    def _close(self, step: Step) -> None:
        with self._lock:
            if step in self._open:
                self._open.remove(step)
