"""Messages to the workers, in the lists that kombu reads."""

from __future__ import annotations

from collections.abc import Iterable

from .entries import Message
from .redis_keys import PRIORITIES, queue_list
from .store import LedgerPart


class Queues(LedgerPart):
    """The Celery queues at a mirror's broker. Every method raises `BrokerError`: see `LedgerPart`."""

    def send(self, message: Message) -> None:
        """Put a message into its queue."""
        with self._store.errors():
            self._client.lpush(queue_list(message.queue, message.priority), message.text)

    def count_waiting(self, queue: str, priorities: Iterable[int] = PRIORITIES) -> int:
        """How many messages wait in a queue, over these priorities."""
        with self._store.errors():
            pipe = self._client.pipeline(transaction=False)
            for priority in priorities:
                pipe.llen(queue_list(queue, priority))
            return int(sum(pipe.execute()))

    def delete(self, queue: str) -> None:
        """Delete all messages that wait in a queue."""
        with self._store.errors():
            self._client.delete(*(queue_list(queue, priority) for priority in PRIORITIES))
