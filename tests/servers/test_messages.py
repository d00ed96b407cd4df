"""The messages are those that Celery itself would send."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from autosync.broker.celery_settings import DELETE
from autosync.celery import sending_app
from autosync.feed.publisher import Priority, Publisher
from autosync.ledger import UNKNOWN, Ledger, connect

#: Drawn by chance each time; or the line for people once more, which Celery repeats where nobody reads it.
_PASSED_OVER = ("id", "root_id", "origin", "correlation_id", "delivery_tag", "reply_to")
_REPEATED = ("argsrepr", "kwargsrepr")


class Queue:
    """A publisher to a queue, and what it has put there."""

    def __init__(self, broker: str) -> None:
        self.app = sending_app(broker, "q", events=False)
        self.client = connect(broker)
        self.ledger = Ledger(self.client, "m")
        self.publisher = Publisher(self.app, "m", "q", self.ledger)

    def messages(self, priority: str = "") -> list[dict[str, Any]]:
        found: list[bytes] = self.client.lrange(f"autosync:q{priority}", 0, -1)  # type: ignore[assignment]
        return [json.loads(text) for text in found]


@pytest.fixture
def queue(broker: str) -> Queue:
    return Queue(broker)


def comparable(message: dict[str, Any]) -> dict[str, Any]:
    """A message, with its body read and without what need not be the same."""
    assert message["headers"]["id"] == message["headers"]["root_id"] == message["properties"]["correlation_id"]
    headers = {name: value for name, value in message["headers"].items() if name not in _PASSED_OVER}
    properties = {name: value for name, value in message["properties"].items() if name not in _PASSED_OVER + _REPEATED}
    return {**message, "body": json.loads(base64.b64decode(message["body"])), "headers": headers, "properties": properties}


@pytest.mark.parametrize(("priority", "list_of"), [(Priority.EVENT, ""), (Priority.SCAN, ":5"), (Priority.FIRST_SCAN, ":9")])
def test_a_message_is_the_one_that_celery_would_send(queue: Queue, priority: Priority, list_of: str) -> None:
    keys = ["a", "b/\udcff", "ü\n"]
    queue.publisher.mark([(key, UNKNOWN) for key in keys], size=7, priority=priority, task=DELETE)
    queue.app.send_task(
        DELETE, args=("m", keys), queue="q", priority=int(priority), argsrepr="m: a +2 (7 B)", kwargsrepr="", ignore_result=True
    )

    theirs, ours = queue.messages(list_of)
    assert comparable(ours) == comparable(theirs)
    assert ours["headers"]["id"] != theirs["headers"]["id"]
    assert ours["properties"]["delivery_tag"] != theirs["properties"]["delivery_tag"]


def test_a_message_goes_only_if_a_key_needs_it(queue: Queue) -> None:
    queue.publisher.mark([("a", UNKNOWN)], size=0, priority=Priority.EVENT)
    queue.publisher.mark([("a", UNKNOWN)], size=0, priority=Priority.EVENT)
    assert len(queue.messages()) == 1

    queue.publisher.mark([("a", UNKNOWN), ("b", UNKNOWN)], size=0, priority=Priority.EVENT)
    assert comparable(queue.messages()[0])["body"][0] == ["m", ["a", "b"]]
    queue.publisher.send(["a"], priority=Priority.SCAN)
    assert comparable(queue.messages(":5")[0])["body"][0] == ["m", ["a"]]


def test_time_outs_in_the_brokers_url_hold_for_all_connections(broker: str) -> None:
    url = f"{broker}?socket_timeout=7&socket_connect_timeout=3.5"
    with sending_app(url, "q").connection() as connection:
        channel = connection.default_channel
        clients = channel.client, channel._create_client(asynchronous=True), connect(url)
        found = [client.connection_pool.connection_kwargs for client in clients]

    assert [(each["socket_timeout"], each["socket_connect_timeout"]) for each in found] == [(7, 3.5)] * 3
