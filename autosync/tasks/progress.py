"""Progress of large transfers, as events that Flower shows while the task runs."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from celery import Task

from ..model.text import human_size

#: Smaller batches are over before anybody could read their progress, in bytes.
_MIN_TOTAL = 16 << 20
#: Seconds between two events.
_INTERVAL = 1.0


class Progress:
    """Counts the bytes that one task has read, and sends an event once a second at most.

    Args:
        task: sends the events.
        total: bytes that the batch will read.
    """

    def __init__(self, task: Task, total: int) -> None:
        self._task = task
        self._total = total
        self._bytes = 0
        self._began = self._last_event = time.monotonic()
        self._lock = threading.Lock()
        # Celery finds the running task by thread; the transfers run in others.
        self._id = task.request.id
        self._worker = task.request.hostname

    def add(self, count: int) -> None:
        """Count bytes that were read."""
        if self._total < _MIN_TOTAL:
            return
        with self._lock:
            self._bytes += count
            moment = time.monotonic()
            if moment - self._last_event < _INTERVAL:
                return
            self._last_event = moment
        with suppress(Exception):  # a transfer does not need its progress, and the broker may be away
            self._send_event(moment - self._began)

    def _send_event(self, seconds: float) -> None:
        percent = min(100 * self._bytes // max(self._total, 1), 100)
        text = f"{percent}% {human_size(self._bytes)} of {human_size(self._total)}, {human_size(self._bytes / seconds)}/s"
        with self._task.app.events.default_dispatcher(hostname=self._worker) as dispatcher:
            dispatcher.send("task-progress", uuid=self._id, result=text)
