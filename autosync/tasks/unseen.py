"""Remembers the files that this worker does not see as the file host sees them. After a while, operators get a note about them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..errors import BrokerError
from ..ledger.worker_notes import WorkerNotes

log = logging.getLogger("autosync.transfer")

#: The time after which it is reported that a worker does not see what the file host has confirmed, in seconds. Caches of SMB can be as
#: old.
REPORT_AFTER = 300.0
#: The shortest intervals at which the note in the ledger is renewed and the line in the log is repeated, in seconds.
_NOTE_INTERVAL, _LOG_INTERVAL = 30.0, 60.0
#: How long a note is kept, in seconds. A key that waits is tried every half minute, but maybe by other workers.
_NOTE_SECONDS = 300.0
#: The most paths that are remembered.
_MAX_PATHS = 1000


class UnseenFiles:
    """The files of a mirror that this worker does not see. Safe to use from many threads.

    Args:
        clock: monotonic time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Since when this worker has seen none of the remembered files; None: there are none.
        self._since: float | None = None
        self._paths: set[str] = set()
        self._report = ""
        self._is_noted = False
        self._noted_at = self._logged_at = float("-inf")
        self._lock = threading.Lock()

    def add(self, path: str, report: str, confirmed_for: float) -> None:
        """Record that this worker does not see a file as the file host has confirmed it.

        Args:
            path: the file's absolute path.
            report: what is wrong, as the end of a sentence that begins with the worker.
            confirmed_for: since when the file host has confirmed the file, in seconds before now.
        """
        with self._lock:
            now = self._clock()
            self._since = now if self._since is None else self._since
            if len(self._paths) < _MAX_PATHS:
                self._paths.add(path)
            # If other workers see the file, no key waits for long. Then the time counts in which this worker has seen none of the files.
            if max(confirmed_for, now - self._since) >= REPORT_AFTER:
                self._report = report

    def discard(self, path: str) -> None:
        """Record that this worker sees a file as the file host has seen it."""
        with self._lock:
            if path in self._paths:
                self._paths.clear()
                self._since, self._report = None, ""

    def publish(self, notes: WorkerNotes, worker: str, log_fields: Mapping[str, object]) -> None:
        """Write, renew or remove the note of this worker, and log what is wrong, if that is due.

        Args:
            notes: the notes in the ledger.
            worker: the worker's name.
            log_fields: fields for the JSON log.
        """
        if not (self._report or self._is_noted):
            return
        with self._lock:
            now, report = self._clock(), self._report
            is_note_due = (now - self._noted_at >= _NOTE_INTERVAL) if report else self._is_noted
            is_log_due = bool(report) and now - self._logged_at >= _LOG_INTERVAL
            if is_note_due:
                self._is_noted, self._noted_at = bool(report), now if report else float("-inf")
            if is_log_due:
                self._logged_at = now
        if is_log_due:
            log.warning("worker %s %s; its keys wait, or go to other workers: mount what is missing here", worker, report, extra=log_fields)
        if is_note_due:
            with suppress(BrokerError):  # it expires, and is written again
                notes.write(worker, report, _NOTE_SECONDS) if report else notes.remove(worker)
