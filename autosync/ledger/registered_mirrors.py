"""The mirrors of a broker, with their definitions and when they ran last."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from .entries import seconds_of
from .mirror_names import mirror_names
from .redis_connection import broker_errors
from .redis_keys import Names


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
