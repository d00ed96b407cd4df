"""Which of the files in scope are sent, by what they are and not by their names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileRules:
    """What the walk, the check after an event, and the worker that opens a file must agree on.

    Attributes:
        follow_links: whether symbolic links are followed to files and directories beneath the same source.
    """

    follow_links: bool = True
