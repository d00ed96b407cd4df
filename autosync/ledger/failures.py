"""The failed list of a mirror: keys that no worker tries any more, each with the reason of its last failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import cast

from .entries import Failure
from .redis_keys import decode, encode
from .store import LedgerPart


class Failures(LedgerPart):
    """The failed list of one mirror. `Claims.done` adds to it and removes from it. Every method raises `BrokerError`: see `LedgerPart`."""

    def all(self) -> Iterator[Failure]:
        """All entries, in no order."""
        with self._store.errors():
            for key, text in self._client.hscan_iter(self._names.failed, count=500):
                yield Failure(decode(key), *json.loads(text))

    def get(self, key: str) -> Failure | None:
        """The entry of one key; None: it is not in the list."""
        with self._store.errors():
            text = cast(bytes | None, self._client.hget(self._names.failed, encode(key)))
        return Failure(key, *json.loads(text)) if text else None
