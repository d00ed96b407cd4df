"""kombu's Redis transport, as autosync uses it."""

from __future__ import annotations

from typing import Any

import kombu.transport.redis


class Channel(kombu.transport.redis.Channel):
    """Makes one client for all that it sends. kombu makes one for each command, which takes half of the time of a message."""

    _pooled: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # for one connection of its own
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        if self._pooled is None or self._pooled.connection_pool is not self.pool:
            self._pooled = super()._create_client()  # type: ignore[no-untyped-call]
        return self._pooled


def install() -> None:
    """Have kombu use it from now on, for every connection to a Redis."""
    kombu.transport.redis.Transport.Channel = Channel
    # When a connection breaks, kombu tries to put messages back that are being worked on. It cannot while the broker is away, and kombu 5.7
    # ends the worker over it.
    Channel.do_restore = False
