"""Calls to the broker that wait while the broker is away, and the threads that make them."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from ..errors import BrokerError

log = logging.getLogger(__name__)

#: Seconds between two tries.
_BROKER_PAUSE = 0.5

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - not an error
    """The mirror is being closed; the thread that gets this exception ends."""


class BrokerRetry:
    """Repeats calls until the broker responds or the mirror is closed.

    Args:
        stop: set when the mirror is closed.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def retry_until_success(self, call: Callable[[], T]) -> T:
        """Make a call again and again until the broker responds. The first failure is logged.

        Raises:
            Stopped: the mirror was closed before the broker responded.
        """
        is_logged = False
        while True:
            try:
                return call()
            except BrokerError as error:
                if not is_logged:
                    log.warning("%s; what happens meanwhile is kept and sent later", error)
                is_logged = True
                self.pause(_BROKER_PAUSE)

    def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            Stopped: the mirror is closed, or was closed during the sleep.
        """
        if self._stop.wait(seconds):
            raise Stopped


class FeedThread(ABC):
    """Work in a daemon thread of its own, and the exception by which it ended.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._error: Exception | None = None

    @property
    def error(self) -> Exception | None:
        """The exception that ended the thread; None if it still runs, or ended as it should."""
        return self._error

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @abstractmethod
    def _run(self) -> None:
        """The work. It may end by `Stopped`."""

    def _work(self) -> None:
        try:
            self._run()
        except Stopped:
            pass
        except Exception as error:  # the main loop reads it and ends the program
            log.debug("the thread %s ended", self._thread.name, exc_info=True)
            self._error = error
