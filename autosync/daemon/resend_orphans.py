"""Sends keys again that no worker would try otherwise: those whose message is lost, and those with an open multipart upload."""

from __future__ import annotations

import time

from ..feed.batches import BatchSender
from ..feed.publisher import Priority
from ..ledger import Ledger, MirrorStats

#: A dirty key that no worker has claimed is sent again at this age, in seconds: with an empty queue, and with one that is not empty.
_ORPHAN_AGE, _ORPHAN_AGE_IN_BACKLOG = 5.0, 600.0
#: Number of times that all unclaimed keys are sent again after messages may be lost: the first time may find expired leases only.
_RESENDS_AFTER_LOSS = 2
_ORPHANS_AT_ONCE = 1000
_ORPHAN_PAGES = 20


class OrphanResender:
    """Sends such keys of one mirror. Not safe to use from many threads.

    Args:
        ledger: the mirror's ledger.
        sender: marks keys, and sends them.
        queue: the queue of the mirror's messages.
    """

    def __init__(self, ledger: Ledger, sender: BatchSender, queue: str) -> None:
        self._ledger = ledger
        self._sender = sender
        self._queue = queue
        self._next_backlog_check = time.monotonic() + _ORPHAN_AGE_IN_BACKLOG
        #: Number of times that orphans of any age are still sent again.
        self._resends_after_loss = 0

    def note_loss(self) -> None:
        """Note that the broker may have lost messages: the next calls of `resend` send messages for orphans of any age."""
        self._resends_after_loss = _RESENDS_AFTER_LOSS

    def resend(self, stats: MirrorStats) -> None:
        """Send messages for keys whose lease has expired or whose next try is due, or else for those whose message seems to be lost.

        Args:
            stats: the mirror's figures of now.

        Raises:
            BrokerError: the broker does not respond.
        """
        if not stats.dirty:
            return
        age = self._orphan_age()
        before: list[str] = []
        for _ in range(_ORPHAN_PAGES):
            keys = self._ledger.claims.requeue_orphans(_ORPHANS_AT_ONCE, age)
            if keys == before:  # orphans are found again until a worker has claimed them
                return
            self._sender.resend(keys, Priority.EVENT if len(keys) < _ORPHANS_AT_ONCE else Priority.SCAN)
            if len(keys) < _ORPHANS_AT_ONCE:
                return
            before = keys

    def requeue_unfinished(self) -> None:
        """Mark all keys with an open multipart upload: the worker that claims a key aborts what others have left open. Most of these
        uploads are still running, and marking their keys does no harm.

        Raises:
            BrokerError: the broker does not respond.
        """
        keys = list(self._ledger.uploads.all())
        if keys:
            self._sender.mark_unknown(keys)

    def _orphan_age(self) -> float | None:
        """The age from which a key counts as an orphan, in seconds; None: only keys whose lease has expired or whose next try is due.

        While messages wait in the queue, that of the key may be among them. To send one again does no harm, but to send thousands again
        each second would, so that is done rarely.
        """
        if self._ledger.queues.count_waiting(self._queue) == 0:
            if not self._resends_after_loss:
                return _ORPHAN_AGE
            self._resends_after_loss -= 1
            return 0.0
        if time.monotonic() < self._next_backlog_check:
            return None
        self._next_backlog_check = time.monotonic() + _ORPHAN_AGE_IN_BACKLOG
        return _ORPHAN_AGE_IN_BACKLOG
