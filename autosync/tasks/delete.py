"""Deletes keys of one batch, each after a proof that its file is gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from ..errors import AutosyncError
from ..files import File
from ..ledger import Action, Claim, Result
from .claimed_batch import ClaimedBatch
from .dispute import dispute
from .file_check import Delete
from .file_limits import Reservation
from .retry import RetryPolicy, check_again
from .sources import MirrorSource


class Deleter:
    """Deletes keys of one batch.

    Args:
        batch: the batch.
        retries: makes results of errors.
    """

    def __init__(self, batch: ClaimedBatch, retries: RetryPolicy) -> None:
        self._batch = batch
        self._mirror = batch.mirror
        self._retries = retries

    def delete(self, found: Delete, reservation: Reservation) -> Result:
        """Delete one key, if the watcher or a scan has also seen that its file is gone.

        Where a key is dirty for another reason, its file may have gone while no watcher ran. Then acceptance and limits of deletions
        apply, which only a scan knows.

        Raises:
            AutosyncError: it cannot be proved now that the file is gone.
        """
        claim = found.claim
        if not claim.hint.gone:  # on an upload box, the file may also be only hidden
            return dispute(self._batch, claim, found.path, "does not see {}")
        self._batch.sent.pop(claim.key, None)
        if not self._mirror.definition.delete:
            return Result(claim, Action.NOTHING)
        reservation.acquire(0, partial(self._batch.check_claim, claim.key))  # before the proof, which must be fresh
        if self._mirror.source_of(found.path).prove_absent(found.path):
            if claim.dispute is not None:
                self._mirror.unseen.discard(found.path)
            return self._delete([claim])[0]
        reservation.release(0)
        if not self._mirror.same_host:  # some caches list a file that they cannot open
            return dispute(self._batch, claim, found.path, "still sees {}, which is gone")
        return check_again(claim)

    def delete_together(self, claims: list[Claim]) -> tuple[list[Result], list[Claim]]:
        """Delete many keys with one request.

        Returns:
            The results, and the claims that have to be checked one by one, since one check of a directory did not prove that the file is
            gone.

        Raises:
            Draining, LeaseLost: see `ClaimedBatch.check_claim`.
        """
        throttle = self._mirror.throttle
        throttle.acquire(1, 0, partial(self._batch.check_claim, claims[0].key))  # before the proof, which must be fresh
        gone = self._provably_gone(claims)
        if not gone:
            throttle.release(1, 0)
            return [], claims
        for claim in claims:
            if claim.dispute is not None and claim.key in gone:
                self._mirror.unseen.discard(self._batch.path(claim.key) or "")
        results = self._delete([claim for claim in claims if claim.key in gone])
        return results, [claim for claim in claims if claim.key not in gone]

    def _delete(self, claims: Sequence[Claim]) -> list[Result]:
        """Delete keys whose files are gone."""
        began = time.monotonic()
        errors = self._batch.actor.delete([File(claim.key) for claim in claims])
        seconds = time.monotonic() - began
        for claim in claims:
            self._batch.sent.pop(claim.key, None)
        return [
            Result(claim, Action.DELETED, seconds=seconds) if error is None else self._retries.result(claim, error)
            for claim, error in zip(claims, errors, strict=True)
        ]

    def _provably_gone(self, claims: list[Claim]) -> set[str]:
        """The keys of those claims whose files one check of their directory proves to be gone."""
        keys: dict[MirrorSource, dict[str, str]] = {}
        for claim in claims:
            path = self._batch.path(claim.key)
            if path is not None:
                keys.setdefault(self._mirror.source_of(path), {})[path] = claim.key
        try:
            for claim in claims:
                self._batch.check_claim(claim.key)
            return {found[path] for source, found in keys.items() for path in source.gone(found)}
        except AutosyncError:
            return set()
