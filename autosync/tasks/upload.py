"""Uploads the files of one batch, and ends uploads that killed workers have left open."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ..actor import without_secrets
from ..errors import PermanentError
from ..ledger import Action, Claim, Result
from ..model.text import printable
from .claimed_batch import ClaimedBatch
from .file_check import Upload
from .retry import RetryPolicy

log = logging.getLogger("autosync.transfer")

#: For how long a key waits at most while uploads of it are ended that killed workers have left open, in seconds.
_LONGEST_ABANDONING = 10.0


class Uploader:
    """Uploads the files of one batch.

    Args:
        batch: the batch.
        retries: makes results of errors.
    """

    def __init__(self, batch: ClaimedBatch, retries: RetryPolicy) -> None:
        self._batch = batch
        self._retries = retries

    def upload(self, uploads: Sequence[Upload]) -> list[Result]:
        """Upload files, at the same time where the actor can do so, and close them."""
        try:
            began = time.monotonic()
            errors = self._batch.actor.upload([one.file for one in uploads])
            seconds = time.monotonic() - began
            return [
                self._retries.attempt(one.claim, self._finish, one, seconds) if error is None else self._retries.result(one.claim, error)
                for one, error in zip(uploads, errors, strict=True)
            ]
        finally:
            for one in uploads:
                one.file.close()

    def _finish(self, upload: Upload, seconds: float) -> Result:
        """The result of an upload that has succeeded.

        Raises:
            FileChanged: the file has changed meanwhile.
        """
        claim, file = upload.claim, upload.file
        file.verify()
        # Where a process may have been changing the file, unchanged times mean nothing later.
        self._batch.sent[claim.key] = file.signature if upload.is_still else (file.signature[0], -1, -1, -1)
        return Result(claim, Action.UPLOADED, size=file.size, seconds=seconds)

    def abandon(self, claim: Claim) -> None:
        """End the uploads that killed workers have left open. One that cannot be ended now stays noted for the next claim, and the work on
        the key goes on; so it does after a while where the target does not respond.

        Raises:
            Draining, LeaseLost: see `ClaimedBatch.check_claim`.
        """
        actor, uploads = self._batch.mirror.actor, self._batch.mirror.ledger.uploads
        until = time.monotonic() + _LONGEST_ABANDONING
        for token in claim.unfinished:
            self._batch.check_claim(claim.key)
            try:
                actor.abandon(claim.key, token)
                uploads.remove(claim.key, token)
            except Exception as error:
                level = logging.WARNING if isinstance(error, PermanentError) else logging.INFO
                reason = without_secrets(actor, str(error))
                log.log(level, "%s: an unfinished upload stays open for now: %s", printable(claim.key), reason)
                if time.monotonic() > until:
                    return
