"""Tries keys again that ran out of tries at the workers."""

from __future__ import annotations

import time

from ..feed.batches import BatchSender
from ..ledger import Ledger, MirrorStats

#: The interval, in seconds, in which keys that ran out of tries are tried again while no other key is: a target that was away may be back.
_RETRY_INTERVAL = 30.0


class FailedRetry:
    """Requeues the failed keys of one mirror. Not safe to use from many threads.

    Args:
        ledger: the mirror's ledger.
        sender: marks keys, and sends them.
        attempts: number of tries after which a key fails.
        once: whether the run ends when source and target are equal; then failed keys are not tried again.
    """

    def __init__(self, ledger: Ledger, sender: BatchSender, attempts: int, *, once: bool) -> None:
        self._ledger = ledger
        self._sender = sender
        self._attempts = attempts
        self._once = once
        self._next_retry = 0.0

    def retry(self, stats: MirrorStats) -> None:
        """Requeue keys that ran out of tries: the next rescan may be never. Keys that were refused for good wait for a rescan; for those
        whose files may not be read see `DeniedRetry`.

        Args:
            stats: the mirror's figures of now.

        Raises:
            BrokerError: the broker does not respond.
        """
        tried = stats.claimed - stats.disputed  # disputed keys may wait for long
        if self._once or not stats.failed or tried > 0 or time.monotonic() < self._next_retry:
            return
        self._next_retry = time.monotonic() + _RETRY_INTERVAL
        self.requeue(self._attempts)

    def requeue(self, min_attempts: int = 0) -> None:
        """Mark the keys of the failed list.

        Args:
            min_attempts: only those that have failed at least this number of times, and no denied ones; 0: all.

        Raises:
            BrokerError: the broker does not respond.
        """
        page: list[str] = []
        for failure in self._ledger.failures.all():
            if failure.attempts < min_attempts or (min_attempts and failure.next_try is not None):
                continue
            page.append(failure.key)
            if len(page) == 100:
                self._sender.mark_unknown(page)
                page = []
        if page:
            self._sender.mark_unknown(page)
