"""World, autosync and observer together, and the quiet points at which everything must be right."""

from __future__ import annotations

import time

import botocore.exceptions

from ..servers import wait_until
from .observer import Observer
from .running import Autosync, Broken
from .world import World

#: How long the bucket may take to be right after the last operation, in seconds: the longest delay between tries included.
_PATIENCE = 90.0


class Chaos:
    """A world, the autosync that mirrors it, and the observer of the mirror."""

    def __init__(self, world: World, autosync: Autosync, observer: Observer) -> None:
        self.world = world
        self.autosync = autosync
        self.observer = observer

    def quiet(self) -> float:
        """Wait until target and source are equal and no change is in work; check all versions. Returns the duration in seconds.

        Raises:
            Broken: they do not become equal, or a promise was broken meanwhile.
        """
        began = time.monotonic()
        self.world.rest()

        def is_equal() -> bool:
            self.check()
            try:
                return self.autosync.is_idle() and not self.observer.differences()
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                return False

        try:
            wait_until(is_equal, _PATIENCE, "the target equals the source", pause=0.05)
        except Broken:
            raise
        except AssertionError as error:
            left = self.observer.differences()
            if not left:
                raise self.broken(f"{error}: it does, but the ledger is not empty") from error
            raise self.broken(f"{error}: {len(left)} keys differ: {left[:10]}") from error
        self.observer.check_versions()
        self.check()
        self.world.book.quiet()
        seconds = time.monotonic() - began
        self.world.note(f"quiet after {seconds:.1f} s: {len(self.world.book.now)} files")
        return seconds

    def check(self) -> None:
        """Check that autosync runs, and that no promise was broken until now.

        Raises:
            Broken: autosync has ended, or a promise was broken.
        """
        if not self.autosync.runs():
            raise self.broken(self.autosync.end_status())
        if self.observer.violations:
            raise self.broken("; ".join(self.observer.violations[:5]))

    def broken(self, what: str) -> Broken:
        """The error for a broken promise, with the operations before it."""
        return Broken("\n  ".join([what, "The last operations:", *self.world.done[-60:], *self.autosync.log_end()]))
