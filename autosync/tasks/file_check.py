"""Checks the disk for a key: its file is to be uploaded, the key is to be deleted, or there is nothing to do now."""

from __future__ import annotations

import logging
from functools import partial
from typing import NamedTuple

from ..errors import FileChanged
from ..ledger import Action, Claim, Hint, Result
from ..model.text import printable
from ..source.beneath import NotMirrored
from ..source.open_writers import is_shared
from ..source.source_file import SourceFile
from ..source.stable_read import StableReader
from .claimed_batch import SMALL, ClaimedBatch, reserved_bytes
from .dispute import dispute
from .file_limits import BandwidthLimiter, Reservation
from .sources import Absent, DirectoryCache

log = logging.getLogger("autosync.transfer")

#: In what units shares write times, in nanoseconds: NFS exactly, SMB in 100, others in micro-, milli-, whole and double seconds.
_TIME_UNITS = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
#: Some file systems in user space keep times as floating-point numbers, with errors below this, in nanoseconds.
_TIME_ERROR = 1_000
#: A file that is newer than its hint by this, in nanoseconds, may be an old one as well: a file with an older time has replaced it since.
_MUCH_NEWER = 2_000_000_000
#: How often a worker checks a file again that a process writes to. After that the file is sent even if it never rests.
_WRITER_CHECKS = 4


class Upload(NamedTuple):
    """A file that is to be uploaded. `is_still`: no process can be changing it."""

    claim: Claim
    file: SourceFile
    is_still: bool


class Delete(NamedTuple):
    """A key without a file at its path. There is no proof yet that the file is gone."""

    claim: Claim
    path: str


class Checker:
    """Checks the files of one batch.

    Args:
        batch: the batch.
    """

    def __init__(self, batch: ClaimedBatch) -> None:
        self._batch = batch
        self._mirror = batch.mirror
        self._rules = batch.mirror.definition.file_rules
        self._shared: dict[int, bool] = {}
        self._is_upload_box = not batch.mirror.same_host

    def check(self, claim: Claim, reservation: Reservation, directories: DirectoryCache | None) -> Upload | Delete | Result:
        """Check the file of a claim. If it is to be uploaded, the caller closes it.

        Args:
            claim: the claim.
            reservation: acquires what an upload needs.
            directories: for files that are checked one right after the other.

        Raises:
            AutosyncError: the file cannot be uploaded now.
        """
        path = self._batch.path(claim.key)
        if path is None:
            return Result(claim, Action.NOTHING)  # the mirror has got other options since
        try:
            file = self._batch.open_file(claim, path, directories)
        except Absent:
            return Delete(claim, path)
        except NotMirrored as reason:
            if self._is_upload_box and claim.hint.was_checked:
                return dispute(self._batch, claim, path, "does not see {} as the file host does: it " + str(reason))
            return self._keep(claim, str(reason))
        try:
            found = self._check_file(claim, path, reservation, file)
        except BaseException:
            file.close()
            raise
        if isinstance(found, Result):
            file.close()
        return found

    def _check_file(self, claim: Claim, path: str, reservation: Reservation, file: SourceFile) -> Upload | Result:
        """Whether a file is to be uploaded, and how it has to be read."""
        if self._is_upload_box:
            if finding := _difference(claim, file):
                return dispute(self._batch, claim, path, finding)
            if claim.dispute is not None:
                self._mirror.unseen.discard(path)
        if self._batch.sent.get(claim.key) == file.signature:
            return Result(claim, Action.NOTHING)
        if reason := self._rules.reason_to_skip(file.size):
            return self._keep(claim, reason)
        if claim.hint.etag and file.size == claim.hint.size and self._mirror.actor.matches(file, claim.hint.etag):
            return Result(claim, Action.NOTHING)
        has_waited = self._acquire(claim, reservation, file)
        if file.device not in self._shared:
            self._shared[file.device] = is_shared(file.descriptor)
        writer = file.has_writer(self._shared[file.device])
        has_rested = writer is False or _rests_as_seen(claim, file) or self._mirror.unchanged_files.has_rested(claim.key, file.signature)
        if not has_rested and claim.attempts < _WRITER_CHECKS:
            if has_waited:
                reservation.release(reserved_bytes(file.size))
            raise FileChanged(f"{claim.key} is being written")
        is_still = has_rested and not writer  # an old file that some process has open may be changed through a mapping
        return Upload(claim, file if is_still else StableReader(file), is_still)

    def _acquire(self, claim: Claim, reservation: Reservation, file: SourceFile) -> bool:
        """Wait until the file may be sent: a large one until its first request may be sent, since its content waits while it is read. This
        comes before the check for writers, which must not be long before the reading. False: there are no limits."""
        throttle = self._mirror.throttle
        if file.size > SMALL:
            file.limiter = BandwidthLimiter(throttle, partial(self._batch.check_claim, claim.key))
        if not throttle.is_on:
            return False
        reservation.acquire(reserved_bytes(file.size), partial(self._batch.check_claim, claim.key))
        return True

    def _keep(self, claim: Claim, reason: str) -> Result:
        """Leave the target as it is, for a reason that ends a sentence about the path."""
        log.info(
            "%s %s; what the target has is kept", printable(claim.key), reason,
            extra={"mirror": self._mirror.definition.name, "key": claim.key, "worker": self._batch.worker.name},
        )  # fmt: skip
        return Result(claim, Action.NOTHING)


def _difference(claim: Claim, file: SourceFile) -> str:
    """How a file of an upload box differs from what the file host saw, since the share shows changes late or is another one. The text is
    the end of a sentence, with "{}" for the path; "": the file host saw this version, or the file has changed since."""
    hint = claim.hint
    if not hint.was_checked:
        return ""
    if hint.gone:
        return "still sees {}, which is gone"
    if _has_time_of(hint, file):
        return "sees another size of {}" if file.size != hint.size else ""
    if file.mtime_ns < hint.mtime_ns:
        return "still sees an old version of {}"
    # The file host checks the file once. If it has seen a change since, the file keeps changing, and this version is not an old one.
    has_changed = claim.dispute is not None and claim.dispute.tries == 0
    return "sees another version of {}" if file.mtime_ns > hint.mtime_ns + _MUCH_NEWER and not has_changed else ""


def _has_time_of(hint: Hint, file: SourceFile) -> bool:
    """Whether a file has the modification time that the file host saw, in the unit of this host's share."""
    if abs(file.mtime_ns - hint.mtime_ns) < _TIME_ERROR:
        return True
    return any(file.mtime_ns == hint.mtime_ns - hint.mtime_ns % unit for unit in _TIME_UNITS)


def _rests_as_seen(claim: Claim, file: SourceFile) -> bool:
    """Whether the file host saw the file at rest, and it is unchanged."""
    return claim.hint.rested and claim.hint.size == file.size and _has_time_of(claim.hint, file)
