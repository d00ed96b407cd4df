"""Trees for walks, and what a walk finds."""

from __future__ import annotations

import os
from pathlib import Path

from autosync.source.walk import Walk


def plant(top: Path, files: list[list[bytes]]) -> list[str]:
    """Make files below a directory, as far as their names do not get in each other's way. Returns their paths."""
    made = set()
    for names in files:
        path = b"/".join([os.fsencode(top), *names])
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(names[-1])
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            continue
        made.add(os.fsdecode(path))
    return list(made)


def paths(walk: Walk) -> list[str]:
    return [found.path for found in walk]
