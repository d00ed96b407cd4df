"""Since when a worker has seen a file unchanged, for files that the file host has not seen at rest."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

#: A single write(2) has ended after this time, in seconds.
LONGEST_WRITE = 1.0
#: The most files that are remembered; a file that was forgotten counts as seen for the first time.
_MAX_FILES = 10_000

Signature = tuple[int, int, int, int]


class UnchangedFiles:
    """The state of files by key, and since when each was seen in that state. Safe to use from many threads.

    Args:
        clock: monotonic time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[Signature, float]] = OrderedDict()
        self._lock = threading.Lock()

    def has_rested(self, key: str, signature: Signature) -> bool:
        """Whether the file was seen unchanged for longer than any write(2) takes, so that none can be under way that began before the file
        was first seen. The times of the file are not compared with this host's clock, since they may be those of another host.

        Args:
            key: the file's key.
            signature: its state now, see `SourceFile.signature`.
        """
        now = self._clock()
        with self._lock:
            before, since = self._seen.pop(key, (None, now))
            if before == signature and now - since >= LONGEST_WRITE:
                return True
            self._seen[key] = (signature, since if before == signature else now)
            if len(self._seen) > _MAX_FILES:
                self._seen.popitem(last=False)
            return False
