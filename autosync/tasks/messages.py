"""What goes through the queue: the name of a mirror and keys, and a line for people. Never a path, a bucket or a credential."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import kombu.exceptions
import redis.exceptions
from celery import Celery

from ..errors import BrokerError
from ..wording import human_size, shown

UPLOAD = "autosync.upload"
DELETE = "autosync.delete"


class Priority(IntEnum):
    """Celery's Redis transport serves the lowest number first."""

    EVENT = 0
    LOOK = 5
    FIRST_LOOK = 9


class Publisher:
    """Sends batches of keys.

    Args:
        app: see `autosync.celery.sending_app`.
        queue: the queue to send to.
    """

    def __init__(self, app: Celery, queue: str) -> None:
        self._app = app
        self._queue = queue

    def send(self, mirror: str, keys: Sequence[str], *, size: int, priority: Priority, task: str = UPLOAD) -> None:
        """Send one batch.

        Args:
            mirror: the mirror's name.
            keys: marked in the ledger before.
            size: of the files in bytes, for people.
            priority: who is served first.
            task: UPLOAD or DELETE. It is a name for people as well: the worker goes by what it finds on the disk.

        Raises:
            BrokerError: it is not certain that the message arrived.
        """
        try:
            self._app.send_task(
                task,
                args=(mirror, list(keys)),
                queue=self._queue,
                priority=int(priority),
                argsrepr=batch_line(mirror, keys, size),
                kwargsrepr="",
                ignore_result=True,
                retry=False,
            )
        except (kombu.exceptions.KombuError, redis.exceptions.RedisError, OSError) as error:
            raise BrokerError(f"the message could not be sent: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._app.close()


def batch_line(mirror: str, keys: Sequence[str], size: int) -> str:
    """One line that tells a person what a batch is: mirror, first key, how many more, bytes."""
    more = f" +{len(keys) - 1}" if len(keys) > 1 else ""
    return f"{mirror}: {shown(keys[0])}{more} ({human_size(size)})"
