"""Requests of operators for a mirror: a pause, scans, flush points, acceptance of pending items."""

from __future__ import annotations

from typing import cast

from .redis_keys import decode, encode
from .store import LedgerPart

#: How long a reached flush point is remembered, in seconds.
_FLUSH_POINT_SECONDS = 3600
#: The kinds of requests, in the words that Redis holds.
SCAN, FLUSH_POINT, ACCEPT = "look", "barrier", "accept"


class OperatorRequests(LedgerPart):
    """The requests of operators for one mirror. The watcher reads them once a second.

    Every method raises `BrokerError`: see `LedgerPart`.
    """

    def pause(self) -> None:
        """Let workers claim no more keys, until `resume`. They finish what they have claimed."""
        with self._store.errors():
            self._client.hset(self._names.definition, "paused", 1)

    def resume(self) -> None:
        """Let workers claim keys again. The watcher sends messages for the keys that became dirty meanwhile."""
        with self._store.errors():
            self._client.hdel(self._names.definition, "paused")

    def request_scan(self, path: str) -> None:
        """Request a scan at and below a path; "" for the whole source."""
        self._push(SCAN, path)

    def request_flush_point(self, name: str) -> None:
        """Request that the watcher confirms (`confirm_flush_point`) when all changes that the source had by then are marked."""
        self._push(FLUSH_POINT, name)

    def request_accept(self, item: str) -> None:
        """Request that the watcher accepts a pending item; see `state.pending`."""
        self._push(ACCEPT, item)

    def all(self) -> list[tuple[str, str]]:
        """The requests, in order: `SCAN` and a path, `FLUSH_POINT` and its name, or `ACCEPT` and the accepted item."""
        with self._store.errors():
            found = cast(list[bytes], self._client.lrange(self._names.requests, 0, -1))
        return [(kind, detail) for kind, _, detail in (decode(one).partition(" ") for one in found)]

    def remove_first(self, count: int) -> None:
        """Remove the first requests, which have been handled.

        Args:
            count: their number.
        """
        with self._store.errors():
            self._client.ltrim(self._names.requests, count, -1)

    def confirm_flush_point(self, name: str) -> None:
        """Store that all changes are marked that the source had when this flush point was requested."""
        with self._store.errors():
            seconds, microseconds = self._client.time()
            self._client.set(self._names.flush_point(name), seconds * 1000 + microseconds // 1000 + 1, ex=_FLUSH_POINT_SECONDS)

    def count_dirty_before(self, name: str) -> int | None:
        """How many keys have been dirty since before a flush point; None: it is not reached yet."""
        with self._store.errors():
            reached = cast(bytes | None, self._client.get(self._names.flush_point(name)))
            return None if reached is None else int(self._client.zcount(self._names.dirty_since, "-inf", reached.decode()))

    def _push(self, kind: str, detail: str) -> None:
        with self._store.errors():
            self._client.rpush(self._names.requests, encode(f"{kind} {detail}"))
