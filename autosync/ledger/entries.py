"""The plain values that the ledger stores and returns."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from urllib.parse import quote, unquote

#: Follows the modification time of a file that has rested.
_RESTED = "r"


class Hint(NamedTuple):
    """What the file host saw when it marked a key.

    Attributes:
        size: the file's size in bytes; -1: there was no file; -2: the file host did not check.
        mtime_ns: its modification time, in nanoseconds; 0: there was no file, or the file host did not check.
        etag: the object's ETag, if only the times differ: a file whose content still has it need not be sent; "": none.
        rested: the file was unchanged for as long as a write may take, or the kernel says that no process has it open for writing.
    """

    size: int
    mtime_ns: int
    etag: str = ""
    rested: bool = False

    @property
    def gone(self) -> bool:
        """Whether the file host saw that there is no file."""
        return self.size == -1

    @property
    def was_checked(self) -> bool:
        """Whether the file host has checked the file."""
        return self.size != -2

    def dumps(self) -> str:
        """One line of text for the ledger."""
        return f"{self.size} {self.mtime_ns}{_RESTED if self.rested else ''} {self.etag}"

    @classmethod
    def loads(cls, text: str) -> Hint:
        """The hint that `dumps` has written."""
        size, mtime_ns, etag = text.split(" ", 2)
        return cls(int(size), int(mtime_ns.removesuffix(_RESTED)), etag, mtime_ns.endswith(_RESTED))


GONE = Hint(-1, 0)
UNKNOWN = Hint(-2, 0)


class Published(NamedTuple):
    """A mirror's definition as it is published, with its version and its signature ("": it is not signed)."""

    definition: str
    version: str
    signature: str


class Dispute(NamedTuple):
    """The dispute about a key: a worker does not see at its path what the file host saw.

    Attributes:
        tries: how many times workers did not see what the present hint describes.
        confirmed_for: how long ago the file host confirmed this hint, in seconds; None: it has not done so yet.
    """

    tries: int
    confirmed_for: float | None


class DisputedKey(NamedTuple):
    """A disputed key. The file host has to check its file.

    Attributes:
        key: the key.
        generation: the key's generation when it was read; a resolution has no effect if the generation has changed since.
        hint: what the file host saw before; None: the key is not dirty any more.
    """

    key: str
    generation: str
    hint: Hint | None


@dataclass(slots=True)
class Claim:
    """A worker's claim of a key.

    Attributes:
        key: the key.
        attempts: failed tries before this one.
        hint: what the file host saw.
        unfinished: tokens of multipart uploads of this key that earlier owners have left open.
        fencing_token: differs from that of every other claim of the key.
        dispute: set if a worker did not see what the hint says.
    """

    key: str
    attempts: int
    hint: Hint
    unfinished: tuple[str, ...] = ()
    fencing_token: str = field(default="", compare=False)
    dispute: Dispute | None = field(default=None, compare=False)


class Action(Enum):
    """What a worker did with a key."""

    UPLOADED = "uploaded"
    DELETED = "deleted"
    #: The target was right already.
    NOTHING = "nothing"
    RETRY = "retry"
    FAILED = "failed"
    #: Nothing: another worker may claim it.
    BACK = "back"
    #: Nothing was done: the worker does not see what the file host saw. A worker tries again later.
    DISPUTED = "disputed"
    #: Nothing: another worker may have the claim, so there is nothing to report.
    LOST = "lost"


class Result(NamedTuple):
    """The result of one claim.

    Attributes:
        claim: the claim.
        action: what was done.
        size: the number of bytes that were sent, for UPLOADED.
        delay: how long to wait before the next try, in seconds, for RETRY.
        failure: the entry of the failed list, for FAILED.
        is_denied: for FAILED: whether the file may not be read. If so, the file host tries the key again when permissions change.
        seconds: how long the target took, for UPLOADED and DELETED.
    """

    claim: Claim
    action: Action
    size: int = 0
    delay: float = 0.0
    failure: Failure | None = None
    seconds: float = 0.0
    is_denied: bool = False

    @property
    def key(self) -> str:
        """The claimed key."""
        return self.claim.key


