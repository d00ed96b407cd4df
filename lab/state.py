"""A mirror without a state directory, for parts of autosync that are run by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autosync.ledger import Ledger
from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from autosync.state.deletion_state import DeletionState
from autosync.state.state_file import StateFile


class NoStateFile(StateFile):
    """A state file that stores nothing."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"), "m")

    def read(self) -> dict[str, Any]:
        return {}

    def update(self, **fields: Any) -> None:
        pass


def deletion_state(ledger: Ledger, root: str = "/s") -> DeletionState:
    """The limits of the deletions of the mirror `m`, in its ledger alone."""
    return DeletionState(Mirror("m", "file", (Source(root),)), ledger, NoStateFile())
