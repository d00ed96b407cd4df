"""The last results of a mirror, key by key."""

from __future__ import annotations

from typing import cast

from .entries import HistoryEntry, worker_of
from .redis_keys import encode
from .store import LedgerPart


class History(LedgerPart):
    """The last 10,000 results of one mirror. `Claims.done` writes them. Every method raises `BrokerError`: see `LedgerPart`."""

    def of_key(self, key: str) -> list[HistoryEntry]:
        """The results of one key, the newest first."""
        with self._store.errors():
            rows = cast(list[bytes], self._client.lrange(self._names.history, 0, -1))
        raw = encode(key)
        ending = b" " + raw
        split = (row.split(b" ", 4) for row in rows if row.endswith(ending))
        return [
            HistoryEntry(int(time) / 1000, worker_of(owner.decode()), what.decode(), int(number))
            for time, owner, what, number, found in split
            if found == raw
        ]
