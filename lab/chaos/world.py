"""A tree on which operations are done, one after the other, and the list of what was done."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Self

from .operations import OPERATIONS
from .tree import MOST_FILES, MOST_KEYS, Tree

#: How many of the operations are done in a part of the tree.
_IN_A_PART = 0.25


class World(Tree):
    """A tree that operations change; `done` describes the changes for people.

    Args:
        top, name, beside, hard_names, backing: as for `Tree`.
    """

    def __init__(self, top: Path, name: str, beside: Path, *, hard_names: bool = False, backing: Path | None = None) -> None:
        super().__init__(top, name, beside, hard_names=hard_names, backing=backing)
        self.done: list[str] = []
        #: Directories in which operations stay within: what is mounted there now.
        self.parts: list[World] = []
        #: Whether the tree is not at its place, so that nothing can be done to it.
        self.is_away = False

    def part(self, directory: Path) -> Self:
        """As for `Tree`."""
        part = super().part(directory)
        part.parts = []
        return part

    def operate(self, chance: Random) -> None:
        """Do one operation."""
        if self.is_away:
            return
        if self.parts and chance.random() < _IN_A_PART:
            chance.choice(self.parts).operate(chance)
            return
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
