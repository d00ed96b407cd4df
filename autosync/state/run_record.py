"""Records in a mirror's state file, and in its ledger, with which definition it ran and when: for other mirrors, which may overlap with
it."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BrokerError
from ..model.mirror import Mirror
from .state_file import StateFile, state_files

if TYPE_CHECKING:
    from ..ledger.definition import DefinitionStore

#: How often a watcher records that it runs, in seconds.
_INTERVAL = 3600.0


@dataclass(frozen=True)
class StoredMirror:
    """A mirror as its state file describes it.

    Attributes:
        name: the mirror's name.
        directory: the directory with its state file.
        definition: the definition as `Mirror.dumps` writes it; "" if there is none.
        ran_at: when the mirror was last known to run, in seconds since the epoch.
        broker: the address of its broker; "" for an embedded one, or if it is unknown.
    """

    name: str
    directory: Path
    definition: str
    ran_at: float
    broker: str


class RunRecord:
    """Writes the record of one mirror.

    Args:
        file: the state file.
        definition: the published definition.
        broker: the address of the broker, without a password; "": it is embedded.
    """

    def __init__(self, file: StateFile, definition: DefinitionStore, broker: str) -> None:
        self._file = file
        self._definition = definition
        self._broker = broker
        self._next = math.inf

    def write(self, mirror: Mirror) -> None:
        """Record a definition that was published now."""
        self._file.update(definition=mirror.dumps(), ran_at=time.time(), broker=self._broker or None)
        self._next = time.monotonic() + _INTERVAL

    def renew(self) -> None:
        """Record that the mirror still runs, if the record is an hour old.

        Raises:
            BrokerError: the broker does not respond. The next call tries again.
        """
        if time.monotonic() >= self._next:
            self._renew()

    def close(self) -> None:
        """Record that the mirror has run until now, if it was published."""
        if self._next != math.inf:
            with suppress(BrokerError):
                self._renew()

    def _renew(self) -> None:
        now = time.time()
        self._file.update(ran_at=now)
        self._definition.set_ran_at(now)
        self._next = time.monotonic() + _INTERVAL


def stored_mirrors(base: Path) -> list[StoredMirror]:
    """The mirrors of all state directories in a directory, sorted by directory and name; none if it cannot be read."""
    return [_stored(file) for directory in state_directories(base) for file in state_files(directory)]


def state_directories(base: Path) -> list[Path]:
    """The state directories in a directory, sorted; none if it cannot be read."""
    try:
        return sorted(path for path in base.iterdir() if path.is_dir())
    except OSError:
        return []


def _stored(file: StateFile) -> StoredMirror:
    fields = file.read()
    definition, ran_at, broker = fields.get("definition"), fields.get("ran_at"), fields.get("broker")
    if not isinstance(definition, str):  # an older version stored only the definition with which the mirror was accepted
        definition = _text(fields.get("acceptance"), "definition")
    at = ran_at if isinstance(ran_at, float) and math.isfinite(ran_at) else _changed_at(file.path)
    return StoredMirror(file.mirror, file.path.parent, definition, at, broker if isinstance(broker, str) else "")


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
