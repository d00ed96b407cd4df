"""Dirty keys and the claims of workers on them.

The ledger is the truth; Celery's messages are hints. A key is dirty from `mark` until a worker's `done`. At most one worker has claimed it
at a time. A change that arrives meanwhile raises the generation of the key, and then `done` returns a new claim for it. `requeue_orphans`
finds the keys whose worker is gone. Each step is one script in `scripts/`; mark_dirty.lua describes the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..model.mirror import LEASE
from .entries import Action, Claim, Dispute, Hint, Marked, Message, Result
from .failures import dumps
from .redis_keys import decode, encode, pages, queue_list
from .store import LedgerPart, MirrorStore


class Claims(LedgerPart):
    """The dirty keys of one mirror, and who has claimed them. Safe to use from many threads.

    Every method raises `BrokerError`: see `LedgerPart`.

    Args:
        store: the mirror's data in Redis.
    """

    def __init__(self, store: MirrorStore) -> None:
        super().__init__(store)
        names = store.names
        self._result_keys = [*names.script_keys, names.history, names.watcher, names.denied, names.denied_delays]
        #: Whether there was a limit, or a target that had demanded fewer requests, at the last `claim`.
        self.is_limited = False

    def mark(self, found: Sequence[tuple[str, Hint]], message: Message | None = None) -> Marked:
        """Mark keys as dirty.

        Args:
            found: the keys, each with what the file host saw.
            message: for the workers. It is sent in the same step, if one of the keys needs one: so no marked key lacks its message, and a
                message for keys that are not marked has no effect.
        """
        dirty, fresh = 0, []
        keys = [*self._names.script_keys, queue_list(message.queue, message.priority)] if message else None
        for page in pages(found) or [()]:
            args: list[bytes | str] = []
            for key, hint in page:
                args += (encode(key), hint.dumps())
            if message is not None:
                args.append(message.text)
            dirty, *indexes = self._store.run("mark_dirty", args, keys)
            fresh += [page[index - 1][0] for index in indexes]
        return Marked(dirty, fresh)

    def claim(self, owner: str, version: str, keys: Sequence[str], lease: float = LEASE) -> list[Claim] | None:
        """Claim those of the keys that are dirty and not claimed.

        Args:
            owner: name of the claimant, without spaces.
            version: the version of the definition that the worker has.
            keys: the keys.
            lease: how long the claims last without a renewal, in seconds.

        Returns:
            The claims, or None if the mirror has another definition by now and nothing was claimed.
        """
        claims: list[Claim] = []
        for page in pages(keys):
            replies = self._store.run("claim_keys", [owner, int(lease * 1000), version, *map(encode, page)])
            if replies is None:
                return claims or None  # claims of earlier pages are used; the other keys wait for a worker with the new definition
            self.is_limited = bool(replies.pop(0))
            claims += [_claim(key, reply) for key, reply in zip(page, replies, strict=True) if not isinstance(reply, int)]
        return claims

    def renew(self, owner: str, keys: Sequence[str], lease: float = LEASE) -> list[str]:
        """Renew claims for another lease, in seconds. Returns the keys that this owner has lost."""
        lost = []
        for page in pages(keys):
            lost += [page[index - 1] for index in self._store.run("renew_claims", [owner, int(lease * 1000), *map(encode, page)])]
        return lost

    def done(self, owner: str, results: Sequence[Result]) -> tuple[list[Claim], list[str]]:
        """Store the results of claimed keys.

        Returns:
            New claims of the keys that have changed meanwhile: their files have to be read again. And the keys whose claim was lost before
            this call: another worker may have acted on them since, so mark them again if that matters.
        """
        again: list[Claim] = []
        lost: list[str] = []
        for page in pages(results):
            uploaded = [one.size for one in page if one.action is Action.UPLOADED]
            deleted = sum(one.action is Action.DELETED for one in page)
            args: list[Any] = [owner, len(uploaded), sum(uploaded), deleted]
            for one in page:
                args += (encode(one.claim.key), one.claim.fencing_token, _result_line(one))
            for one, reply in zip(page, self._store.run("store_results", args, self._result_keys), strict=True):
                if reply is None:
                    continue
                if isinstance(reply, bytes):
                    again.append(_claim(one.key, reply))
                else:
                    lost.append(one.key)
        return again, lost

    def requeue_orphans(self, limit: int = 1000, age: float | None = None) -> list[str]:
        """Free the keys whose lease has run out or whose next try is due.

        Args:
            limit: at most this many keys.
            age: if there are no such keys, keys are returned that have been dirty and unclaimed for so many seconds, since their message
                seems to be lost; None: no such keys.

        Returns:
            The keys for which the caller has to send a message.
        """
        found: list[bytes] = self._store.run("requeue_orphans", [limit, -1 if age is None else int(age * 1000)])
        return [decode(key) for key in found]

    def release_claims_of_dead(self, owners: str) -> int:
        """End the claims of workers that are known to be dead, so that the next `requeue_orphans` finds their keys.

        Args:
            owners: prefix of the names of these owners; "": all owners.

        Returns:
            How many claims there were.
        """
        return int(self._store.run("release_claims_of_dead", [owners]))


#: The words of store_results.lua for results without a number or text.
_WORDS = {Action.DELETED: "deleted", Action.NOTHING: "equal", Action.BACK: "back", Action.DISPUTED: "disputed"}


def _result_line(result: Result) -> str:
    """A result as store_results.lua reads it."""
    if result.action is Action.RETRY:
        return f"retry {int(result.delay * 1000)}"
    if result.action is Action.FAILED:
        return f"{'denied' if result.is_denied else 'failed'} {dumps(result.failure) if result.failure else ''}"
    return f"sent {result.size}" if result.action is Action.UPLOADED else _WORDS[result.action]


def _claim(key: str, reply: bytes | list[bytes]) -> Claim:
    """A claim from a reply of claim_keys.lua or store_results.lua."""
    text, unfinished, disputed = (reply, b"", b"") if isinstance(reply, bytes) else reply
    fencing_token, attempts, hint = text.decode().split(" ", 2)
    tokens = tuple(decode(unfinished).split("\n")) if unfinished else ()
    return Claim(key, int(attempts), Hint.loads(hint), tokens, fencing_token, _dispute(disputed.decode()) if disputed else None)


def _dispute(text: str) -> Dispute:
    tries, confirmed_for = text.split(" ")
    return Dispute(int(tries), int(confirmed_for) / 1000 if int(confirmed_for) >= 0 else None)
