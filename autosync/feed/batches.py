"""Batches: keys on their way into the ledger and the queue.

A batch is marked in the ledger and published in one step. Whatever happens to its message, the ledger keeps its keys dirty, and the runner
sends them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..broker.celery_settings import DELETE, UPLOAD
from ..ledger import UNKNOWN, Hint
from ..ledger.key_states import KeyStates
from .broker_retry import BrokerRetry
from .publisher import Priority, Publisher

#: The smallest and the largest number of keys at which a batch of uploads is full, and the number of bytes. Between these limits, it holds
#: as many keys as all workers together process in `_BATCH_SECONDS`: each batch costs a worker as much as ten small files, and must not
#: delay the next one.
BATCH_KEYS, _LARGEST_BATCH = 100, 500
BATCH_BYTES = 64 << 20
#: The most keys of a batch of deletions. They are few requests for a worker: targets delete many keys with one.
_DELETES = 1000
_BATCH_SECONDS = 0.05
#: The time over which the workers' rate is measured, in seconds.
_RATE_SECONDS = 0.5
#: Events are gathered for this part of the time that their message would wait in the queue, and no longer than the second number in
#: seconds.
_GATHERED_PART, _LONGEST_GATHERING = 0.1, 0.05
#: A scan waits while more keys than this are dirty; events do not wait.
HIGH_WATER = 20_000
#: The interval at which the dirty keys are counted while a scan waits, in seconds.
_HIGH_WATER_PAUSE = 0.2


@dataclass
class Batch:
    """Keys that go into one message.

    Attributes:
        deletes: whether all keys are to be deleted; else all are to be uploaded.
        keys: the keys, each with its hint.
        size: the size of the files in bytes.
    """

    deletes: bool = False
    keys: list[tuple[str, Hint]] = field(default_factory=list)
    size: int = 0

    def add(self, key: str, hint: Hint) -> None:
        """Append a key."""
        self.keys.append((key, hint))
        self.size += max(hint.size, 0)

    def is_full(self, most: int = BATCH_KEYS) -> bool:
        """Whether the batch has reached `most` keys, or `BATCH_BYTES`."""
        return len(self.keys) >= most or self.size >= BATCH_BYTES


class BatchSizer:
    """Measures how many keys all workers together process in a second. From that follow the size of a batch, and for how long events are
    gathered into one.

    Args:
        clock: monotonic time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marked = self._processed = 0
        self._began = clock()
        self._rate = 0.0
        #: The most keys in one batch of uploads.
        self.batch_keys = BATCH_KEYS

    def record(self, fresh: int, dirty: int) -> None:
        """Measure once more, after a batch was marked.

        Args:
            fresh: number of keys that the batch made dirty.
            dirty: number of keys that are dirty now.
        """
        self._marked += fresh
        seconds = self._clock() - self._began
        if seconds >= _RATE_SECONDS:
            processed = self._marked - dirty
            self._rate = (processed - self._processed) / seconds
            self.batch_keys = min(max(int(self._rate * _BATCH_SECONDS), BATCH_KEYS), _LARGEST_BATCH)
            self._processed, self._began = processed, self._clock()

    def gathering_time(self, queued: int) -> float:
        """For how long to gather events before the next message, in seconds, so that a burst does not become one message for each event.

        Args:
            queued: number of keys before the next message in the queue.

        Returns:
            A tenth of the time that the message would wait anyway; 0.0 if it would not wait.
        """
        if queued < BATCH_KEYS:
            return 0.0
        return min(queued / max(self._rate, 1.0) * _GATHERED_PART, _LONGEST_GATHERING)


class BatchBuilder:
    """Sorts keys into batches of uploads and batches of deletions.

    Args:
        sizer: limits the batches of uploads.
    """

    def __init__(self, sizer: BatchSizer) -> None:
        self._sizer = sizer
        self._uploads = Batch()
        self._deletes = Batch(deletes=True)

    def add(self, key: str, hint: Hint) -> Batch | None:
        """Put a key into the batch of deletions if the hint says that its file is gone, else into the batch of uploads.

        Returns:
            That batch if it is full now; else None.
        """
        batch = self._deletes if hint.gone else self._uploads
        batch.add(key, hint)
        if not batch.is_full(_DELETES if batch.deletes else self._sizer.batch_keys):
            return None
        if batch.deletes:
            self._deletes = Batch(deletes=True)
        else:
            self._uploads = Batch()
        return batch

    def remaining(self) -> Iterator[Batch]:
        """The batches that are neither full nor empty, uploads first."""
        return (batch for batch in (self._uploads, self._deletes) if batch.keys)


class BatchSender:
    """Marks the keys of batches in the ledger and publishes their messages. Safe to use from many threads.

    Args:
        key_states: the states of the mirror's keys in the ledger.
        publisher: sends the mirror's messages.
        retry: waits for the broker.
        on_work: called before keys are marked or sent, so that workers can be started.
    """

    def __init__(self, key_states: KeyStates, publisher: Publisher, retry: BrokerRetry, on_work: Callable[[], None] = lambda: None) -> None:
        self._key_states = key_states
        self._publisher = publisher
        self._retry = retry
        self.on_work = on_work
        self.sizer = BatchSizer()

    def send_all(self, batches: Iterable[Batch], priority: Priority, *, bounded: bool = False) -> int:
        """Mark and publish batches. Waits while the broker is away.

        Args:
            batches: may be made on the way.
            priority: the priority of the messages.
            bounded: whether to wait after each batch until no more than `HIGH_WATER` keys are dirty.

        Returns:
            The number of dirty keys after the last batch; 0 if there was no batch.

        Raises:
            Stopped: the mirror was closed meanwhile.
        """
        dirty = 0
        for batch in batches:
            dirty = self._send(batch, priority)
            while bounded and dirty > HIGH_WATER:
                self._retry.pause(_HIGH_WATER_PAUSE)
                dirty = self._retry.retry_until_success(self._key_states.count_dirty)
        return dirty

    def resend(self, keys: Sequence[str], priority: Priority) -> None:
        """Publish messages for keys that are dirty already.

        Raises:
            BrokerError: the broker does not respond.
        """
        self.on_work()
        for start in range(0, len(keys), BATCH_KEYS):
            self._publisher.send(keys[start : start + BATCH_KEYS], priority=priority)

    def mark_unknown(self, keys: Sequence[str]) -> None:
        """Mark and publish keys whose state is not known, such as those of the failed list. Does not wait for the broker: the main loop
        calls this, and it is the main loop that starts a dead broker again.

        Raises:
            BrokerError: the broker does not respond.
        """
        self.on_work()
        for start in range(0, len(keys), BATCH_KEYS):
            self._publisher.mark([(key, UNKNOWN) for key in keys[start : start + BATCH_KEYS]], size=0, priority=Priority.SCAN)

    def _send(self, batch: Batch, priority: Priority) -> int:
        """Mark and publish one batch. Returns the number of dirty keys."""
        self.on_work()
        task = DELETE if batch.deletes else UPLOAD
        marked = self._retry.retry_until_success(lambda: self._publisher.mark(batch.keys, size=batch.size, priority=priority, task=task))
        self.sizer.record(len(marked.fresh), marked.dirty)
        return marked.dirty