class Failure(NamedTuple):
    """An entry of the failed list.

    Attributes:
        key: the key.
        reason: why the last try failed, in words.
        attempts: how many tries have failed.
        worker: name of the worker that has failed.
        time: when the last try failed, in seconds since the epoch.
        next_try: the latest time of the next try if the file may not be read, in seconds since the epoch, by the broker's clock. None for
            all other keys.
    """

    key: str
    reason: str
    attempts: int
    worker: str
    time: float
    next_try: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of a key in the ledger. Times are those of the broker's clock, in seconds since the epoch.

    Attributes:
        dirty: since when the key is dirty; None: it is not.
        due: when its claim ends if it has an owner, else when it is tried next; None: it waits in the queue, or is not dirty.
        owner: the worker that has claimed it; "": none.
        attempts: how many tries have failed.
        hint: what the file host saw.
        uploads: how many multipart uploads of it may be open in the target.
        failure: its entry in the failed list.
        now: the time of this state.
        dispute: set if a worker did not see what the hint says.
    """

    dirty: float | None
    due: float | None
    owner: str
    attempts: int
    hint: Hint | None
    uploads: int
    failure: Failure | None
    now: float
    dispute: Dispute | None = None


class HistoryEntry(NamedTuple):
    """A result in the history of a key.

    Attributes:
        time: when the result was stored, in seconds since the epoch.
        worker: the worker's name.
        what: "sent", "deleted", "equal", "retry", "failed", or "disputed", the first time that a worker did not see what the file host saw.
        number: how many bytes were sent, or how many tries had failed by then.
    """

    time: float
    worker: str
    what: str
    number: int


class Message(NamedTuple):
    """A message for the workers: its queue, its priority (0 is delivered first), and its text, as Celery has written it."""

    queue: str
    priority: int
    text: str


class Marked(NamedTuple):
    """What `Claims.mark` returns: how many keys are dirty now, and which of the marked keys need a message."""

    dirty: int
    fresh: list[str]


@dataclass(frozen=True, slots=True)
class MirrorStats:
    """The figures of a mirror.

    Attributes:
        holder: the holder of the watcher's lock; "" for none.
        broker_generation: changes when the broker has lost its memory, or may have lost the end of it.
        dirty: how many keys are dirty.
        claimed: how many of those are claimed or wait for their next try.
        failed: how many keys are in the failed list.
        files: how many files were sent since the mirror exists.
        bytes: how many bytes were sent since then.
        deleted: how many keys were deleted since then.
        lag: for how long the oldest dirty key has been dirty, in seconds.
        paused: whether the mirror is paused.
        requests: how many requests of operators wait for the watcher.
        disputed: how many keys are disputed.
        unresolved: for how many of these keys the watcher has to check the file.
        denied: number of failed keys whose files may not be read.
    """

    holder: str
    broker_generation: str
    dirty: int
    claimed: int
    failed: int
    files: int
    bytes: int
    deleted: int
    lag: float
    paused: bool = False
    requests: int = 0
    disputed: int = 0
    unresolved: int = 0
    denied: int = 0


def owner_prefix(host: str, pid: int) -> str:
    """The prefix of the names of owners in one worker process."""
    return f"{host}:{pid}:"


def new_owner(host: str, pid: int, worker: str) -> str:
    """A name for an owner of claims that no other has: the process, random digits, and the name of the worker."""
    return f"{owner_prefix(host, pid)}{uuid.uuid4().hex[:8]}:{quote(worker, safe='@:')}"


def worker_of(owner: str) -> str:
    """The name of the worker in the name of an owner. Before 0.2 an owner's name had no worker in it; then it is the process."""
    parts = owner.split(":", 3)
    return unquote(parts[3]) if len(parts) > 3 else owner.rpartition(":")[0]  # host, process id, digits, worker


def now() -> float:
    """The time for a new `Failure`."""
    return time.time()


def seconds_of(text: bytes | None, unit: int = 1) -> float | None:
    """A time that Redis holds, in seconds; None if there is none, or if it is damaged.

    Args:
        text: a number.
        unit: how many of the number make a second.
    """
    try:
        found = float(text or b"") / unit
    except ValueError:
        return None
    return found if math.isfinite(found) else None
