"""Lets threads wait for a share or a slot: one after the other, and with a check once a second."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

#: The interval at which a waiting thread checks whether it still has to wait, in seconds.
CHECK_INTERVAL = 1.0
#: How long a thread waits after a request to which the broker did not respond, in seconds.
BROKER_PAUSE = 0.5

#: Raises an error that ends a transfer: the worker is being stopped, or the claim is lost.
StopCheck = Callable[[], None]


class FairLock:
    """A lock that threads acquire in the order of their requests. (A lock of `threading` may go to the same thread again and again.)"""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._is_locked = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._is_locked:
                self._is_locked = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_locked = False
