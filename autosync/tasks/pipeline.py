"""The way of a chunk of claims through a worker: check, delete or upload, report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial

from ..errors import Draining, LeaseLost, SourceReplaced, SourceUnsure
from ..ledger import Claim, Result
from .claimed_batch import Chunk, ClaimedBatch, is_small
from .delete import Deleter
from .dispute import dispute
from .file_check import Checker, Delete, Upload
from .file_limits import Reservation
from .report import Reporter
from .retry import RetryPolicy
from .sources import DirectoryCache
from .upload import Uploader


class Pipeline:
    """Makes the target right for the claims of one task.

    Args:
        batch: the batch of the task, without claims.
    """

    def __init__(self, batch: ClaimedBatch) -> None:
        self._batch = batch
        self._mirror = mirror = batch.mirror
        self._retries = RetryPolicy(mirror.definition.name, mirror.actor, mirror.definition.attempts, batch.worker.name)
        self._checker = Checker(self._batch)
        self._uploader = Uploader(self._batch, self._retries)
        self._deleter = Deleter(self._batch, self._retries)
        self._reporter = Reporter(self._batch)

    def run(self, claims: Sequence[Claim]) -> str:
        """Work on the claims until none is left. Returns a line for people: what was done."""
        queue = self._batch.queue
        queue.add(claims)
        try:
            while queue:
                self._mirror.pool.run(queue, self._work, self._report)
                queue.add(self._reporter.flush())
        finally:
            self._batch.close()
        return self._reporter.summary()

    def _report(self, results: Sequence[Result]) -> None:
        """Report results, if the next report is due."""
        self._reporter.add(results)
        again = self._reporter.flush(only_if_due=True)
        if again:
            self._batch.queue.add(again)

    def _work(self, chunk: Chunk) -> list[Result]:
        """Work on a chunk, as far as transfers may be in flight now. The rest goes back into the queue."""
        if chunk.is_deletion:
            return self._delete_together(chunk.claims)
        if not self._mirror.throttle.is_on:
            return self._work_on(chunk.claims)
        first = chunk.claims[0]
        is_large = not is_small(first) and not first.hint.gone
        check = partial(self._batch.check_claim, first.key)
        try:
            with self._mirror.throttle.in_flight(chunk.transfers, check, large=is_large) as allowed:
                most = allowed if chunk.transfers > 1 else len(chunk.claims)
                self._batch.queue.put_back(chunk.claims[most:])
                return self._work_on(chunk.claims[:most])
        except (Draining, LeaseLost) as error:
            action = self._retries.result(first, error).action
            return [Result(claim, action) for claim in chunk.claims]

    def _work_on(self, claims: list[Claim]) -> list[Result]:
        """Check the files of claims, delete what is gone, and upload the rest, at the same time where the actor can do so."""
        results: list[Result] = []
        uploads: list[Upload] = []
        with closing(DirectoryCache()) as directories, closing(Reservation(self._mirror.throttle, len(claims))) as reservation:
            for claim in claims:
                found = self._retries.attempt(claim, self._check, claim, reservation, directories if len(claims) > 1 else None)
                if isinstance(found, Upload):
                    uploads.append(found)
                else:
                    results.append(found)
        return results + self._uploader.upload(uploads) if uploads else results

    def _check(self, claim: Claim, reservation: Reservation, directories: DirectoryCache | None) -> Upload | Result:
        reservation.next()
        self._batch.check_claim(claim.key)
        if claim.unfinished:
            self._uploader.abandon(claim)
        try:
            found = self._checker.check(claim, reservation, directories)
            return self._deleter.delete(found, reservation) if isinstance(found, Delete) else found
        except SourceUnsure as error:
            path = self._batch.path(claim.key)
            if path is None or (self._mirror.same_host and not isinstance(error, SourceReplaced)):
                raise
            return dispute(self._batch, claim, path, "cannot check {}: " + error.what.replace("{", "{{").replace("}", "}}"))

    def _delete_together(self, claims: list[Claim]) -> list[Result]:
        """Delete with one request. Claims that need a check of their own go back into the queue."""
        try:
            with self._mirror.throttle.in_flight(1, partial(self._batch.check_claim, claims[0].key), large=False):
                results, left = self._deleter.delete_together(claims)
        except (Draining, LeaseLost):
            results, left = [], claims
        self._batch.queue.put_back(left)
        return results
