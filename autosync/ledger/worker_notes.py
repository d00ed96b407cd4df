"""Notes of workers for operators, such as that a worker cannot read the definition. Each note expires."""

from __future__ import annotations

from typing import cast

from .store import LedgerPart, MirrorStore


class WorkerNotes(LedgerPart):
    """One note for each worker. Every method raises `BrokerError`: see `LedgerPart`.

    Args:
        store: the mirror's data in Redis.
        name: the name in Redis of the hash with the notes.
    """

    def __init__(self, store: MirrorStore, name: str) -> None:
        super().__init__(store)
        self._name = name

    def write(self, worker: str, text: str, seconds: float) -> None:
        """Write or renew the note of a worker. Notes that have expired are removed.

        Args:
            worker: the worker's name.
            text: the note, for people.
            seconds: how long the note is kept unless it is renewed.
        """
        with self._store.errors():
            notes, now = self._notes()
            expired = [other for other, (expiry, _) in notes.items() if expiry <= now]
            pipe = self._client.pipeline()
            if expired:
                pipe.hdel(self._name, *expired)
            pipe.hset(self._name, worker, f"{now + seconds:.3f} {text}")
            pipe.pexpire(self._name, int(seconds * 1000))
            pipe.execute()

    def remove(self, worker: str) -> None:
        """Remove the note of a worker. There may be none."""
        with self._store.errors():
            self._client.hdel(self._name, worker)

    def read(self) -> dict[str, str]:
        """The notes, by the names of the workers."""
        with self._store.errors():
            notes, now = self._notes()
        return {worker.decode("utf-8", "replace"): text for worker, (expiry, text) in notes.items() if expiry > now}

    def _notes(self) -> tuple[dict[bytes, tuple[float, str]], float]:
        """The notes of all workers, each with its expiry, and the time of the broker's clock; times in seconds since the epoch."""
        pipe = self._client.pipeline()
        pipe.hgetall(self._name)
        pipe.time()
        found, (seconds, microseconds) = cast(tuple[dict[bytes, bytes], tuple[int, int]], tuple(pipe.execute()))
        return {worker: _note_of(text.decode("utf-8", "replace")) for worker, text in found.items()}, seconds + microseconds / 1e6


def _note_of(text: str) -> tuple[float, str]:
    """The expiry and the text of a note. A value that is no note counts as expired."""
    expiry, _, note = text.partition(" ")
    try:
        return float(expiry), note
    except ValueError:
        return 0.0, ""
