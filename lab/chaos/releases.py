"""A source that is a symbolic link to one of several trees, as releases are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Releases:
    """Trees of which a link names one.

    Args:
        directory: for the link and the trees.

    Attributes:
        top: the link.
    """

    def __init__(self, directory: Path) -> None:
        self.top = directory / "source"
        self._directory = directory / "releases"
        self._count = 1
        self.current.mkdir(parents=True)
        self.top.symlink_to(self.current)

    @property
    def current(self) -> Path:
        """The tree that the link names; the first one, before there is a link."""
        return Path(os.readlink(self.top)) if self.top.is_symlink() else self._directory / "1"

    def copy(self) -> Path:
        """Copy the tree that the link names, with all times, links and pipes. Returns the copy."""
        self._count += 1
        copied = self._directory / str(self._count)
        subprocess.run(["cp", "--archive", str(self.current), str(copied)], check=True, capture_output=True)
        return copied

    def switch(self, to: Path) -> None:
        """Let the link name another tree, at one moment.

        Raises:
            AssertionError: it does not.
        """
        before = self.top.stat().st_ino
        temporary = self.top.with_name("next")
        temporary.symlink_to(to)
        temporary.rename(self.top)
        assert before != self.top.stat().st_ino == to.stat().st_ino, f"the link was not switched to {to}"
