"""An actor with the limits of its target: requests are counted and timed, and a demand for fewer slows the fleet down.

The waits for a share are not here but in check.py and delete.py: they come before the check for writers and before the proof that a file is
gone, since a result of either is worth nothing minutes later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..actor import Actor, can_delete_many
from ..errors import SlowDown
from ..files import File
from .thread_pool import AdaptivePool
from .throttle import Throttle


class LimitedActor:
    """Wraps an actor. Files go in, and for each an error or None comes out, as from `Actor.upload_many`; these methods raise nothing.

    Args:
        actor: the actor.
        throttle: the throttle of its target.
        pool: adapts to the time that the target takes.
    """

    def __init__(self, actor: Actor, throttle: Throttle, pool: AdaptivePool) -> None:
        self._actor = actor
        self._throttle = throttle
        self._pool = pool

    @property
    def sends_together(self) -> bool:
        """See `Actor.sends_together`."""
        return self._actor.sends_together

    @property
    def deletes_together(self) -> bool:
        """Whether one request deletes many files."""
        return can_delete_many(self._actor)

    def upload(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Upload files: all at the same time, where the actor can do so."""
        if not self._throttle.is_on:  # else they were counted when their shares were acquired
            self._throttle.count(len(files))
        if len(files) > 1 and self._actor.sends_together:
            return self._checked(self._upload_together(files))
        return self._checked([self._upload(file) for file in files])

    def delete(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Delete files, several in one request."""
        if len(files) > 1:
            return self._checked(_all_or_error(self._actor.delete_many, files))
        return self._checked([self._delete(file) for file in files])

    def _upload_together(self, files: Sequence[File]) -> Sequence[Exception | None]:
        began = time.monotonic()
        errors = _all_or_error(self._actor.upload_many, files)
        self._pool.add_response_time(time.monotonic() - began, len(files))
        return errors

    def _upload(self, file: File) -> Exception | None:
        began = time.monotonic()
        try:
            self._actor.upload(file)
        except Exception as error:  # a user's actor may fail in any way
            return error
        self._pool.add_response_time(time.monotonic() - began)
        return None

    def _delete(self, file: File) -> Exception | None:
        try:
            self._actor.delete(file)
        except Exception as error:
            return error
        return None

    def _checked(self, errors: Sequence[Exception | None]) -> Sequence[Exception | None]:
        if any(errors) and any(isinstance(error, SlowDown) for error in errors):
            self._throttle.slow_down()
        return errors


def _all_or_error(request: Callable[[Sequence[File]], Sequence[Exception | None]], files: Sequence[File]) -> Sequence[Exception | None]:
    try:
        return request(files)
    except Exception as error:  # a user's actor may fail in any way
        return [error] * len(files)
