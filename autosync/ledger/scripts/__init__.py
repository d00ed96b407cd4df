"""How the ledger's scripts are run: on connections of their own, past most of redis-py's client.

What that does around each command costs half of it, and in a process that has just been asleep a fifth of a millisecond, three times for
each file that is saved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import redis

_NAMES = (
    "access",
    "claim",
    "done",
    "heartbeat",
    "mark",
    "rate_limit",
    "release_claims_of_dead",
    "renew",
    "requeue_orphans",
    "slots",
    "upload",
)


@cache
def script_texts() -> Mapping[str, str]:
    """The ledger's scripts in Lua, by name."""
    return {name: resources.files(__package__).joinpath(f"{name}.lua").read_text() for name in _NAMES}


class Scripts:
    """Scripts, by name. Safe to use from many threads: each call has a connection to itself.

    Args:
        client: gives the connections, and does what is not plain: a script that the server does not know yet, a connection that broke.
        texts: the scripts in Lua.
    """

    def __init__(self, client: redis.Redis, texts: Mapping[str, str]) -> None:
        self._pool = client.connection_pool
        self._scripts = {name: client.register_script(text) for name, text in texts.items()}
        #: Connections that nobody uses at the moment.
        self._idle: deque[Any] = deque()

    def run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run one.

        Args:
            name: of the script.
            keys: KEYS in Lua.
            args: ARGV in Lua.

        Returns:
            What it returns, texts as bytes.

        Raises:
            redis.exceptions.RedisError: it was refused, or the server does not answer. If the connection breaks it is tried once more, as
                with any other command, so it may be carried out twice.
        """
        script = self._scripts[name]
        try:
            return self._on_a_connection("EVALSHA", script.sha, len(keys), *keys, *args)
        except (redis.exceptions.NoScriptError, redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            return script(keys=keys, args=args)

    def _on_a_connection(self, *command: Any) -> Any:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._pool.get_connection()
        is_whole = False
        try:
            connection.send_command(*command)
            answer = connection.read_response()
            is_whole = True
            return answer
        except redis.exceptions.ResponseError:
            is_whole = True
            raise
        finally:
            if is_whole:
                self._idle.append(connection)
            else:  # half of an answer may still be on its way
                connection.disconnect()
                self._pool.release(connection)
