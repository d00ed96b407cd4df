"""Which mirrors a broker has, and which queues they use."""

from __future__ import annotations

from typing import cast

import redis

from .redis_connection import broker_errors
from .redis_keys import MIRRORS, Names


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
