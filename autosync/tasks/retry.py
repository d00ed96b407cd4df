"""What becomes of a key whose operation has failed: whether it is retried, and when.

Here, and nowhere else, an error becomes a result, with one exception: what an upload box cannot check is disputed (`dispute.py`).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ..actor import Actor, without_secrets
from ..errors import AutosyncError, BrokerError, Draining, FileChanged, LeaseLost, PermanentError, SourceDenied
from ..ledger import Action, Claim, Failure, Result, now
from ..model.text import printable

log = logging.getLogger("autosync.transfer")

#: Delays grow from the first to the longest, in seconds. A target that was away for an hour is in sync half a minute after it came back.
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 30.0
#: The longest delay where nothing is wrong with the target: the file was changing, or the broker did not respond.
_LONGEST_SHORT_DELAY = 10.0

T = TypeVar("T")
P = ParamSpec("P")


class RetryPolicy:
    """Makes a result of every error.

    Args:
        mirror: name of the mirror, for the log.
        actor: whose secrets no reason may show.
        attempts: number of tries before a key goes to the failed list.
        worker: name of this worker, for the failed list and the log.
    """

    def __init__(self, mirror: str, actor: Actor, attempts: int, worker: str) -> None:
        self._mirror = mirror
        self._actor = actor
        self._attempts = attempts
        self._worker = worker

    def attempt(self, claim: Claim, step: Callable[P, T], *args: P.args, **options: P.kwargs) -> T | Result:
        """What a step of the work on a claim returns, or the result of its error."""
        try:
            return step(*args, **options)
        except Exception as error:
            return self.result(claim, error)

    def result(self, claim: Claim, error: Exception) -> Result:
        """The result of an error.

        Args:
            claim: the claim of the key.
            error: `PermanentError` is never retried by a worker.
        """
        if isinstance(error, LeaseLost):
            log.warning("%s", error, extra=self._log_fields(claim))
            return Result(claim, Action.LOST)
        if isinstance(error, Draining):
            return Result(claim, Action.BACK)
        if isinstance(error, FileChanged):
            log.info("%s; it is sent when it rests", error, extra=self._log_fields(claim))
            return _retry_soon(claim)
        if isinstance(error, BrokerError):  # an upload could not be noted: no fault of the file's, so it never gets into the failed list
            log.info("%s: %s; tried again", printable(claim.key), error, extra=self._log_fields(claim))
            return _retry_soon(claim)
        return self._retry_or_fail(claim, error)

    def _retry_or_fail(self, claim: Claim, error: Exception) -> Result:
        reason = str(error) if isinstance(error, AutosyncError) else f"{type(error).__name__}: {error}"
        reason = without_secrets(self._actor, reason)
        tries = claim.attempts + 1
        if isinstance(error, PermanentError) or tries >= self._attempts:
            # The file host reports failures as a whole.
            log.info("failed: %s: %s", printable(claim.key), reason, extra=self._log_fields(claim))
            failure = Failure(claim.key, reason, tries, self._worker, now())
            return Result(claim, Action.FAILED, failure=failure, is_denied=isinstance(error, SourceDenied))
        result = retry(claim)
        log.info("%s: %s; tried again in %.1f s", printable(claim.key), reason, result.delay, extra=self._log_fields(claim))
        return result

    def _log_fields(self, claim: Claim) -> dict[str, object]:
        """The fields of a line about a key in the JSON log."""
        return {"mirror": self._mirror, "key": claim.key, "attempt": claim.attempts + 1, "worker": self._worker}


def retry(claim: Claim) -> Result:
    """Retry later; the delay doubles with each attempt."""
    return Result(claim, Action.RETRY, delay=_delay(claim.attempts, _LONGEST_DELAY))


def check_again(claim: Claim) -> Result:
    """Retry after the shortest delay: the disk has changed since the key was claimed."""
    return Result(claim, Action.RETRY, delay=_FIRST_DELAY)


def refused(claim: Claim, error: AutosyncError, worker: str) -> Result:
    """The result where a worker cannot serve a mirror at all. The key gets into the failed list at once.

    Args:
        claim: the key's claim.
        error: why the mirror cannot be served. Its message has no secrets.
        worker: the worker's name, for the failed list.
    """
    return Result(claim, Action.FAILED, failure=Failure(claim.key, str(error), claim.attempts + 1, worker, now()))


def _retry_soon(claim: Claim) -> Result:
    """Retry later, where waiting for the target is not the reason."""
    return Result(claim, Action.RETRY, delay=_delay(claim.attempts, _LONGEST_SHORT_DELAY))


def _delay(attempts: int, longest: float) -> float:
    """Doubling, with jitter so that a fleet does not come back all at once; in seconds."""
    return float(min(_FIRST_DELAY * 2 ** min(attempts, 30), longest) * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
