"""What a worker has seen of files before it sends them, where nobody else says that they rest."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

#: A single write(2) has ended after this time, in seconds.
LONGEST_WRITE = 1.0
#: So many files are remembered; one that was forgotten is seen for the first time once more.
_MOST = 10_000

Signature = tuple[int, int, int, int]


class FirstSeen:
    """The state of files by key, and since when each was seen like that. Safe to use from many threads.

    Args:
        clock: monotonic time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[Signature, float]] = OrderedDict()
        self._lock = threading.Lock()

    def has_rested(self, key: str, signature: Signature) -> bool:
        """Whether no write(2) can be under way that began before the file was first seen: it has been seen unchanged for longer than any
        takes. The times of the file are not compared with this host's clock, since they may be those of another.

        Args:
            key: of the file.
            signature: what it is like now, see `SourceFile.signature`.
        """
        now = self._clock()
        with self._lock:
            before, since = self._seen.pop(key, (None, now))
            if before == signature and now - since >= LONGEST_WRITE:
                return True
            self._seen[key] = (signature, since if before == signature else now)
            if len(self._seen) > _MOST:
                self._seen.popitem(last=False)
            return False
