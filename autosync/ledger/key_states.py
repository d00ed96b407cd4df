"""The states of single keys, for operators and for commands that wait until nothing is dirty."""

from __future__ import annotations

from typing import cast

from .entries import Dispute, Facts, Hint, worker_of
from .failures import Failures
from .redis_keys import decode, encode
from .store import LedgerPart, MirrorStore

#: Number of keys that are read at once.
_PAGE = 1000


class KeyStates(LedgerPart):
    """The states of one mirror's keys; nothing is changed here.

    Every method raises `BrokerError`: see `LedgerPart`.

    Args:
        store: the mirror's data in Redis.
        failures: the mirror's failed list.
    """

    def __init__(self, store: MirrorStore, failures: Failures) -> None:
        super().__init__(store)
        self._failures = failures

    def count_dirty(self) -> int:
        """How many keys are dirty."""
        with self._store.errors():
            return int(self._client.hlen(self._names.state))

    def are_in_work(self) -> bool:
        """Whether a worker has claimed a key, or will claim one whose message waits in the queue. All other dirty keys wait until the file
        host sends a message for them: those with a next try, and those that a paused mirror has left in the queue."""
        with self._store.errors():
            pipe = self._client.pipeline()
            pipe.hlen(self._names.state)
            pipe.zcard(self._names.due)
            pipe.hexists(self._names.definition, "paused")
            pipe.time()
            dirty, due, is_paused, (seconds, microseconds) = pipe.execute()
            if dirty > due and not is_paused:
                return True
            now = seconds * 1000 + microseconds // 1000
            return any(self._is_any_claimed(first, now) for first in range(0, due, _PAGE))

    def _is_any_claimed(self, first: int, now: int) -> bool:
        """Whether a worker has claimed one of the keys on a page of those that are claimed or wait for their next try.

        Args:
            first: index of the first key.
            now: in milliseconds since the epoch.
        """
        found = cast(list[tuple[bytes, float]], self._client.zrange(self._names.due, first, first + _PAGE - 1, withscores=True))
        states = cast(list[bytes | None], self._client.hmget(self._names.state, [key for key, _ in found])) if found else []
        return any(state and lease > now and state.split(b" ", 4)[3] != b"-" for (_, lease), state in zip(found, states, strict=True))

    def facts(self, key: str) -> Facts:
        """The state of one key."""
        raw = encode(key)
        with self._store.errors():
            pipe = self._client.pipeline()
            pipe.hget(self._names.state, raw)
            pipe.zscore(self._names.dirty_since, raw)
            pipe.zscore(self._names.due, raw)
            pipe.hget(self._names.uploads, raw)
            pipe.hget(self._names.disputed, raw)
            pipe.time()
            state, since, due, uploads, disputed, (seconds, microseconds) = pipe.execute()
        now = seconds + microseconds / 1e6
        owner, attempts, hint = "", 0, None
        if state:
            _, _, tries, claimant, hint_text = state.decode().split(" ", 4)
            owner, attempts, hint = claimant if claimant != "-" else "", int(tries), Hint.loads(hint_text)
        return Facts(
            dirty=None if since is None else since / 1000,
            due=None if due is None else due / 1000,
            owner=owner,
            attempts=attempts,
            hint=hint,
            uploads=len(decode(uploads).split("\n")) if uploads else 0,
            failure=self._failures.get(key),
            now=now,
            dispute=_dispute(disputed, now) if disputed else None,
        )

    def claimed_by_worker(self, limit: int = 10_000) -> dict[str, list[str]]:
        """The keys that workers have claimed, by the name of the worker.

        Args:
            limit: the most keys that are read of those that are claimed or wait for their next try.
        """
        with self._store.errors():
            keys = cast(list[bytes], self._client.zrange(self._names.due, 0, limit - 1))
            states = cast(list[bytes | None], self._client.hmget(self._names.state, keys)) if keys else []
        found: dict[str, list[str]] = {}
        for key, state in zip(keys, states, strict=True):
            owner = state.split(b" ", 4)[3].decode() if state else "-"
            if owner != "-":
                found.setdefault(worker_of(owner), []).append(decode(key))
        return found


def _dispute(text: bytes, now: float) -> Dispute:
    tries, confirmed = map(int, text.split(b" "))
    return Dispute(tries, max(now - confirmed / 1000, 0.0) if confirmed else None)
