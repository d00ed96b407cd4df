"""What goes through the queue: the name of a mirror and keys, and a line for people. Never a path, a bucket or a credential."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from functools import cached_property
from typing import Any

from celery import Celery
from kombu.connection import Connection

from ..broker.celery_settings import SERVE, UPLOAD
from ..ledger import Hint, Ledger, Marked, Message
from ..model.text import human_size, shown


class Priority(IntEnum):
    """Celery's Redis transport serves the lowest number first."""

    EVENT = 0
    LOOK = 5
    FIRST_LOOK = 9


class Publisher:
    """Sends batches of keys of one mirror to its workers.

    Celery and kombu make one message, and each batch fills in what is its own. Celery would go through some two thousand lines for each,
    which a single event, in a process that has just been asleep, would wait for longer than for all else.

    Every method raises `BrokerError` when the broker does not answer; it may have taken the message then.

    Args:
        app: see `autosync.celery.sending_app`.
        mirror: the mirror's name.
        queue: the queue to send to.
        ledger: of the mirror; messages go the same way.
    """

    def __init__(self, app: Celery, mirror: str, queue: str, ledger: Ledger) -> None:
        self._app = app
        self._mirror = mirror
        self._queue = queue
        self._ledger = ledger

    def mark(self, found: Sequence[tuple[str, Hint]], *, size: int, priority: Priority, task: str = UPLOAD) -> Marked:
        """Say that keys are dirty and, if one of them needs it, send a message for all; both or neither.

        Args:
            found: the keys with what is known of them.
            size: of the files in bytes, for people.
            priority: who is served first.
            task: UPLOAD or DELETE. It is a name for people as well: the worker goes by what it finds on the disk.
        """
        headers, message = self._message([key for key, _ in found], size, priority, task)
        marked = self._ledger.claims.mark(found, message)
        if marked.fresh:
            self._tell(headers)
        return marked

    def send(self, keys: Sequence[str], *, priority: Priority) -> None:
        """Send a message for keys that are marked already."""
        headers, message = self._message(keys, 0, priority, UPLOAD)
        self._ledger.queues.send(message)
        self._tell(headers)

    def announce(self) -> None:
        """Have the boxes that serve every mirror look at once which there are. They look each second by themselves, but the first to do so
        has all the work until then."""
        with suppress(Exception):
            self._app.control.broadcast(SERVE)

    def prepare(self) -> None:
        """Have all there that the first message needs, so that it does not wait for that."""
        _ = self._pattern

    def close(self) -> None:
        """Close the connections."""
        self._app.close()

    @cached_property
    def _pattern(self) -> dict[str, Any]:
        return _pattern(self._app, self._queue)

    def _message(self, keys: Sequence[str], size: int, priority: Priority, task: str) -> tuple[dict[str, Any], Message]:
        """The message, and what its headers say: docs.celeryq.dev, "Message Protocol", version 2."""
        name = str(uuid.uuid4())
        content, headers, properties = (self._pattern[part] for part in ("body", "headers", "properties"))
        headers = {**headers, "id": name, "root_id": name, "task": task, "argsrepr": batch_line(self._mirror, keys, size)}
        properties = {**properties, "correlation_id": name, "delivery_tag": str(uuid.uuid4()), "priority": int(priority)}
        body = base64.b64encode(json.dumps([[self._mirror, list(keys)], *content[1:]]).encode()).decode()
        text = json.dumps({**self._pattern, "body": body, "headers": headers, "properties": properties})
        return headers, Message(self._queue, int(priority), text)

    def _tell(self, headers: dict[str, Any]) -> None:
        """Celery's event that a message waits, where somebody may listen; a courtesy, which must not hold anything up."""
        if not self._app.conf.task_send_sent_event:
            return
        with suppress(Exception), self._app.events.default_dispatcher() as dispatcher:
            dispatcher.send(
                "task-sent", uuid=headers["id"], root_id=headers["id"], parent_id=None, name=headers["task"], args=headers["argsrepr"],
                kwargs="", retries=0, eta=None, expires=None, queue=self._queue, exchange=self._queue, routing_key=self._queue,
            )  # fmt: skip


def batch_line(mirror: str, keys: Sequence[str], size: int) -> str:
    """One line that tells a person what a batch is: mirror, first key, how many more, bytes."""
    more = f" +{len(keys) - 1}" if len(keys) > 1 else ""
    return f"{mirror}: {shown(keys[0])}{more} ({human_size(size)})"


def _pattern(app: Celery, queue: str) -> dict[str, Any]:
    """A message as Celery and kombu put it into a list of Redis, with its body as a value: sent to this process's own memory."""
    with Connection("memory://") as memory, memory.channel() as channel:
        made = app.amqp.as_task_v2("", UPLOAD, args=("", []), argsrepr="", kwargsrepr="", ignore_result=True)
        app.amqp.send_task_message(app.amqp.Producer(channel), UPLOAD, made, queue=queue, priority=0)
        sent = channel.basic_get(queue, no_ack=True)
        pattern: dict[str, Any] = sent.serializable()
        return {**pattern, "body": sent.decode()}
