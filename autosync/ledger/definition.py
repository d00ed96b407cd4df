"""The definition of a mirror, as the watcher publishes it for the workers."""

from __future__ import annotations

import time
import uuid
from typing import Any, cast

from ..model.mirror import DEFAULT_QUEUE
from .entries import Published, seconds_of
from .redis_connection import server_run_id
from .redis_keys import MIRRORS
from .store import LedgerPart, MirrorStore
from .worker_notes import WorkerNotes

#: How long the note of a worker that cannot read the definition is kept, in seconds. Each worker's note has an expiry of its own.
UNREADABLE_SECONDS = 300.0


class DefinitionStore(LedgerPart):
    """The published definition of one mirror. Every method raises `BrokerError`: see `LedgerPart`.

    Args:
        store: the mirror's data in Redis.
    """

    def __init__(self, store: MirrorStore) -> None:
        super().__init__(store)
        self._unreadable = WorkerNotes(store, store.names.unreadable)

    def publish(self, definition: str, version: str, queue: str = DEFAULT_QUEUE, signature: str = "") -> str:
        """Publish the definition, in the place of the one before.

        Args:
            definition: the definition as `Mirror.dumps` writes it.
            version: the version of the definition.
            queue: the queue of the mirror's tasks; workers read it from here.
            signature: the definition's signature; "": it is not signed.

        Returns:
            The broker generation. It changes when Redis has lost its memory, or may have lost the end of it; then everything has to be
            scanned again.
        """
        with self._store.errors():
            run_id = server_run_id(self._client)
            pipe = self._client.pipeline()
            pipe.sadd(MIRRORS, self._names.mirror_name)
            fields: dict[Any, Any] = {"definition": definition, "version": version, "queue": queue, "signature": signature}
            fields["ran_at"] = repr(time.time())
            pipe.hset(self._names.definition, mapping=fields)
            pipe.delete(self._names.unreadable)
            pipe.hsetnx(self._names.definition, "epoch", uuid.uuid4().hex)
            pipe.hget(self._names.definition, "epoch")
            generation: bytes = pipe.execute()[-1]
            return f"{generation.decode()} {run_id}"

    def set_ran_at(self, at: float) -> None:
        """Store when the mirror ran last, in seconds since the epoch. `publish` does so too."""
        with self._store.errors():
            self._client.hset(self._names.definition, "ran_at", repr(at))

    def ran_at(self) -> float | None:
        """When the mirror was last known to run, in seconds since the epoch; None if that is unknown."""
        with self._store.errors():
            found = cast(bytes | None, self._client.hget(self._names.definition, "ran_at"))
        return seconds_of(found)

    def read(self) -> Published | None:
        """The published definition, or None if there is no such mirror."""
        with self._store.errors():
            found = cast(list[bytes | None], self._client.hmget(self._names.definition, ["definition", "version", "signature"]))
        definition, version, signature = [text.decode("utf-8", "replace") if text else "" for text in found]
        return Published(definition, version, signature) if definition and version else None

    def queue(self) -> str:
        """The queue of the mirror's tasks, also if this version cannot read the definition; "" if there is no such mirror."""
        with self._store.errors():
            found = cast(bytes | None, self._client.hget(self._names.definition, "queue"))
        return found.decode("utf-8", "replace") if found else ""

    def note_unreadable(self, worker: str, reason: str) -> None:
        """Note that a worker cannot read the definition. Each note is kept for `UNREADABLE_SECONDS`, and until the next definition is
        published or the worker removes its note.

        Args:
            worker: the worker's name.
            reason: why it cannot, in words.
        """
        self._unreadable.write(worker, reason, UNREADABLE_SECONDS)

    def remove_unreadable(self, worker: str) -> None:
        """Remove the note of a worker that can read the definition. There may be none.

        Args:
            worker: the worker's name.
        """
        self._unreadable.remove(worker)

    def unreadable(self) -> dict[str, str]:
        """The workers that cannot read the definition, with the reasons."""
        return self._unreadable.read()
