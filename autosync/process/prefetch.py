"""Runs functions ahead of their use, in threads of its own. The program may end while these threads wait for a server or a disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Prefetcher:
    """A pool of daemon threads that runs functions in the order of `submit`. Threads are started when they are first needed.

    Args:
        threads: the most threads.
        name: a name for the threads, for debuggers.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._max_threads = threads
        self._name = name

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Queue a function. Its result or exception is in the returned future."""
        future: Future[T] = Future()
        self._queue.put((future, work))
        if len(self._threads) < self._max_threads:
            thread = threading.Thread(target=self._do, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self, *, wait: bool) -> None:
        """Cancel the functions that have not begun, and end the threads.

        Args:
            wait: whether to wait for the functions that run.
        """
        with suppress(Empty):
            while True:
                item = self._queue.get_nowait()
                if item is not None:
                    item[0].cancel()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _do(self) -> None:
        while (item := self._queue.get()) is not None:
            future, work = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # the owner of the future gets it
                future.set_exception(error)
            del future, work, item  # so that an idle thread keeps no object alive
