"""What every part of a mirror's ledger reads and writes through: the connection, the names in Redis, and the scripts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import redis

from .redis_connection import broker_errors
from .redis_keys import Names
from .scripts import Scripts, script_texts


class MirrorStore:
    """The data of one mirror in Redis. Safe to use from many threads.

    Args:
        client: a connection to the broker, see `connect`.
        mirror: the mirror's name.
    """

    def __init__(self, client: redis.Redis, mirror: str) -> None:
        self.client = client
        self.names = Names(mirror)
        self._scripts = Scripts(client, script_texts())

    def errors(self) -> AbstractContextManager[None]:
        """Raise `BrokerError` for each error of Redis inside the with-block."""
        return broker_errors(self.client)

    def run(self, script: str, args: Sequence[Any], keys: Sequence[str] | None = None) -> Any:
        """Run a script.

        Args:
            script: the script's name.
            args: ARGV in Lua.
            keys: KEYS in Lua; None: `Names.script_keys`.

        Returns:
            What the script returns, texts as bytes.

        Raises:
            BrokerError: Redis does not respond, or responds with an error.
        """
        with broker_errors(self.client):
            return self._scripts.run(script, keys or self.names.script_keys, args)


class LedgerPart:
    """One subject of a mirror's ledger.

    Every method of a part raises `BrokerError` when Redis does not respond or responds with an error.

    Args:
        store: the mirror's data in Redis.
    """

    def __init__(self, store: MirrorStore) -> None:
        self._store = store
        self._client = store.client
        self._names = store.names
