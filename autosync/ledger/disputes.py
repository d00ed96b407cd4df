"""Disputed keys: a worker does not see what the file host saw, so the file host has to check the file once more.

The file host may have seen a file that a worker does not find; or the worker still finds a file that is gone, or an old version. Then the
worker reports no result for the key (`Claims.done` with DISPUTED); the watcher reads these keys and resolves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from .entries import DisputedKey, Hint
from .redis_keys import decode, encode, pages
from .store import LedgerPart, MirrorStore
from .worker_notes import WorkerNotes


class Resolution(NamedTuple):
    """What the file host has found out about a disputed key.

    Attributes:
        disputed: the key.
        hint: what is at its path now; None: that is not certain yet.
        is_kept: whether the target has to be left as it is. If so, there is no hint, and the key is no longer dirty.
    """

    disputed: DisputedKey
    hint: Hint | None = None
    is_kept: bool = False


class Disputes(LedgerPart):
    """The disputed keys of one mirror. Every method raises `BrokerError`: see `LedgerPart`.

    Args:
        store: the mirror's data in Redis.
    """

    def __init__(self, store: MirrorStore) -> None:
        super().__init__(store)
        #: Notes of workers that do not see what the file host confirmed minutes ago, each with one file.
        self.unseen = WorkerNotes(store, store.names.unseen)

    def unresolved(self, limit: int) -> list[DisputedKey]:
        """The disputed keys that wait longest for a resolution, not more than the limit."""
        with self._store.errors():
            keys = cast(list[bytes], self._client.zrange(self._names.unresolved, 0, limit - 1))
            states = cast(list[bytes | None], self._client.hmget(self._names.state, keys)) if keys else []
        return [_disputed_key(key, state) for key, state in zip(keys, states, strict=True)]

    def resolve(self, resolutions: Sequence[Resolution]) -> list[str]:
        """Store resolutions. A resolution has no effect if the key was claimed or marked since it was read.

        Returns:
            The keys for which the caller has to send a message, since their hints have changed.
        """
        found = []
        for page in pages(resolutions):
            args: list[Any] = []
            for one in page:
                text = "kept" if one.is_kept else one.hint.dumps() if one.hint else "later"
                args += (encode(one.disputed.key), one.disputed.generation, text)
            found += [page[index - 1].disputed.key for index in self._store.run("resolve_disputes", args)]
        return found


def _disputed_key(key: bytes, state: bytes | None) -> DisputedKey:
    if state is None:
        return DisputedKey(decode(key), "", None)
    generation, _, _, _, hint = state.decode().split(" ", 4)
    return DisputedKey(decode(key), generation, Hint.loads(hint))
