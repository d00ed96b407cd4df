"""One batch of claimed keys: each is looked at on the disk, made right in the target, and said to be done."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import wait
from contextlib import suppress
from functools import partial

from ..actor import can_delete_many
from ..errors import AutosyncError, BrokerError, Draining, LeaseLost, PermanentError, Torn
from ..files import File
from ..ledger import UNKNOWN, Claim, Deed, Failure, Outcome, now
from ..reading import SourceFile
from ..restless import RestlessFile
from ..tree import Withheld
from ..wording import human_size, shown
from .box import Known, UploadBox
from .progress import Progress
from .sources import Absent

log = logging.getLogger("autosync.transfer")

#: Outcomes are said together, but not later than this, in seconds.
_SAY_AFTER = 0.1
_SAY_MOST = 50
#: Growing delays between tries, in seconds. A target that was away for an hour is in step again half a minute after it came back.
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 30.0
_LONGEST_TORN_DELAY = 10.0
#: On another host than the file host, attributes may be as old as a network share's cache: NFS keeps them for up to a minute. So often a
#: worker looks again, over a minute and a half at least, before it believes that the file host has seen what is not true any more.
_STALE_LOOKS = 10
#: In what units shares tell times, in nanoseconds: NFS exactly, SMB in 100, others in micro-, milli-, whole and double seconds.
_UNITS_OF_TIME = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
#: So often a worker comes back to a file that somebody has open for writing and writes to; one that never rests is sent all the same.
_WRITTEN_LOOKS = 4


class Batch:
    """Works on claims until none is left. One instance a task.

    Args:
        box: this process.
        known: the mirror.
        progress: counts what is read.
        asked: when the claims were asked for, on the monotonic clock.
    """

    def __init__(self, box: UploadBox, known: Known, progress: Progress, asked: float) -> None:
        self._box = box
        self._known = known
        self._progress = progress
        self._asked = asked
        self._todo: deque[Claim] = deque()
        self._said: list[Outcome] = []
        self._last_said = time.monotonic()
        self._lock = threading.Lock()
        # What was sent in this batch, so that a second look at an unchanged file sends nothing.
        self._sent: dict[str, tuple[int, int, int, int]] = {}
        self._files = self._bytes = self._deleted = self._failed = 0

    def run(self, claims: Sequence[Claim]) -> None:
        """Work on the claims, with as many transfers at once as the mirror allows this process."""
        self._todo.extend(claims)
        while self._todo:
            self._delete_together()
            beside = [self._known.pool.submit(self._lane) for _ in range(min(len(self._todo), self._known.mirror.threads) - 1)]
            self._lane()
            while wait(beside, timeout=_SAY_AFTER).not_done:
                self._say(only_if_due=True)  # what is done must not wait for the slowest
            for lane in beside:
                lane.result()
            self._say()

    def summary(self) -> str:
        """A line for people: what was done."""
        parts = []
        if self._files:
            parts.append(f"{self._files} file{'s'[: self._files != 1]}, {human_size(self._bytes)}")
        if self._deleted:
            parts.append(f"{self._deleted} deleted")
        if self._failed:
            parts.append(f"{self._failed} failed")
        return ", ".join(parts) or "nothing to send"

    def _lane(self) -> None:
        """One transfer after the other, until nothing is left to do."""
        with self._known.slots:
            while True:
                try:
                    claim = self._todo.popleft()
                except IndexError:
                    break
                self._note(self._make_right(claim))
                self._say(only_if_due=True)

    # One key

    def _make_right(self, claim: Claim) -> Outcome | None:
        """Do what the disk says. Every way of failing becomes an outcome here; None means that the claim is lost."""
        began = time.monotonic()
        try:
            outcome = self._look_and_act(claim)
        except LeaseLost as error:
            log.warning("%s", error)
            return None
        except Draining:
            return Outcome(claim.key, Deed.BACK)
        except Torn as error:
            log.info("%s; it is sent when it stands still", error)
            return Outcome(claim.key, Deed.RETRY, delay=_delay(claim.attempts, _LONGEST_TORN_DELAY))
        except BrokerError as error:  # an upload could not be noted: no fault of the file's, so it never gets into the failed list
            log.info("%s: %s; tried again", shown(claim.key), error)
            return Outcome(claim.key, Deed.RETRY, delay=_delay(claim.attempts, _LONGEST_TORN_DELAY))
        except Exception as error:
            return self._failure(claim, error)
        if outcome.deed in (Deed.UPLOADED, Deed.DELETED):
            log.info(
                "%s %s", outcome.deed.value, shown(claim.key),
                extra={"mirror": self._known.mirror.name, "key": claim.key, "bytes": outcome.size, "attempt": claim.attempts + 1,
                       "seconds": round(time.monotonic() - began, 4), "worker": self._box.name},
            )  # fmt: skip
        return outcome

    def _look_and_act(self, claim: Claim) -> Outcome:
        self._go_on(claim.key)
        self._abandon(claim)
        path = self._known.keys.path(claim.key)
        if path is None:
            return Outcome(claim.key, Deed.NOTHING)  # the mirror was given other options since
        try:
            file = self._open(claim, path)
        except Absent:
            return self._delete(claim, path)
        except Withheld as reason:
            log.info("%s %s; what the target has is kept", shown(claim.key), reason)
            return Outcome(claim.key, Deed.NOTHING)
        try:
            outcome = self._upload(claim, file)
        finally:
            file.close()
        if outcome.deed is Deed.UPLOADED:
            self._see_again(claim.key, path)
        return outcome

    def _see_again(self, key: str, path: str) -> None:
        """Mark a key once more if the disk no longer is what the target was just made to be. A directory above it may have left or come
        meanwhile, which marks no key; and the look that follows could not see in the target what was still on its way there."""
        sent = self._sent.get(key)
        try:
            descriptor = self._known.source_of(path).open(path)
        except Absent:
            inode = None
        except Withheld:
            return  # what stands there now is not sent, and what the target has is kept
        else:
            inode = os.fstat(descriptor).st_ino
            os.close(descriptor)
        if inode != (sent[0] if sent else None):
            self._known.ledger.mark([(key, UNKNOWN)])

    def _abandon(self, claim: Claim) -> None:
        """End what a killed worker had begun. What cannot be ended now stays noted for the next claim, and hinders nothing."""
        for token in claim.unfinished:
            try:
                self._known.actor.abandon(claim.key, token)
                self._known.ledger.ended(claim.key, token)
            except Exception as error:
                level = logging.WARNING if isinstance(error, PermanentError) else logging.INFO
                log.log(level, "%s: an unfinished upload stays open for now: %s", shown(claim.key), error)

    def _open(self, claim: Claim, path: str) -> SourceFile:
        descriptor = self._known.source_of(path).open(path)

        def passing(count: int) -> None:
            self._go_on(claim.key)
            self._progress.add(count)

        def ended(token: str) -> None:
            with suppress(BrokerError):  # then it is abandoned with the next claim, which does no harm
                self._known.ledger.ended(claim.key, token)

        return SourceFile(claim.key, descriptor, passing, partial(self._known.ledger.begun, claim.key), ended)

    def _go_on(self, key: str) -> None:
        """Asked before each step of a transfer."""
        if self._box.draining.is_set():
            raise Draining(f"{key}: the worker is being stopped")
        self._known.held.insist(key, self._asked)

    def _upload(self, claim: Claim, file: SourceFile) -> Outcome:
        if self._sent.get(claim.key) == file.signature:
            return Outcome(claim.key, Deed.NOTHING)
        if self._is_stale(claim, file):
            return Outcome(claim.key, Deed.RETRY, delay=_delay(claim.attempts, _LONGEST_DELAY))
        actor = self._known.actor
        if claim.hint.etag and file.size == claim.hint.size and actor.matches(file, claim.hint.etag):
            return Outcome(claim.key, Deed.NOTHING)
        still = file.stands_still()
        if not still:
            if claim.attempts < _WRITTEN_LOOKS:
                raise Torn(f"{claim.key} is being written")
            file = RestlessFile(file)
        actor.upload(file)
        file.verify()
        # Without being sure of that, the same times mean nothing later.
        self._sent[claim.key] = file.signature if still else (file.signature[0], -1, -1, -1)
        return Outcome(claim.key, Deed.UPLOADED, size=file.size)

    def _is_stale(self, claim: Claim, file: SourceFile) -> bool:
        """Whether this host's share has yet to show what the file host saw."""
        hint = claim.hint
        if self._known.same_host or not hint.known or claim.attempts >= _STALE_LOOKS:
            return False
        if hint.gone:
            return True
        if any(file.mtime_ns == hint.mtime_ns - hint.mtime_ns % unit for unit in _UNITS_OF_TIME):
            return file.size != hint.size
        return file.mtime_ns < hint.mtime_ns

    # Deleting

    def _delete(self, claim: Claim, path: str) -> Outcome:
        deed = self._may_delete(claim, path)
        if deed is None:
            self._known.actor.delete(File(claim.key))
            return self._was_deleted(claim, path)
        self._sent.pop(claim.key, None)
        return deed

    def _was_deleted(self, claim: Claim, path: str) -> Outcome:
        self._sent.pop(claim.key, None)
        self._see_again(claim.key, path)
        return Outcome(claim.key, Deed.DELETED)

    def _may_delete(self, claim: Claim, path: str) -> Outcome | None:
        """None if this key is to be deleted now; else what to do instead."""
        if not self._known.mirror.delete:
            return Outcome(claim.key, Deed.NOTHING)
        saw_it = claim.hint.known and not claim.hint.gone
        if saw_it and not self._known.same_host and claim.attempts < _STALE_LOOKS:
            return Outcome(claim.key, Deed.RETRY, delay=_delay(claim.attempts, _LONGEST_DELAY))
        if not self._known.source_of(path).prove_absent(path):
            return Outcome(claim.key, Deed.RETRY, delay=_FIRST_DELAY)
        return None

    def _delete_together(self) -> None:
        """Where the target can delete many keys at once, take those that are gone out of the queue first."""
        if not can_delete_many(self._known.actor) or sum(1 for claim in self._todo if claim.hint.gone) < 2:
            return
        gone: list[Claim] = []
        others: list[Claim] = []
        for claim in self._todo:
            (gone if claim.hint.gone and not claim.unfinished and self._is_gone(claim) else others).append(claim)
        self._todo = deque(others)
        if not gone:
            return
        files = [File(claim.key) for claim in gone]
        try:
            answers: Sequence[Exception | None] = self._known.actor.delete_many(files)
        except Exception as error:
            answers = [error] * len(gone)
        for claim, answer in zip(gone, answers, strict=True):
            self._note(self._deleted_together(claim) if answer is None else self._failure(claim, answer))
        self._say(only_if_due=True)

    def _deleted_together(self, claim: Claim) -> Outcome:
        path = self._known.keys.path(claim.key)
        assert path is not None  # see _is_gone
        try:
            return self._was_deleted(claim, path)
        except AutosyncError as error:
            return self._failure(claim, error)

    def _is_gone(self, claim: Claim) -> bool:
        """Whether a key is certain to be deleted; whatever is not plain is left to the way of one key, which knows what to do."""
        path = self._known.keys.path(claim.key)
        try:
            self._go_on(claim.key)
            return path is not None and self._may_delete(claim, path) is None
        except AutosyncError:
            return False

    # Saying what became of it

    def _failure(self, claim: Claim, error: Exception) -> Outcome:
        reason = str(error) if isinstance(error, AutosyncError) else f"{type(error).__name__}: {error}"
        tries = claim.attempts + 1
        if isinstance(error, PermanentError) or tries >= self._known.mirror.attempts:
            log.info("failed: %s: %s", shown(claim.key), reason)  # the file host tells of failures as a whole
            return Outcome(claim.key, Deed.FAILED, failure=Failure(claim.key, reason, tries, self._box.name, now()))
        delay = _delay(claim.attempts, _LONGEST_DELAY)
        log.info("%s: %s; tried again in %.1f s", shown(claim.key), reason, delay)
        return Outcome(claim.key, Deed.RETRY, delay=delay)

    def _note(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        with self._lock:
            self._said.append(outcome)
            self._files += outcome.deed is Deed.UPLOADED
            self._bytes += outcome.size
            self._deleted += outcome.deed is Deed.DELETED
            self._failed += outcome.deed is Deed.FAILED

    def _say(self, *, only_if_due: bool = False) -> None:
        """Tell the ledger, and take back what changed meanwhile."""
        with self._lock:
            due = len(self._said) >= _SAY_MOST or time.monotonic() - self._last_said >= _SAY_AFTER
            if not self._said or (only_if_due and not due):
                return
            page, self._said = self._said, []
            self._last_said = time.monotonic()
        answer = self._tell(page)
        if answer is None:
            return  # their leases run out, and the sweep has them done again
        again, lost = answer
        self._known.held.drop({one.key for one in page} - {claim.key for claim in again}, self._asked)
        if lost:
            log.warning("%d keys were taken over by another worker; they are looked at once more", len(lost))
            self._mark_again(lost)
        self._todo.extend(again)

    def _tell(self, page: list[Outcome]) -> tuple[list[Claim], list[str]] | None:
        for _ in range(40):
            try:
                return self._known.ledger.done(self._box.owner, page)
            except BrokerError as error:
                log.debug("not told yet: %s", error)
                time.sleep(0.5)
        log.warning("the broker did not take the result of %d keys; they will be done again", len(page))
        self._known.held.drop([one.key for one in page], self._asked)
        return None

    def _mark_again(self, keys: list[str]) -> None:
        try:
            self._known.ledger.mark([(key, UNKNOWN) for key in keys])
        except BrokerError as error:
            log.warning("%d keys could not be marked again: %s", len(keys), error)


def _delay(attempts: int, longest: float) -> float:
    """Doubling, and jittered so that a fleet does not come back all at once."""
    return float(min(_FIRST_DELAY * 2**attempts, longest) * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
