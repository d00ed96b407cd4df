"""Scans of the whole source that no event and no operator requests: on a timer, and when more can be watched or read than before."""

from __future__ import annotations

import time

from ..compare.followed_links import FollowedLinks
from ..feed.scanner import Scanner
from ..model.change import SCAN_ALL, Push
from ..watch.watcher import Watcher


class Rescans:
    """Requests such scans of one mirror. Not safe to use from many threads.

    Args:
        interval: seconds between two scans; 0: none.
        scanner: carries out the scans.
        links: what scans have decided about keys behind links.
        push: receives requests for scans.
    """

    def __init__(self, interval: float, scanner: Scanner, links: FollowedLinks, push: Push) -> None:
        self._interval = interval
        self._scanner = scanner
        self._links = links
        self._push = push
        self._watcher: Watcher | None = None
        self._next = time.monotonic() + interval if interval else float("inf")
        #: Number of directories that could not be read before, and for which everything was scanned.
        self._reopened = 0
        #: Whether a scan had decided about keys behind links at the last tick, and whether they were too many.
        self._decided_links = (False, False)

    def start(self, watcher: Watcher | None) -> None:
        """Use a watcher from now on; None: there is none."""
        self._watcher = watcher

    @property
    def is_due(self) -> bool:
        """Whether the interval is over."""
        return time.monotonic() >= self._next

    def request(self) -> None:
        """Request a scan of the whole source, and place watches that could not be placed before. The interval begins again."""
        self._next = time.monotonic() + self._interval
        if self._watcher:
            self._watcher.place_all()
        else:
            self._push((SCAN_ALL,))

    def place_behind_links(self) -> None:
        """Place watches again when a scan has decided anew whether keys behind links are too many. Before that, the watcher may have had no
        room for all directories behind links, and could not know which of them are mirrored."""
        decided = (self._links.has_decided, self._links.cut is not None)
        if decided != self._decided_links and self._watcher and self._watcher.without_room:
            self._watcher.place_all()
        self._decided_links = decided

    def request_if_reopened(self) -> None:
        """Scan the whole source once the last directory that could not be read can be. A scan of a part neither accepts the mirror nor
        finds it in sync."""
        scans = self._scanner.state
        if self._watcher is None or self._watcher.unreadable or self._watcher.reopened == self._reopened or scans.is_scanning:
            return
        if scans.last_report is None:
            return
        self._reopened = self._watcher.reopened
        if scans.last_report.error is None and not scans.last_report.complete:
            self._push((SCAN_ALL,))
