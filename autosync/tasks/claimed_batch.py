"""One batch: its claims as a queue of chunks, and what is worked out once for all of them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from ..errors import BrokerError, Draining
from ..ledger import Claim
from ..source.source_file import SourceFile
from .limited_actor import LimitedActor
from .progress import Progress
from .sources import DirectoryCache, MirrorSource
from .worker_mirror import WorkerMirror
from .worker_state import WorkerState

#: Files up to this size are small: one thread works on several in a row, and reads each into memory; in bytes.
SMALL = 64 << 10


class Chunk(NamedTuple):
    """Claims that one thread works on together.

    Attributes:
        claims: one at least.
        transfers: how many transfers are in flight at the same time.
        is_deletion: one request is to delete all of them.
    """

    claims: list[Claim]
    transfers: int
    is_deletion: bool = False


class ClaimQueue:
    """The claims that are left, in chunks. Safe to use from many threads.

    Args:
        mirror: decides how large a chunk is.
        actor: decides what goes together.
    """

    def __init__(self, mirror: WorkerMirror, actor: LimitedActor) -> None:
        self._mirror = mirror
        self._actor = actor
        self._deletes_together = mirror.definition.delete and actor.deletes_together
        self._claims: deque[Claim] = deque()
        self._gone: list[Claim] = []
        self._lock = threading.Lock()

    def add(self, claims: Iterable[Claim]) -> None:
        """Add claims at the end."""
        with self._lock:
            for claim in claims:
                if self._deletes_together and claim.hint.gone and not claim.unfinished:
                    self._gone.append(claim)
                else:
                    self._claims.append(claim)

    def put_back(self, claims: list[Claim]) -> None:
        """Add claims at the front. Their keys are deleted one by one, not together with others."""
        with self._lock:
            self._claims.extendleft(reversed(claims))

    def next_chunk(self) -> Chunk | None:
        """All claims that are deleted together, or the next claim, or the next few claims if all are of small files. None: none is left."""
        together = self._actor.sends_together
        most = self._chunk_size(together=together)
        with self._lock:
            if len(self._gone) > 1:
                claims, self._gone = self._gone, []
                return Chunk(claims, 1, is_deletion=True)
            if self._gone:
                self._claims.append(self._gone.pop())
            claims = []
            while self._claims and (not claims or (len(claims) < most and is_small(claims[-1]) and is_small(self._claims[0]))):
                claims.append(self._claims.popleft())
        return Chunk(claims, len(claims) if together else 1) if claims else None

    def __len__(self) -> int:
        """How many chunks there are."""
        return -(-len(self._claims) // self._chunk_size(together=self._actor.sends_together)) + bool(self._gone)

    def _chunk_size(self, *, together: bool) -> int:
        return self._mirror.throttle.chunk_size(self._mirror.pool.chunk_size(together=together))


class ClaimedBatch:
    """One batch of claims.

    Args:
        worker: this process.
        mirror: the mirror.
        progress: counts the bytes that are read.
        claimed_at: when the claims were requested, on the monotonic clock.
    """

    def __init__(self, worker: WorkerState, mirror: WorkerMirror, progress: Progress, claimed_at: float) -> None:
        self.worker = worker
        self.mirror = mirror
        self.claimed_at = claimed_at
        self.actor = LimitedActor(mirror.actor, mirror.throttle, mirror.pool)
        self.queue = ClaimQueue(mirror, self.actor)
        #: Signatures of the files that were sent, by key, so that an unchanged file is not sent twice in one batch.
        self.sent: dict[str, tuple[int, int, int, int]] = {}
        self._progress = progress
        self._lock = threading.Lock()
        self._roots: dict[MirrorSource, int] = {}
        self._paths: dict[str, str | None] = {}

    def check_claim(self, key: str) -> None:
        """Check that the work on a key may go on. Called before each step of a transfer.

        Raises:
            Draining: the worker is being stopped.
            LeaseLost: another worker may have the claim.
        """
        if self.worker.draining.is_set():
            raise Draining(f"{key}: the worker is being stopped")
        self.mirror.claim_table.check(key, self.claimed_at)

    def path(self, key: str) -> str | None:
        """The path of a key, worked out once; None: it is out of scope."""
        if key not in self._paths:
            self._paths[key] = self.mirror.keys.path(key)
        return self._paths[key]

    def open_file(self, claim: Claim, path: str, directories: DirectoryCache | None) -> SourceFile:
        """Open the file of a claim. The caller closes it.

        Raises:
            AutosyncError, Absent, NotMirrored: see `MirrorSource.open`.
        """
        source = self.mirror.source_of(path)
        descriptor, seen = source.open(path, self._root(source), directories)

        def on_read(count: int) -> None:
            self._progress.add(count)  # may wait for the broker
            self.check_claim(claim.key)

        def ended(token: str) -> None:
            with suppress(BrokerError):  # then the next claim abandons it, which does no harm
                self.mirror.ledger.uploads.remove(claim.key, token)

        return SourceFile(claim.key, descriptor, on_read, partial(self.mirror.ledger.uploads.add, claim.key), ended, seen)

    def close(self) -> None:
        """Close the roots."""
        for root in self._roots.values():
            os.close(root)
        self._roots.clear()

    def _root(self, source: MirrorSource) -> int:
        """The root of a source, opened once."""
        if source not in self._roots:
            with self._lock:
                if source not in self._roots:
                    self._roots[source] = source.open_root()
        return self._roots[source]


def is_small(claim: Claim) -> bool:
    """Whether the file host saw a small file."""
    return 0 <= claim.hint.size <= SMALL


def reserved_bytes(size: int) -> int:
    """How many bytes of a file of this size are reserved before it is read. Those of a large file are reserved while it is read."""
    return size if size <= SMALL else 0
