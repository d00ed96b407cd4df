"""Runs the ledger's scripts on connections of their own, without most of redis-py's client.

The client's work around each command takes half of the command's time: in a process that has just slept, a fifth of a millisecond, three
times for each saved file.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import redis

_NAMES = (
    "resolve_disputes",
    "claim_keys",
    "inflight_slots",
    "mark_dirty",
    "note_upload",
    "permissions",
    "rate_limit",
    "release_claims_of_dead",
    "renew_claims",
    "requeue_orphans",
    "retry_denied",
    "store_results",
    "watcher_heartbeat",
)

#: The attribute of a connection pool with the connections of one process that no call uses at the moment.
_IDLE = "autosync_idle_connections"


@cache
def script_texts() -> Mapping[str, str]:
    """The ledger's scripts in Lua, by name."""
    return {name: resources.files(__package__).joinpath(f"{name}.lua").read_text() for name in _NAMES}


class Scripts:
    """Scripts, by name. Safe to use from many threads: each call has a connection to itself.

    Args:
        client: makes the connections. It also runs a script that the server has not loaded yet, and repeats a call whose connection broke.
        texts: the scripts in Lua, by name.
    """

    def __init__(self, client: redis.Redis, texts: Mapping[str, str]) -> None:
        self._pool = client.connection_pool
        self._scripts = {name: client.register_script(text) for name, text in texts.items()}
        # The pool counts these connections as used. So they outlive this object, and all scripts of a client share them; a process that
        # was forked has none of them.
        self._idle: deque[Any] = vars(self._pool).setdefault(f"{_IDLE}_{os.getpid()}", deque())

    def run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script.

        Args:
            name: the script's name.
            keys: KEYS in Lua.
            args: ARGV in Lua.

        Returns:
            The value that the script returns, texts as bytes.

        Raises:
            redis.exceptions.RedisError: the server refused the script, or does not respond. If the connection breaks, the script is run
                once more, as redis-py does with any command, so it may run twice.
        """
        script = self._scripts[name]
        try:
            return self._run_on_own_connection("EVALSHA", script.sha, len(keys), *keys, *args)
        except (redis.exceptions.NoScriptError, redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            return script(keys=keys, args=args)

    def _run_on_own_connection(self, *command: Any) -> Any:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._pool.get_connection()
        is_whole = False
        try:
            connection.send_command(*command)
            response = connection.read_response()
            is_whole = True
            return response
        except redis.exceptions.ResponseError:
            is_whole = True
            raise
        finally:
            if is_whole:
                self._idle.append(connection)
            else:  # the rest of a response may still arrive
                connection.disconnect()
                self._pool.release(connection)
