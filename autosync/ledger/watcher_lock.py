"""One watcher a mirror: the place in Redis that it holds while it lives, and what happens to the place of one that has died."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..errors import BrokerError, StartError
from ..model.mirror import LONGEST_LOCK
from . import Ledger, MirrorStats

_PAUSE = 0.5


class WatcherLock:
    """The watcher's place at one mirror.

    Args:
        ledger: of the mirror.
        mirror: its name, for messages.
        boot: the boot id of this host.
        lock: how long the place is kept without a renewal, in seconds.
    """

    def __init__(self, ledger: Ledger, mirror: str, boot: str, lock: float) -> None:
        self._ledger = ledger
        self._mirror = mirror
        self._boot = boot
        self._lock = lock
        self._who = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "boot": boot, "started": time.time()})

    def take(self, stop: threading.Event) -> bool:
        """Take the place. One whose holder is dead on this host is free; elsewhere, one that is not renewed becomes free.

        Args:
            stop: ends the waiting.

        Returns:
            Whether the place was taken; False if `stop` was set first.

        Raises:
            StartError: another process holds it.
            BrokerError: the broker does not answer.
        """
        until = time.monotonic() + LONGEST_LOCK + 1  # the holder's lease may be longer than this one's
        left_before = None
        while True:
            holder = _told(self.look().holder)
            if holder == _told(self._who):
                return True
            if self._is_dead(holder):
                self._ledger.leave(json.dumps(holder))
                continue
            place = self._ledger.place()
            renewed = place is not None and left_before is not None and place[1] > left_before
            if renewed or self._is_alive(holder) or time.monotonic() > until:
                raise StartError(
                    f"mirror {self._mirror} is already kept by process {holder.get('pid')} on {holder.get('host')}",
                    "stop that one, or give this one another --name",
                )
            left_before = place[1] if place else None
            if stop.wait(_PAUSE):
                return False

    def keep(self, told: Mapping[str, int] | None = None) -> MirrorStats:
        """Renew the place, and see how the mirror stands.

        Args:
            told: numbers for those who look at the mirror; see `Ledger.guard`.

        Raises:
            StartError: another process has taken it.
            BrokerError: the broker does not answer.
        """
        standing = self._ledger.guard(self._who, told, self._lock)
        holder = _told(standing.holder)
        if standing.holder != self._who and self._is_dead(holder):  # a broker that was killed has come back with older memory
            self._ledger.leave(standing.holder)
            standing = self._ledger.guard(self._who, told, self._lock)
            holder = _told(standing.holder)
        if standing.holder != self._who:
            raise StartError(f"mirror {self._mirror} was taken over by process {holder.get('pid')} on {holder.get('host')}")
        return standing

    def look(self) -> MirrorStats:
        """How the mirror stands; renews the place if this process has it."""
        return self._ledger.guard(self._who, lock=self._lock)

    def leave(self) -> None:
        """Give the place up."""
        with suppress(BrokerError):
            self._ledger.leave(self._who)

    def _is_dead(self, holder: dict[str, Any]) -> bool:
        return self._is_of_this_host(holder) and not self._is_alive(holder)

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        """Whether the holder is a process that this one can see."""
        pid = holder.get("pid")
        return self._is_of_this_host(holder) and pid != os.getpid() and os.path.exists(f"/proc/{pid}")

    def _is_of_this_host(self, holder: dict[str, Any]) -> bool:
        """Another host name on the same boot is a container with process ids of its own."""
        return holder.get("boot") == self._boot and holder.get("host") == socket.gethostname()


def _told(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}
