"""What goes into the ledger and comes out of it: plain values."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

#: Behind the modification time of a file that has rested.
_RESTED = "r"


class Hint(NamedTuple):
    """What the file host saw when it marked a key: `size` in bytes and `mtime_ns`. (-1, 0): no such file. (-2, 0): not known.

    `etag` is set where everything but the times is equal: if the content still has it, nothing needs to be sent. `rested` says that the
    file host saw it unchanged for as long as a write may take, or that its kernel knows of nobody who writes to it.
    """

    size: int
    mtime_ns: int
    etag: str = ""
    rested: bool = False

    @property
    def gone(self) -> bool:
        """Whether the file host saw no file."""
        return self.size == -1

    @property
    def known(self) -> bool:
        """Whether the file host saw anything at all."""
        return self.size != -2

    def dumps(self) -> str:
        """One line of text for the ledger."""
        return f"{self.size} {self.mtime_ns}{_RESTED if self.rested else ''} {self.etag}"

    @classmethod
    def loads(cls, text: str) -> Hint:
        """The hint that `dumps` wrote."""
        size, mtime_ns, etag = text.split(" ", 2)
        return cls(int(size), int(mtime_ns.removesuffix(_RESTED)), etag, mtime_ns.endswith(_RESTED))


GONE = Hint(-1, 0)
UNKNOWN = Hint(-2, 0)


class Published(NamedTuple):
    """A mirror's definition as it stands in the ledger, with its version and its signature ("": it was not signed)."""

    definition: str
    version: str
    signature: str


@dataclass(slots=True)
class Claim:
    """A key that this worker holds. `attempts`: failed tries before this one. `unfinished`: tokens of uploads of this key that somebody
    who does not hold it any more has left open. `ticket`: what tells this claim of the key from all others."""

    key: str
    attempts: int
    hint: Hint
    unfinished: tuple[str, ...] = ()
    ticket: str = field(default="", compare=False)


class Action(Enum):
    """What a worker did about a key."""

    UPLOADED = "uploaded"
    DELETED = "deleted"
    #: The target was right already.
    NOTHING = "nothing"
    RETRY = "retry"
    FAILED = "failed"
    #: Untouched; another worker may have it.
    BACK = "back"


class Result(NamedTuple):
    """What became of one claimed key: `delay` in seconds for RETRY, `failure` for FAILED, `size` in bytes for UPLOADED."""

    claim: Claim
    deed: Action
    size: int = 0
    delay: float = 0.0
    failure: Failure | None = None

    @property
    def key(self) -> str:
        """Which key it is about."""
        return self.claim.key


class Failure(NamedTuple):
    """An entry of the failed list. `time`: seconds since the epoch."""

    key: str
    reason: str
    attempts: int
    worker: str
    time: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What the ledger knows about a key. Times are the server's, in seconds since the epoch.

    Attributes:
        dirty: since when it is; None: it is right, as far as is known.
        due: when its claim ends if it has an owner, else when it is tried next; None: it waits in the queue, or is not dirty.
        owner: the worker that holds it; "": none does.
        attempts: tries that failed.
        hint: what the file host saw.
        uploads: uploads of it in parts that may be open in the target.
        failure: its entry in the failed list.
        now: the server's time when this was asked.
    """

    dirty: float | None
    due: float | None
    owner: str
    attempts: int
    hint: Hint | None
    uploads: int
    failure: Failure | None
    now: float


class HistoryEntry(NamedTuple):
    """What once became of a key: `time` in seconds since the epoch, `what` ("sent", "deleted", "equal", "retry", "failed"), and `number`:
    the bytes that were sent, or how many tries had failed then."""

    time: float
    worker: str
    what: str
    number: int


class Message(NamedTuple):
    """A message to the workers: the queue, its priority in there (0 is served first), and the text as Celery wrote it."""

    queue: str
    priority: int
    text: str


class Marked(NamedTuple):
    """Answer to `mark`: how many keys are dirty now, and which of the marked ones need a message."""

    dirty: int
    fresh: list[str]


@dataclass(frozen=True, slots=True)
class MirrorStats:
    """How a mirror stands: `dirty` keys, of which `held` are claimed or wait for their next try; `failed` keys; what has been done
    since the mirror exists; `lag` in seconds, the age of the oldest dirty key; whether it is `paused`; how many
    looks and barriers are `asked` for."""

    holder: str
    epoch: str
    dirty: int
    held: int
    failed: int
    files: int
    bytes: int
    deleted: int
    lag: float
    paused: bool = False
    asked: int = 0


def owner_prefix(host: str, pid: int) -> str:
    """How the owner names of one worker process begin."""
    return f"{host}:{pid}:"


def now() -> float:
    """The time to put into a `Failure`."""
    return time.time()
