"""Renews the leases of this process: claims and in-flight slots, for as long as their transfers last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from .worker_mirror import WorkerMirror

log = logging.getLogger("autosync.transfer")

#: How many times in a lease claims are renewed, and how many times in a lease a renewal that has failed is tried again.
RENEWALS, _RETRIES = 3, 10
#: The limits of a target are read again after this time, in seconds.
_LIMITS_SECONDS = 1.0
#: Number of claims that are renewed with one request.
_PAGE = 500


class LeaseRenewal:
    """Two threads: one renews claims and slots, one reads the limits of targets again. They run until the process ends, since a claim must
    last while its transfer is being drained, too.

    Args:
        owner: the name of the claims' owner.
        mirrors: the mirrors by name; they are added and replaced while the threads run.
    """

    def __init__(self, owner: str, mirrors: Mapping[str, WorkerMirror]) -> None:
        self._owner = owner
        self._mirrors = mirrors
        self._is_started = False
        self._closed = threading.Event()
        #: Set when there is a mirror that the thread does not have yet.
        self._mirrors_changed = threading.Event()

    def include_all(self) -> None:
        """Renew the leases of all mirrors from now on. Called by one thread at a time, when a mirror was added or replaced."""
        if not self._is_started:
            self._is_started = True
            threading.Thread(target=self._renew_all, name="autosync-renew", daemon=True).start()
            threading.Thread(target=self._refresh_limits, name="autosync-limits", daemon=True).start()
        self._mirrors_changed.set()

    def close(self) -> None:
        """Let the leases expire."""
        self._closed.set()
        self._mirrors_changed.set()

    def _renew_all(self) -> None:
        while not self._closed.is_set():
            self._mirrors_changed.clear()
            for mirror in sorted(self._mirrors.values(), key=lambda one: one.next_renewal):
                if mirror.next_renewal <= time.monotonic():
                    self._renew_in_time(mirror)
            due = min(mirror.next_renewal for mirror in list(self._mirrors.values()))
            self._mirrors_changed.wait(max(due - time.monotonic(), 0.0))

    def _renew_in_time(self, mirror: WorkerMirror) -> None:
        """Renew the claims and slots of one mirror, and set the time of the next renewal."""
        began = time.monotonic()
        try:
            self._renew(mirror)
            mirror.is_late = False
            mirror.next_renewal = began + mirror.definition.lease / RENEWALS
        except Exception as error:  # the next try may succeed after any error, and without this thread no claim would last
            level = logging.DEBUG if mirror.is_late else logging.WARNING
            log.log(level, "claims of %s could not be renewed: %s", mirror.definition.name, error)
            mirror.is_late = True
            mirror.next_renewal = time.monotonic() + mirror.definition.lease / _RETRIES

    def _refresh_limits(self) -> None:
        """Limits may change while a large file is in flight. Without claims, no request to the broker is made."""
        while not self._closed.wait(_LIMITS_SECONDS):
            for mirror in list(self._mirrors.values()):
                if mirror.claim_table:
                    try:
                        mirror.throttle.refresh()
                    except Exception as error:  # the next try may succeed after any error
                        log.debug("the limits of %s could not be read: %s", mirror.definition.name, error)

    def _renew(self, mirror: WorkerMirror) -> None:
        mirror.throttle.slots.renew()
        times = mirror.claim_table.times()
        keys = list(times)
        for start in range(0, len(keys), _PAGE):
            page = keys[start : start + _PAGE]
            renewed_at = time.monotonic()
            lost = set(mirror.ledger.claims.renew(self._owner, page, mirror.definition.lease))
            for key in lost:
                mirror.claim_table.remove([key], times[key])
            mirror.claim_table.extend([key for key in page if key not in lost], renewed_at, mirror.definition.lease)
