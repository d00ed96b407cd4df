"""Whether a failed operation is retried, and when."""

from __future__ import annotations

import logging
import random

from ..actor import Actor, without_secrets
from ..errors import AutosyncError, PermanentError
from ..ledger import Action, Claim, Failure, Result, now
from ..model.text import printable

log = logging.getLogger("autosync.transfer")

#: Delays grow from the first to the longest, in seconds. A target that was away for an hour is in sync half a minute after it came back.
FIRST_DELAY, _LONGEST_DELAY = 0.25, 30.0
#: The longest delay where nothing is wrong with the target: the file was changing, or the broker did not answer.
_LONGEST_SHORT_DELAY = 10.0


def retry(claim: Claim) -> Result:
    """Retry later; the delay doubles with each attempt."""
    return Result(claim, Action.RETRY, delay=_delay(claim.attempts, _LONGEST_DELAY))


def retry_soon(claim: Claim) -> Result:
    """Retry later, where waiting for the target is not the reason."""
    return Result(claim, Action.RETRY, delay=_delay(claim.attempts, _LONGEST_SHORT_DELAY))


def retry_or_fail(claim: Claim, error: Exception, actor: Actor, *, attempts: int, worker: str) -> Result:
    """What becomes of a key whose operation has failed.

    Args:
        claim: of the key.
        error: `PermanentError` is never retried.
        actor: whose secrets the reason must not show.
        attempts: after so many the key goes to the failed list.
        worker: name of this worker, for the failed list.
    """
    reason = str(error) if isinstance(error, AutosyncError) else f"{type(error).__name__}: {error}"
    reason = without_secrets(actor, reason)
    tries = claim.attempts + 1
    if isinstance(error, PermanentError) or tries >= attempts:
        log.info("failed: %s: %s", printable(claim.key), reason)  # the file host reports failures as a whole
        return Result(claim, Action.FAILED, failure=Failure(claim.key, reason, tries, worker, now()))
    result = retry(claim)
    log.info("%s: %s; tried again in %.1f s", printable(claim.key), reason, result.delay)
    return result


def _delay(attempts: int, longest: float) -> float:
    """Doubling, with jitter so that a fleet does not come back all at once; in seconds."""
    return float(min(FIRST_DELAY * 2 ** min(attempts, 30), longest) * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
