"""The failed list of a mirror: keys that no worker tries any more, each with the reason of its last failure.

A key is *denied* if its file may not be read. The watcher marks it again when permissions change, and after growing delays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import cast

from .entries import Failure
from .redis_keys import decode, encode, pages
from .store import LedgerPart

#: Number of entries that are read with one command.
_PAGE = 500


class Failures(LedgerPart):
    """The failed list of one mirror. `Claims.done` adds to it and removes from it. Every method raises `BrokerError`: see `LedgerPart`."""

    def all(self) -> Iterator[Failure]:
        """All entries, in no order."""
        cursor = None
        while cursor != 0:
            with self._store.errors():
                cursor, found = cast(
                    tuple[int, dict[bytes, bytes]], self._client.hscan(self._names.failed, cursor or 0, count=_PAGE)
                )  # fmt: skip
                due = self._due(list(found))
            for (key, text), at in zip(found.items(), due, strict=True):
                yield Failure(decode(key), *json.loads(text))._replace(next_try=at)

    def get(self, key: str) -> Failure | None:
        """The entry of one key; None: it is not in the list."""
        with self._store.errors():
            text = cast(bytes | None, self._client.hget(self._names.failed, encode(key)))
            (at,) = self._due([encode(key)])
        return Failure(key, *json.loads(text))._replace(next_try=at) if text else None

    def are_denied(self, keys: Sequence[str]) -> list[bool]:
        """Whether each of the keys is denied."""
        with self._store.errors():
            return [at is not None for page in pages(keys) for at in self._due([encode(key) for key in page])]

    def pop_due_denied(self, limit: int) -> list[str]:
        """The denied keys whose next try is due; the caller marks them. The delay before each further try doubles, from half a minute to an
        hour. A key that was denied for the first time is due at once.

        Args:
            limit: the most keys.
        """
        return self._retry_denied(limit, ())

    def pop_denied(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys that are denied; the caller marks them, since their permissions may have changed. Their delays begin with the
        shortest one again."""
        return [key for page in pages(keys) for key in self._retry_denied(0, page)]

    def forget_denied(self) -> None:
        """Make all denied keys ordinary failed keys. A key is denied again when a worker may not read its file."""
        with self._store.errors():
            self._client.delete(self._names.denied, self._names.denied_delays)

    def _retry_denied(self, limit: int, keys: Sequence[str]) -> list[str]:
        names = self._names
        script_keys = [*names.script_keys, names.denied, names.denied_delays]
        found: list[bytes] = self._store.run("retry_denied", [limit, *map(encode, keys)], script_keys)
        return [decode(key) for key in found]

    def _due(self, keys: Sequence[bytes]) -> list[float | None]:
        """The latest time of the next try of each key, in seconds since the epoch; None: the key is not denied."""
        if not keys:
            return []
        found = self._client.zmscore(self._names.denied, cast(list[str], keys))
        return [None if at is None else at / 1000 for at in found]


def dumps(failure: Failure) -> str:
    """An entry in the form that Redis stores. Readers of all versions expect these four values."""
    return json.dumps([failure.reason, failure.attempts, failure.worker, failure.time])
