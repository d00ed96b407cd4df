"""A tree on which operations are done, one after the other, and the list of what was done."""

from __future__ import annotations

from pathlib import Path
from random import Random

from .operations import OPERATIONS
from .tree import MOST_FILES, MOST_KEYS, Tree


class World(Tree):
    """A tree that operations change; `done` describes the changes for people.

    Args:
        top, name, beside, hard_names: as for `Tree`.
    """

    def __init__(self, top: Path, name: str, beside: Path, *, hard_names: bool = False) -> None:
        super().__init__(top, name, beside, hard_names=hard_names)
        self.done: list[str] = []

    def operate(self, chance: Random) -> None:
        """Do one operation."""
        if len(self.book.now) > MOST_KEYS and self.book.links:
            name = "remove a link"
        elif len(self.book.files) > MOST_FILES:
            name = "remove a tree"
        else:
            (name,) = chance.choices(list(OPERATIONS), [wanted for wanted, _ in OPERATIONS.values()])
        self.do(name, chance)

    def do(self, name: str, chance: Random) -> None:
        """Do the operation of this name."""
        _, operation = OPERATIONS[name]
        self.note(f"{name}: {operation(self, chance) or 'nothing to do it with'}")

    def note(self, what: str) -> None:
        """Write down something that happened."""
        self.done.append(f"{len(self.done) + 1}: {what}")
