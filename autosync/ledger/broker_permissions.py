"""Checks that a broker responds and that its user may run the commands of a ledger."""

from __future__ import annotations

import redis

from .redis_connection import broker_errors
from .redis_keys import PREFIX
from .store import MirrorStore

#: No mirror can have this name.
_NO_MIRROR = "-"


def check_reachable(client: redis.Redis, channel: str = "") -> None:
    """Check that the broker responds, and that its user may run all commands that a ledger needs.

    Args:
        client: a connection to the broker.
        channel: one that the user has to be able to subscribe to as well; "": none.

    Raises:
        BrokerRefused: the broker refuses a command.
        BrokerError: the broker does not respond.
    """
    store = MirrorStore(client, _NO_MIRROR)
    with broker_errors(client):
        client.ping()
    store.run("permissions", [], [store.names.access_check])
    if channel:
        with broker_errors(client), client.pubsub() as subscription:  # type: ignore[no-untyped-call]
            database = client.connection_pool.connection_kwargs.get("db") or 0
            subscription.psubscribe(f"{PREFIX}/{database}.{channel}")  # as kombu does, whose names these are
            subscription.get_message(timeout=5)
