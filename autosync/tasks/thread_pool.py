"""The threads that work on one mirror in this process: on all its batches, and as many at once as are of use."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

log = logging.getLogger("autosync.transfer")

#: What one transfer costs this process, in seconds. The response time divided by this is the number of transfers that can be begun while
#: the target works on one. More threads make nothing faster, they only compete for the interpreter (measured: 8 at once cost twice the
#: CPU of one that has 16 in flight).
_COST = 0.0002
#: Threads and transfers as long as no response time is known.
_FIRST_THREADS, _FIRST_TRANSFERS = 16, 1
#: The most small transfers of a chunk, once a response time is known: fewer reports, and fewer waits between them. Where transfers follow
#: each other, the second number is the longest time of a chunk in seconds, since other threads could make the rest.
_CHUNK, _CHUNK_SECONDS = 16, 0.004
#: A thread waits for so long until no more threads are at work than are of use, in seconds. Then some transfer takes long, and it goes on.
_LONGEST_WAIT = 0.5
#: A thread works on one batch for so long before another batch has its turn, in seconds.
_SLICE = 0.01
#: Length of a period, in seconds. The shortest response time in it counts; the others show how long transfers waited for each other.
_WINDOW = 3.0
#: The interval at which results are reported while a batch waits for its last transfers, in seconds.
_REPORT_INTERVAL = 0.1


class _Chunk(Protocol):
    @property
    def transfers(self) -> int:
        """How many transfers are in flight at the same time."""


C = TypeVar("C", bound=_Chunk)
C_co = TypeVar("C_co", bound=_Chunk, covariant=True)
R = TypeVar("R")


class ChunkQueue(Protocol[C_co]):
    """The chunks of a batch. Its methods are called from many threads."""

    def next_chunk(self) -> C_co | None:
        """The next chunk; None: there is none now."""

    def __len__(self) -> int:
        """How many there are."""


class _Job(Generic[C, R]):
    """A batch in the pool: its queue, and how many of its chunks are in work."""

    def __init__(
        self, pool: AdaptivePool, chunks: ChunkQueue[C], work: Callable[[C], Sequence[R]], report: Callable[[Sequence[R]], None]
    ) -> None:
        self._pool = pool
        self._chunks = chunks
        self._work = work
        self._report = report
        self._in_work = 0
        self._is_closed = False
        self._none_in_work = threading.Condition()

    def step(self) -> bool:
        """Work on the next chunk. False: there is none now."""
        with self._none_in_work:
            chunk = None if self._is_closed else self._chunks.next_chunk()
            if chunk is None:
                return False
            self._in_work += 1
        try:
            with self._pool.in_flight(chunk.transfers):
                results = self._work(chunk)
            self._report(results)
        finally:
            with self._none_in_work:
                self._in_work -= 1
                if not self._in_work:
                    self._none_in_work.notify_all()
        return True

    def wait(self) -> None:
        """Wait a moment for chunks in work, and report what is done: it must not wait for the slowest transfer."""
        with self._none_in_work:
            self._none_in_work.wait_for(lambda: not self._in_work, _REPORT_INTERVAL)
        self._report([])

    def has_ended(self) -> bool:
        """Whether no chunk is left or in work. From then on none is begun."""
        with self._none_in_work:
            self._is_closed = not self._in_work and not len(self._chunks)
            return self._is_closed

    def close(self) -> None:
        """Begin no chunk any more, and wait for those in work."""
        with self._none_in_work:
            self._is_closed = True
        while self._in_work:
            self.wait()


class AdaptivePool:
    """Works on batches.

    Args:
        most: transfers in flight at most.
        name: the mirror's name.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._running = self._in_flight = 0
        counts = threading.Lock()
        self._fewer_running, self._fewer_in_flight = threading.Condition(counts), threading.Condition(counts)
        self._pool = ThreadPoolExecutor(most, f"autosync-{name}")
        self._lock = threading.Lock()
        self._jobs: deque[_Job[Any, Any]] = deque()
        self._helpers = 0
        self._shortest = self._shortest_before = math.inf
        self._window_ends = 0.0

    def run(self, chunks: ChunkQueue[C], work: Callable[[C], Sequence[R]], report: Callable[[Sequence[R]], None]) -> None:
        """Work on a batch, in this thread and in others that are free, until no chunk is left or in work.

        Args:
            chunks: the batch.
            work: works on one chunk and returns results; called from several threads at once.
            report: is called with the results of each chunk when it is in flight no more, and every now and then with none. It may add
                chunks. Called from several threads at once.
        """
        job = _Job(self, chunks, work, report)
        with self._lock:
            self._jobs.append(job)
            helpers = max(min(self.useful_threads() - len(self._jobs) - self._helpers, len(chunks) - 1), 0)
            self._helpers += helpers
        for _ in range(helpers):
            self._pool.submit(self._help)
        try:
            while not job.has_ended():
                while self._run_slice(job):
                    pass
                self._remove(job)
                job.wait()
        finally:
            self._remove(job)
            job.close()

    def add_response_time(self, seconds: float, count: int = 1) -> None:
        """Note how long the target took for `count` transfers that one thread had in flight together."""
        seconds /= count
        now = time.monotonic()
        if now > self._window_ends:
            self._window_ends = now + _WINDOW
            self._shortest_before, self._shortest = self._shortest, math.inf
        if seconds < self._shortest:
            self._shortest = seconds

    def useful_threads(self) -> int:
        """How many threads at once are of use now."""
        shortest = self._response_time()
        useful = _FIRST_THREADS if shortest == math.inf else math.ceil(shortest / _COST)
        return min(useful, self._most)

    def chunk_size(self, *, together: bool) -> int:
        """How many small transfers a thread works on at a time, which go together or one after the other."""
        shortest = self._response_time()
        most = min(_CHUNK, self._most) if shortest < math.inf else _FIRST_TRANSFERS
        return most if together else max(1, min(int(_CHUNK_SECONDS / max(shortest, 1e-9)), most))

    def _response_time(self) -> float:
        """How long a thread waits for the target with one transfer, in seconds; infinite as long as that is not known."""
        return min(self._shortest, self._shortest_before)

    @contextmanager
    def in_flight(self, count: int) -> Iterator[None]:
        """Have transfers in flight, after waiting until there may be `count` more."""
        with self._fewer_in_flight:
            self._fewer_in_flight.wait_for(lambda: self._in_flight + count <= self._most)
            self._in_flight += count
        try:
            yield
        finally:
            with self._fewer_in_flight:
                self._in_flight -= count
                self._fewer_in_flight.notify_all()

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False)

    def _help(self) -> None:
        """Work on a few chunks of each batch in turn, as long as there are any and no more threads are at work than are of use."""
        try:
            while True:
                with self._lock:
                    if not self._jobs or self._helpers + len(self._jobs) > self.useful_threads():
                        return
                    job = self._jobs[0]
                    self._jobs.rotate(-1)
                if not self._run_slice(job):
                    self._remove(job)
        except Exception:  # the file host requeues its keys
            log.exception("a transfer ended in a way that was not expected")
        finally:
            with self._lock:
                self._helpers -= 1

    def _run_slice(self, job: _Job[Any, Any]) -> bool:
        """Work on some chunks, as one of the threads at work. Returns False if there are no more."""
        with self._fewer_running:
            if not self._fewer_running.wait_for(lambda: self._running < self.useful_threads(), _LONGEST_WAIT):
                self._fewer_running.wait_for(lambda: self._running < self._most)
            self._running += 1
        try:
            until = time.monotonic() + _SLICE
            while job.step():
                if time.monotonic() > until:
                    return True
            return False
        finally:
            with self._fewer_running:
                self._running -= 1
                self._fewer_running.notify()

    def _remove(self, job: _Job[Any, Any]) -> None:
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)
