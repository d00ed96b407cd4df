"""Progress of large transfers, as events that Flower shows while the task runs."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from celery import Task

from ..model.text import human_size

#: Batches smaller than this are over before anybody could read their progress, in bytes.
_WORTH_SHOWING = 16 << 20
#: Seconds between two events.
_INTERVAL = 1.0


class Progress:
    """Counts the bytes of one task and tells them at most once a second.

    Args:
        task: sends the events.
        total: bytes that the batch will read.
    """

    def __init__(self, task: Task, total: int) -> None:
        self._task = task
        self._total = total
        self._seen = 0
        self._began = self._told = time.monotonic()
        self._lock = threading.Lock()
        # Celery knows the running task by thread; the transfers run in others.
        self._id = task.request.id
        self._worker = task.request.hostname

    def add(self, count: int) -> None:
        """Count bytes that were read."""
        if self._total < _WORTH_SHOWING:
            return
        with self._lock:
            self._seen += count
            moment = time.monotonic()
            if moment - self._told < _INTERVAL:
                return
            self._told = moment
        with suppress(Exception):  # progress is a courtesy; a broker that is away must not stop a transfer
            self._tell(moment - self._began)

    def _tell(self, seconds: float) -> None:
        percent = min(100 * self._seen // max(self._total, 1), 100)
        text = f"{percent}% {human_size(self._seen)} of {human_size(self._total)}, {human_size(self._seen / seconds)}/s"
        with self._task.app.events.default_dispatcher(hostname=self._worker) as dispatcher:
            dispatcher.send("task-progress", uuid=self._id, result=text)
