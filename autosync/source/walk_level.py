"""The directories that a walk is in, and the steps of its work in each."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from .entry import Entry, Run

#: How many system calls opening a directory takes.
CALLS_TO_OPEN = 4


@dataclass(slots=True)
class Level:
    """A directory that the walk is in, or will enter.

    Attributes:
        descriptor: an open descriptor of the directory.
        path: the path by which the walk reached it, with a slash at its end.
        real: its path without links, relative to the root.
        path_changed: when the way to it changed last (a directory was renamed, a link was created), in seconds since the epoch; 0.0 if
            that is unknown.
        parent: the directory from which the walk reached it.
        device: `st_dev`; None: unknown.
        behind_link: whether its path leads through a link.
        is_large: whether not all of its names have been read.
        is_state: whether it is marked as the state directory of an autosync, see `model.state_directory_mark`.
        steps: the work in it, in order: a directory to enter (with a slash at its end), or files to examine.
        put_back: a step that could not begin yet.
        ahead: steps that were begun ahead of the walk, with their results.
        errors: that occurred while its names were read.
    """

    descriptor: int
    path: str
    real: str
    path_changed: float
    parent: Level | None = None
    device: int | None = None
    behind_link: bool = False
    is_large: bool = False
    is_state: bool = False
    steps: Iterator[Step] = field(default_factory=lambda: iter(()))
    put_back: Step | None = None
    ahead: deque[tuple[Step, Future[StepResult]]] = field(default_factory=deque)
    errors: list[tuple[OSError, str]] = field(default_factory=list)

    def next_step(self) -> Step | None:
        """Remove and return the next step; None if there is none."""
        step, self.put_back = self.put_back, None
        return next(self.steps, None) if step is None else step

    def close(self) -> None:
        """Close the directory, and those below it that were opened ahead of the walk."""
        os.close(self.descriptor)
        self.steps = iter(())  # ends the reading of further names
        for _, future in self.ahead:
            if future.done() and not future.cancelled() and future.exception() is None:
                below = future.result().level
                if below is not None:
                    below.close()

    def is_inside(self, real: str) -> bool:
        """Whether this directory, or one above it on the way of the walk, has this real path."""
        level: Level | None = self
        while level is not None:
            if level.parent is not None and level.real == real:
                return True
            level = level.parent
        return False


#: The name of a directory to enter, with a slash at its end, or names of files to examine.
Step = str | list[str]


class StepResult(NamedTuple):
    """The result of a step.

    Attributes:
        found: files, in order.
        level: the directory that is walked next; None if the step opened none.
        errors: the errors, with the paths that they are about.
        calls: roughly how many system calls the step took.
    """

    found: list[Run | Entry]
    level: Level | None
    errors: list[tuple[OSError, str]]
    calls: int = CALLS_TO_OPEN
