"""One batch of claimed keys: each is looked at on the disk, made right in the target, and said to be done."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import NamedTuple, TypeVar

from ..actor import Actor, can_delete_many, without_secrets
from ..errors import AutosyncError, BrokerError, Draining, FileChanged, LeaseLost, PermanentError, SlowDown
from ..files import File
from ..ledger import UNKNOWN, Action, Claim, Hint, Result
from ..model.text import human_size, printable
from ..source.beneath import NotMirrored
from ..source.open_writers import is_shared
from ..source.source_file import SourceFile
from ..source.stable_read import StableReader
from .progress import Progress
from .retry import FIRST_DELAY, retry, retry_or_fail, retry_soon
from .sources import Absent, DirectoryCache, MirrorSource
from .throttle import BandwidthLimiter, Reservation
from .worker_state import WorkerMirror, WorkerState

log = logging.getLogger("autosync.transfer")

T = TypeVar("T")

#: Outcomes are said together, but not later than this, in seconds.
_SAY_AFTER = 0.1
_SAY_MOST = 250
#: Files up to this size are small enough that one thread takes several in a row, in bytes.
_SMALL = 64 << 10
#: How long a key may be kept from its own work by uploads of it that others have left open, in seconds.
_LONGEST_ABANDONING = 10.0
#: On another host than the file host, attributes may be as old as a network share's cache: NFS keeps them for up to a minute. So often a
#: worker looks again, over a minute and a half at least, before it believes that the file host has seen what is not true any more.
_STALE_LOOKS = 10
#: In what units shares tell times, in nanoseconds: NFS exactly, SMB in 100, others in micro-, milli-, whole and double seconds.
_UNITS_OF_TIME = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
#: So often a worker comes back to a file that somebody has open for writing and writes to; one that never rests is sent all the same.
_WRITTEN_LOOKS = 4


class _Ready(NamedTuple):
    """A file that is to be uploaded; `still`: nobody can be changing it."""

    claim: Claim
    file: SourceFile
    still: bool


class Batch:
    """Works on claims until none is left. One instance a task.

    Args:
        box: this process.
        known: the mirror.
        progress: counts what is read.
        asked: when the claims were asked for, on the monotonic clock.
    """

    def __init__(self, box: WorkerState, known: WorkerMirror, progress: Progress, asked: float) -> None:
        self._box = box
        self._known = known
        self._progress = progress
        self._asked = asked
        self._todo: deque[Claim] = deque()
        self._said: list[Result] = []
        self._last_said = time.monotonic()
        self._lock = threading.Lock()
        # What was sent in this batch, so that a second look at an unchanged file sends nothing.
        self._sent: dict[str, tuple[int, int, int, int]] = {}
        # Transfers in flight; the condition is told when there are none.
        self._busy = 0
        self._ended = threading.Condition()
        self._roots: dict[MirrorSource, int] = {}
        self._paths: dict[str, str | None] = {}
        self._shared: dict[int, bool] = {}
        self._files = self._bytes = self._deleted = self._failed = 0

    def run(self, claims: Sequence[Claim]) -> None:
        """Work on the claims, with as many transfers at once as the mirror allows this process."""
        self._todo.extend(claims)
        try:
            while self._is_unfinished():
                self._work_off()
        finally:
            self._close_roots()

    def _is_unfinished(self) -> bool:
        """Whether there is something to do, or a helper has just taken the last of it."""
        with self._ended:
            return bool(self._todo or self._busy)

    def _work_off(self) -> None:
        self._delete_together()
        try:
            self._known.pool.work_off(self._step, -(-len(self._todo) // self._most_in_a_piece()))
        finally:
            while not self._all_ended(_SAY_AFTER):
                self._say(only_if_due=True)  # what is done must not wait for the slowest
        self._say()

    def _all_ended(self, seconds: float) -> bool:
        """Whether no transfer of this batch is in flight, maybe after a wait."""
        with self._ended:
            return self._ended.wait_for(lambda: not self._busy, seconds)

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

    def _step(self) -> bool:
        """Work on the next keys; False if there are none."""
        piece = self._take()
        if not piece:
            return False
        try:
            with self._known.pool.room(len(piece) if self._known.actor.sends_together else 1):
                self._note(self._make_right(piece) if not self._known.throttle.is_on else self._make_right_at_pace(piece))
            self._say(only_if_due=True)
        finally:
            with self._ended:
                self._busy -= 1
                if not self._busy:
                    self._ended.notify_all()
        return True

    def _take(self) -> list[Claim]:
        """The next key, or the next few if all are small files."""
        most = self._most_in_a_piece()
        piece: list[Claim] = []
        with self._ended:
            while self._todo and (not piece or (len(piece) < most and _is_small(piece[-1]) and _is_small(self._todo[0]))):
                piece.append(self._todo.popleft())
            self._busy += bool(piece)
        return piece

    def _most_in_a_piece(self) -> int:
        return self._known.throttle.chunk_size(self._known.pool.piece(together=self._known.actor.sends_together))

    # A few keys

    def _make_right(self, piece: list[Claim]) -> list[Result | None]:
        """Do what the disk says; None means that the claim is lost. All that is to be uploaded is in flight at the same time."""
        with closing(DirectoryCache()) as way, closing(Reservation(self._known.throttle, len(piece))) as reservation:
            found = [self._outcome(claim, partial(self._look, claim, reservation, way if len(piece) > 1 else None)) for claim in piece]
        ready = [one for one in found if isinstance(one, _Ready)]
        try:
            began = time.monotonic()
            answers = iter(self._send(ready))
            seconds = time.monotonic() - began
            return [
                self._outcome(one.claim, partial(self._end, one, next(answers), seconds)) if isinstance(one, _Ready) else one
                for one in found
            ]
        finally:
            for one in ready:
                one.file.close()

    def _make_right_at_pace(self, piece: list[Claim]) -> list[Result | None]:
        """The same, when as many transfers may be in flight; those that may not yet are left to do."""
        go_on = partial(self._go_on, piece[0].key)
        together = self._known.actor.sends_together
        large = not _is_small(piece[0]) and not piece[0].hint.gone
        try:
            with self._known.throttle.in_flight(len(piece) if together else 1, go_on, large=large) as room:
                most = room if together else len(piece)
                with self._ended:
                    self._todo.extendleft(reversed(piece[most:]))
                return self._make_right(piece[:most])
        except Draining:
            return [Result(claim, Action.BACK) for claim in piece]
        except LeaseLost as error:
            log.warning("%s", error)
            return []

    def _outcome(self, claim: Claim, act: Callable[[], T]) -> T | Result | None:
        """What is done about a key. Every way of failing becomes an outcome here."""
        try:
            return act()
        except LeaseLost as error:
            log.warning("%s", error)
            return None
        except Draining:
            return Result(claim, Action.BACK)
        except FileChanged as error:
            log.info("%s; it is sent when it stands still", error)
            return retry_soon(claim)
        except BrokerError as error:  # an upload could not be noted: no fault of the file's, so it never gets into the failed list
            log.info("%s: %s; tried again", printable(claim.key), error)
            return retry_soon(claim)
        except Exception as error:
            return self._failure(claim, error)

    def _send(self, ready: Sequence[_Ready]) -> Sequence[Exception | None]:
        """Upload all of these. Returns for each what went wrong, or None."""
        actor = self._known.actor
        if not self._known.throttle.is_on:
            self._known.throttle.count(len(ready))
        began = time.monotonic()
        if len(ready) > 1 and actor.sends_together:
            try:
                answers: Sequence[Exception | None] = actor.upload_many([one.file for one in ready])
            except Exception as error:  # a user's actor may fail in any way
                answers = [error] * len(ready)
            self._known.pool.took(time.monotonic() - began, len(ready))
            return answers
        return [self._send_one(actor, one.file) for one in ready]

    def _send_one(self, actor: Actor, file: SourceFile) -> Exception | None:
        began = time.monotonic()
        try:
            actor.upload(file)
        except Exception as error:
            return error
        self._known.pool.took(time.monotonic() - began)
        return None

    def _end(self, ready: _Ready, answer: Exception | None, seconds: float) -> Result:
        """What became of an upload."""
        if answer is not None:
            raise answer
        claim, file = ready.claim, ready.file
        file.verify()
        # Without being sure of that, the same times mean nothing later.
        self._sent[claim.key] = file.signature if ready.still else (file.signature[0], -1, -1, -1)
        return self._told(Result(claim, Action.UPLOADED, size=file.size), seconds)

    def _told(self, outcome: Result, seconds: float) -> Result:
        if log.isEnabledFor(logging.INFO):
            claim = outcome.claim
            log.info(
                "%s %s", outcome.action.value, printable(claim.key),
                extra={"mirror": self._known.definition.name, "key": claim.key, "bytes": outcome.size, "attempt": claim.attempts + 1,
                       "seconds": round(seconds, 4), "worker": self._box.name},
            )  # fmt: skip
        return outcome

    # One key

    def _look(self, claim: Claim, reservation: Reservation, way: DirectoryCache | None) -> Result | _Ready:
        """Look at the disk, and do what is not an upload."""
        reservation.next()
        self._go_on(claim.key)
        if claim.unfinished:
            self._abandon(claim)
        path = self._path(claim.key)
        if path is None:
            return Result(claim, Action.NOTHING)  # the mirror was given other options since
        try:
            file = self._open(claim, path, way)
        except Absent:
            return self._delete(claim, reservation, path)
        except NotMirrored as reason:
            log.info("%s %s; what the target has is kept", printable(claim.key), reason)
            return Result(claim, Action.NOTHING)
        try:
            found = self._prepare(claim, reservation, file)
        except BaseException:
            file.close()
            raise
        if isinstance(found, Result):
            file.close()
        return found

    def _abandon(self, claim: Claim) -> None:
        """End what a killed worker had begun. What cannot be ended now stays noted for the next claim, and hinders nothing; nor does a
        target that does not answer, however many there are."""
        until = time.monotonic() + _LONGEST_ABANDONING
        for token in claim.unfinished:
            self._go_on(claim.key)
            try:
                self._known.actor.abandon(claim.key, token)
                self._known.ledger.uploads.remove(claim.key, token)
            except Exception as error:
                level = logging.WARNING if isinstance(error, PermanentError) else logging.INFO
                said = without_secrets(self._known.actor, str(error))
                log.log(level, "%s: an unfinished upload stays open for now: %s", printable(claim.key), said)
                if time.monotonic() > until:
                    return

    def _path(self, key: str) -> str | None:
        """The path of a key, worked out once a batch."""
        if key not in self._paths:
            self._paths[key] = self._known.keys.path(key)
        return self._paths[key]

    def _open(self, claim: Claim, path: str, way: DirectoryCache | None) -> SourceFile:
        source = self._known.source_of(path)
        descriptor, seen = source.open(path, self._root_of(source), way)

        def passing(count: int) -> None:
            self._progress.add(count)  # may wait for the broker
            self._go_on(claim.key)

        def ended(token: str) -> None:
            with suppress(BrokerError):  # then it is abandoned with the next claim, which does no harm
                self._known.ledger.uploads.remove(claim.key, token)

        return SourceFile(claim.key, descriptor, passing, partial(self._known.ledger.uploads.add, claim.key), ended, seen)

    def _root_of(self, source: MirrorSource) -> int:
        """The root of a source, opened once a batch."""
        if source not in self._roots:
            with self._lock:
                if source not in self._roots:
                    self._roots[source] = source.open_root()
        return self._roots[source]

    def _close_roots(self) -> None:
        for root in self._roots.values():
            os.close(root)
        self._roots.clear()

    def _go_on(self, key: str) -> None:
        """Asked before each step of a transfer."""
        if self._box.draining.is_set():
            raise Draining(f"{key}: the worker is being stopped")
        self._known.claim_table.check(key, self._asked)

    def _prepare(self, claim: Claim, reservation: Reservation, file: SourceFile) -> Result | _Ready:
        """Whether a file is to be uploaded, and how it has to be read."""
        if self._sent.get(claim.key) == file.signature:
            return Result(claim, Action.NOTHING)
        if self._is_stale(claim, file):
            return retry(claim)
        if claim.hint.etag and file.size == claim.hint.size and self._known.actor.matches(file, claim.hint.etag):
            return Result(claim, Action.NOTHING)
        paid = self._pay(claim, reservation, file)
        if file.device not in self._shared:
            self._shared[file.device] = is_shared(file.descriptor)
        writer = file.has_writer(self._shared[file.device])
        rested = writer is False or _is_known_to_rest(claim, file) or self._known.first_seen.has_rested(claim.key, file.signature)
        if not rested and claim.attempts < _WRITTEN_LOOKS:
            if paid:
                reservation.release(_at_once(file.size))
            raise FileChanged(f"{claim.key} is being written")
        still = rested and not writer  # an old file that somebody has open may be changed through a mapping
        return _Ready(claim, file if still else StableReader(file), still)

    def _pay(self, claim: Claim, reservation: Reservation, file: SourceFile) -> bool:
        """Wait until it may be sent: of a large file the first request, and the content while it is read. This comes before the question
        who writes to it, which must not be asked long before the reading. False: nobody had to wait, and `_send` counts it."""
        throttle = self._known.throttle
        if file.size > _SMALL:
            file.meter = BandwidthLimiter(throttle, partial(self._go_on, claim.key))
        if not throttle.is_on:
            return False
        reservation.acquire(_at_once(file.size), partial(self._go_on, claim.key))
        return True

    def _is_stale(self, claim: Claim, file: SourceFile) -> bool:
        """Whether this host's share has yet to show what the file host saw."""
        hint = claim.hint
        if self._known.same_host or not hint.was_checked or claim.attempts >= _STALE_LOOKS:
            return False
        if hint.gone:
            return True
        if _has_time_of(hint, file):
            return file.size != hint.size
        return file.mtime_ns < hint.mtime_ns

    # Deleting

    def _delete(self, claim: Claim, reservation: Reservation, path: str) -> Result:
        reservation.acquire(0, partial(self._go_on, claim.key))  # before the proof, which must be fresh
        deed = self._may_delete(claim, path)
        self._sent.pop(claim.key, None)
        if deed is None:
            began = time.monotonic()
            self._known.actor.delete(File(claim.key))
            return self._told(Result(claim, Action.DELETED), time.monotonic() - began)
        reservation.release(0)
        return deed

    def _may_delete(self, claim: Claim, path: str) -> Result | None:
        """None if this key is to be deleted now; else what to do instead."""
        if not self._known.definition.delete:
            return Result(claim, Action.NOTHING)
        saw_it = claim.hint.was_checked and not claim.hint.gone
        if saw_it and not self._known.same_host and claim.attempts < _STALE_LOOKS:
            return retry(claim)
        if not self._known.source_of(path).prove_absent(path):
            return Result(claim, Action.RETRY, delay=FIRST_DELAY)
        return None

    def _delete_together(self) -> None:
        """Where the target can delete many keys at once, take those that are gone out of the queue first."""
        if not can_delete_many(self._known.actor):
            return
        with self._ended:  # a helper may still be there
            todo = list(self._todo)
            self._todo.clear()
        with ExitStack() as transfer:
            gone: list[Claim] = []
            if sum(1 for claim in todo if claim.hint.gone) > 1:
                gone = self._gone_at_pace([claim for claim in todo if claim.hint.gone and not claim.unfinished], transfer)
            together = {claim.key for claim in gone}
            self._todo.extend(claim for claim in todo if claim.key not in together)
            if gone:
                self._delete_gone(gone)

    def _delete_gone(self, gone: list[Claim]) -> None:
        files = [File(claim.key) for claim in gone]
        began = time.monotonic()
        try:
            answers: Sequence[Exception | None] = self._known.actor.delete_many(files)
        except Exception as error:
            answers = [error] * len(gone)
        seconds = time.monotonic() - began
        for claim in gone:
            self._sent.pop(claim.key, None)
        self._note(
            [
                self._told(Result(claim, Action.DELETED), seconds) if answer is None else self._failure(claim, answer)
                for claim, answer in zip(gone, answers, strict=True)
            ]
        )
        self._say(only_if_due=True)

    def _gone_at_pace(self, claims: list[Claim], transfer: ExitStack) -> list[Claim]:
        """`_gone`, once one request with all of them may be in flight, as it is until the end of `transfer`."""
        if not claims:
            return []
        throttle, go_on = self._known.throttle, partial(self._go_on, claims[0].key)
        try:
            transfer.enter_context(throttle.in_flight(1, go_on, large=False))
            throttle.acquire(1, 0, go_on)
        except (Draining, LeaseLost):
            return []
        gone = self._gone(claims)
        if not gone:
            throttle.release(1, 0)
        return gone

    def _gone(self, claims: list[Claim]) -> list[Claim]:
        """Those that are certain to be deleted; whatever is not plain is left to the way of one key, which knows what to do."""
        if not self._known.definition.delete:
            return []
        paths: dict[MirrorSource, list[str]] = {}
        for claim in claims:
            path = self._path(claim.key)
            if path is not None:
                paths.setdefault(self._known.source_of(path), []).append(path)
        try:
            for claim in claims:
                self._go_on(claim.key)
            gone = {path for source, found in paths.items() for path in source.gone(found)}
        except AutosyncError:
            return []
        return [claim for claim in claims if self._path(claim.key) in gone]

    # Saying what became of it

    def _failure(self, claim: Claim, error: Exception) -> Result:
        if isinstance(error, SlowDown):
            self._known.throttle.slow_down()
        return retry_or_fail(claim, error, self._known.actor, attempts=self._known.definition.attempts, worker=self._box.name)

    def _note(self, outcomes: Iterable[Result | None]) -> None:
        known = [outcome for outcome in outcomes if outcome is not None]
        with self._lock:
            self._said += known
            deeds = [outcome.action for outcome in known]
            self._files += deeds.count(Action.UPLOADED)
            self._deleted += deeds.count(Action.DELETED)
            self._failed += deeds.count(Action.FAILED)
            self._bytes += sum([outcome.size for outcome in known])

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
            log.warning("the broker did not take the result of %d keys; they will be done again", len(page))
            self._known.claim_table.remove([one.key for one in page], self._asked)
            return  # their leases run out, and the sweep has them done again
        again, lost = answer
        self._known.claim_table.remove({one.key for one in page} - {claim.key for claim in again}, self._asked)
        if lost:
            log.warning("%d keys were taken over by another worker; they are looked at once more", len(lost))
            self._mark_again(lost)
        self._todo.extend(again)

    def _tell(self, page: list[Result]) -> tuple[list[Claim], list[str]] | None:
        """None if the broker did not answer for long."""
        moved = self._moved([one.key for one in page if one.action in (Action.UPLOADED, Action.DELETED)])
        for _ in range(40):
            try:
                if moved:
                    self._known.ledger.claims.mark([(key, UNKNOWN) for key in moved])
                return self._known.ledger.claims.done(self._box.owner, page)
            except BrokerError as error:
                log.debug("not told yet: %s", error)
                time.sleep(0.5)
        return None

    def _moved(self, keys: list[str]) -> list[str]:
        """Those keys where the disk no longer is what the target was just made to be. A directory above may have left or come meanwhile,
        which marks no key; and the look that follows could not see in the target what was still on its way there."""
        by_source: dict[MirrorSource, list[tuple[str, str]]] = {}
        for key in keys:
            path = self._path(key)
            if path is not None:
                by_source.setdefault(self._known.source_of(path), []).append((key, path))
        return [key for source, found in by_source.items() for key in self._moved_in(source, found)]

    def _moved_in(self, source: MirrorSource, found: list[tuple[str, str]]) -> list[str]:
        try:
            inodes = list(source.inodes(path for _, path in found))
        except AutosyncError:
            return [key for key, _ in found]
        return [key for (key, path), inode in zip(found, inodes, strict=True) if self._has_moved(source, key, path, inode)]

    def _has_moved(self, source: MirrorSource, key: str, path: str, inode: int | None) -> bool:
        """Whether the path does not name the file any more that was sent, or names one where none was."""
        sent = self._sent.get(key)
        if inode == (sent[0] if sent else None):
            return False
        if inode is None:
            return True
        try:
            root = source.open_root()
            try:
                descriptor, seen = source.open(path, root)
            finally:
                os.close(root)
        except Absent:
            return sent is not None
        except NotMirrored:
            return False  # what stands there now is not sent, and what the target has is kept
        except AutosyncError:
            return True
        os.close(descriptor)
        return sent is None or seen.st_ino != sent[0]

    def _mark_again(self, keys: list[str]) -> None:
        try:
            self._known.ledger.claims.mark([(key, UNKNOWN) for key in keys])
        except BrokerError as error:
            log.warning("%d keys could not be marked again: %s", len(keys), error)


def _is_small(claim: Claim) -> bool:
    return 0 <= claim.hint.size <= _SMALL


def _has_time_of(hint: Hint, file: SourceFile) -> bool:
    """Whether a file has the modification time that the file host saw, as far as this host's share tells it."""
    return any(file.mtime_ns == hint.mtime_ns - hint.mtime_ns % unit for unit in _UNITS_OF_TIME)


def _is_known_to_rest(claim: Claim, file: SourceFile) -> bool:
    """Whether the file host saw it rest, as it still is."""
    return claim.hint.rested and claim.hint.size == file.size and _has_time_of(claim.hint, file)


def _at_once(size: int) -> int:
    """How much of a file of this size goes in one piece; the rest is paid for while it is read."""
    return size if size <= _SMALL else 0
