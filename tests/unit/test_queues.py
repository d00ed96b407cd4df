"""Each mirror has a queue. A worker serves the queues of its configuration, or all; none of several queues gets all of its threads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autosync.broker.redis_transport import Channel

# What is served


# Fair shares


def channel(prefetch: int, *queues: str, unacked: dict[str, int]) -> Any:
    """The attributes that `Channel._queues_at_limit` reads."""
    by_tag = {f"{queue}-{number}": queue for queue, count in unacked.items() for number in range(count)}
    return SimpleNamespace(active_queues={*queues}, qos=SimpleNamespace(prefetch_count=prefetch), _unacked_queues=by_tag)


@pytest.mark.parametrize(
    ("prefetch", "unacked", "full"),
    [
        (8, {}, ""),
        (8, {"a": 3}, ""),
        (8, {"a": 4}, "a"),
        (8, {"a": 4, "b": 2}, "ab"),
        (8, {"a": 4, "b": 2, "c": 1}, "abc"),
        (8, {"a": 3, "b": 3}, "ab"),
        (8, {"a": 2, "b": 2}, ""),
        (2, {"a": 1}, "a"),
        (1, {}, ""),
        (0, {"a": 50}, ""),
    ],
)
def test_a_queue_gets_a_thread_as_long_as_it_has_fewer_than_are_free(prefetch: int, unacked: dict[str, int], full: str) -> None:
    assert Channel._queues_at_limit(channel(prefetch, "a", "b", "c", "d", "autosync", unacked=unacked)) == {*full}


@pytest.mark.parametrize("queues", [("a",), ("a", "autosync")])
def test_a_queue_that_is_alone_gets_all(queues: tuple[str, ...]) -> None:
    assert Channel._queues_at_limit(channel(8, *queues, unacked={"a": 7})) == set()
