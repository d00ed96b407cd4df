"""The failed list of a mirror: keys that no worker tries any more, each with the reason of its last failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import cast

from .entries import Failure
from .redis_keys import decode, encode
from .store import MirrorStore


class Failures:
    """The failed list of one mirror. `Claims.done` adds to it and removes from it.

    Every method raises `BrokerError` when Redis does not answer or answers with an error.

    Args:
        store: the mirror's data in Redis.
    """

    def __init__(self, store: MirrorStore) -> None:
        self._store = store

    def all(self) -> Iterator[Failure]:
        """All entries, in no order."""
        with self._store.errors():
            for key, text in self._store.client.hscan_iter(self._store.names.failed, count=500):
                yield Failure(decode(key), *json.loads(text))

    def get(self, key: str) -> Failure | None:
        """The entry of one key; None: it is not in the list."""
        with self._store.errors():
            text = cast(bytes | None, self._store.client.hget(self._store.names.failed, encode(key)))
        return Failure(key, *json.loads(text)) if text else None
