"""The mirrors of a broker: their names, their queues, their definitions, and when they ran last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import redis

from .entries import seconds_of
from .redis_connection import broker_errors
from .redis_keys import MIRRORS, Names


@dataclass(frozen=True)
class RegisteredMirror:
    """A mirror as its broker knows it.

    Attributes:
        name: the mirror's name.
        definition: the definition as `Mirror.dumps` writes it; "" if it is lost.
        ran_at: when the mirror ran last, in seconds since the epoch; None if it is unknown: an older version watched it.
        is_watched: whether a watcher runs.
    """

    name: str
    definition: str
    ran_at: float | None
    is_watched: bool


def mirror_names(client: redis.Redis) -> list[str]:
    """The names of all mirrors whose definition was ever published at this broker.

    Raises:
        BrokerError: the broker does not respond.
    """
    with broker_errors(client):
        return sorted(name.decode() for name in cast(set[bytes], client.smembers(MIRRORS)))


def queues_of_mirrors(client: redis.Redis) -> list[str]:
    """The queues of all mirrors that this broker has.

    Raises:
        BrokerError: the broker does not respond.
    """
    names = mirror_names(client)
    with broker_errors(client):
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.hget(Names(name).definition, "queue")
        return sorted({found.decode("utf-8", "replace") for found in pipe.execute() if found})


def registered_mirrors(client: redis.Redis) -> list[RegisteredMirror]:
    """All mirrors of a broker, sorted by name.

    Raises:
        BrokerError: the broker does not respond.
    """
    names = mirror_names(client)
    with broker_errors(client):
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.hmget(Names(name).definition, ["definition", "ran_at", "cleared"])
            pipe.get(Names(name).watcher)
            pipe.lrange(Names(name).history, 0, 0)
        rows = pipe.execute()
    found = []
    for name, (definition, ran_at, in_sync), holder, last in zip(names, rows[::3], rows[1::3], rows[2::3], strict=True):
        # An older version stored when it was in sync, and when a key was last sent.
        times = [
            seconds_of(ran_at),
            seconds_of((in_sync or b"").rpartition(b" ")[2]),
            *(seconds_of(row.partition(b" ")[0], 1000) for row in last),
        ]
        known = max((time for time in times if time is not None), default=None)
        text = definition.decode("utf-8", "replace") if definition else ""
        found.append(RegisteredMirror(name, text, known, bool(holder)))
    return found
