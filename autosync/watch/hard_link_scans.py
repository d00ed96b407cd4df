"""Scans that find further names of files (hard links). They are needed if a file was saved while some of its names were not known."""

from __future__ import annotations

import logging
import time

from ..model.change import SCAN_ALL
from .debounce import Debouncer
from .hard_links import HardLinks

log = logging.getLogger(__name__)

#: A file that was saved while some of its names were not known is checked again after this time, in seconds, since most such names are
#: temporary. If they are still not known, the whole source is scanned, at most once in the interval, in seconds.
_AGE, _INTERVAL = 1.0, 600.0


class HardLinkScans:
    """Requests the scans of one mirror that find names. Not safe to use from many threads.

    Args:
        hard_links: the names that are known.
        debouncer: receives the requests.
        about: prefix of log lines, where there are several mirrors.
    """

    def __init__(self, hard_links: HardLinks, debouncer: Debouncer, *, about: str = "") -> None:
        self._hard_links = hard_links
        self._debouncer = debouncer
        self._about = about
        self._next = 0.0
        #: When the last flush point was drained, on the monotonic clock.
        self._drained_at = 0.0

    def request_if_due(self) -> None:
        """Request a scan of the whole source if a file was saved while some of its names were not known."""
        now = time.monotonic()
        if now >= self._next and self._hard_links.unsure(now - _AGE - 2 * self._debouncer.quiet):
            self._next = now + _INTERVAL
            log.info("%sa file was saved that has further names: everything is scanned to find them", self._about)
            self._debouncer.push((SCAN_ALL,))

    def request_before_flush(self) -> None:
        """All events before a flush point are processed. If a file was saved while some of its names were not known, only a scan finds
        these. More names than can be kept would cause a scan for each flush point; there, the count is reported instead."""
        self._drained_at = time.monotonic()
        if self._hard_links.unsure() and not self._hard_links.is_full:
            self._debouncer.push((SCAN_ALL,))

    def unsure_at_flush(self) -> int:
        """Number of files that were saved before the last flush point was drained and have names that are still unknown."""
        return self._hard_links.unsure(self._drained_at)
