"""Messages for the queue: the name of a mirror, keys, and a line for people. Never a path, a bucket or a credential."""

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
from ..model.text import human_size, printable


class Priority(IntEnum):
    """Priorities of messages. Celery's Redis transport delivers the lowest number first."""

    EVENT = 0
    SCAN = 5
    FIRST_SCAN = 9


class Publisher:
    """Sends batches of keys of one mirror to its workers.

    Celery and kombu make one message, which is the template of all others. Celery runs some two thousand lines for a message; for a single
    event, in a process that has just been asleep, that would take longer than all else.

    Every method raises `BrokerError` when the broker does not respond; it may have received the message then.

    Args:
        app: see `autosync.celery.sending_app`.
        mirror: the mirror's name.
        queue: the queue to send to.
        ledger: the mirror's ledger; messages go over its connection.
    """

    def __init__(self, app: Celery, mirror: str, queue: str, ledger: Ledger) -> None:
        self._app = app
        self._mirror = mirror
        self._queue = queue
        self._ledger = ledger

    def mark(self, found: Sequence[tuple[str, Hint]], *, size: int, priority: Priority, task: str = UPLOAD) -> Marked:
        """Mark keys as dirty and, if one of them needs it, send one message for all of them; both or neither.

        Args:
            found: the keys, with a hint each.
            size: the size of the files in bytes, for people.
            priority: the priority of the message.
            task: UPLOAD or DELETE. It is a name for people: the worker acts on what it finds on the disk.
        """
        headers, message = self._message([key for key, _ in found], size, priority, task)
        marked = self._ledger.claims.mark(found, message)
        if marked.fresh:
            self._publish_sent_event(headers)
        return marked

    def send(self, keys: Sequence[str], *, priority: Priority) -> None:
        """Send a message for keys that are dirty already."""
        headers, message = self._message(keys, 0, priority, UPLOAD)
        self._ledger.queues.send(message)
        self._publish_sent_event(headers)

    def announce(self) -> None:
        """Have upload boxes that serve every mirror read the list of mirrors at once. They read it each second anyway, but until all have
        done so the first one gets all messages."""
        with suppress(Exception):
            self._app.control.broadcast(SERVE)

    def prepare(self) -> None:
        """Make the template of messages now, so that the first message does not wait for it."""
        _ = self._template

    def close(self) -> None:
        """Close the connections."""
        self._app.close()

    @cached_property
    def _template(self) -> dict[str, Any]:
        return _make_template(self._app, self._queue)

    def _message(self, keys: Sequence[str], size: int, priority: Priority, task: str) -> tuple[dict[str, Any], Message]:
        """The headers and the message, in version 2 of Celery's message protocol."""
        name = str(uuid.uuid4())
        content, headers, properties = (self._template[part] for part in ("body", "headers", "properties"))
        headers = {**headers, "id": name, "root_id": name, "task": task, "argsrepr": batch_line(self._mirror, keys, size)}
        properties = {**properties, "correlation_id": name, "delivery_tag": str(uuid.uuid4()), "priority": int(priority)}
        body = base64.b64encode(json.dumps([[self._mirror, list(keys)], *content[1:]]).encode()).decode()
        text = json.dumps({**self._template, "body": body, "headers": headers, "properties": properties})
        return headers, Message(self._queue, int(priority), text)

    def _publish_sent_event(self, headers: dict[str, Any]) -> None:
        """Publish Celery's event `task-sent` if it is switched on. Nothing depends on it, so errors are ignored."""
        if not self._app.conf.task_send_sent_event:
            return
        with suppress(Exception), self._app.events.default_dispatcher() as dispatcher:
            dispatcher.send(
                "task-sent", uuid=headers["id"], root_id=headers["id"], parent_id=None, name=headers["task"], args=headers["argsrepr"],
                kwargs="", retries=0, eta=None, expires=None, queue=self._queue, exchange=self._queue, routing_key=self._queue,
            )  # fmt: skip


def batch_line(mirror: str, keys: Sequence[str], size: int) -> str:
    """One line that describes a batch to people: mirror, first key, how many more, size."""
    more = f" +{len(keys) - 1}" if len(keys) > 1 else ""
    return f"{mirror}: {printable(keys[0])}{more} ({human_size(size)})"


def _make_template(app: Celery, queue: str) -> dict[str, Any]:
    """A message as Celery and kombu put it into a list of Redis, with its body decoded. It is sent to a queue in this process's memory."""
    with Connection("memory://") as memory, memory.channel() as channel:
        made = app.amqp.as_task_v2("", UPLOAD, args=("", []), argsrepr="", kwargsrepr="", ignore_result=True)
        app.amqp.send_task_message(app.amqp.Producer(channel), UPLOAD, made, queue=queue, priority=0)
        sent = channel.basic_get(queue, no_ack=True)
        template: dict[str, Any] = sent.serializable()
        return {**template, "body": sent.decode()}
