"""Work that is done ahead by threads of its own. They hold nothing up: what is not wanted any more is dropped, and the program may end
while they wait for a server or a disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Prefetcher:
    """Does what it is asked for, in that order, with several threads at once. They are started when they are first needed.

    Args:
        threads: how many.
        name: of the threads, for people.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._asked: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._most = threads
        self._name = name

    def ask(self, work: Callable[[], T]) -> Future[T]:
        """Have something done."""
        future: Future[T] = Future()
        self._asked.put((future, work))
        if len(self._threads) < self._most:
            thread = threading.Thread(target=self._do, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self, *, wait: bool) -> None:
        """Drop what was not begun.

        Args:
            wait: whether to wait for what was.
        """
        with suppress(Empty):
            while True:
                asked = self._asked.get_nowait()
                if asked is not None:
                    asked[0].cancel()
        for _ in self._threads:
            self._asked.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _do(self) -> None:
        while (asked := self._asked.get()) is not None:
            future, work = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # whoever asked has to know
                future.set_exception(error)
            del future, work, asked  # an idle thread holds nothing
