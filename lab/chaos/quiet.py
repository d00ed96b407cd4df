"""World, autosync and observer together, and the quiet points at which everything must be right."""

from __future__ import annotations

import time
from collections.abc import Callable

import botocore.exceptions

from ..servers import wait_until
from .box import Box
from .file_systems import Share, SourceDisk
from .observer import Observer
from .releases import Releases
from .running import Autosync, Broken
from .world import World

#: How long the bucket may take to be right after the last operation, in seconds: the longest delay between tries included.
_PATIENCE = 90.0


class Chaos:
    """A world, the autosync that mirrors it, and the observer of the mirror.

    Args:
        world: what is mirrored.
        autosync: the command.
        observer: of the bucket.
        disk: the source's, for accidents with mounts.
        box: an upload box, for the same.
        releases: the trees between which the source can be switched, if it is a link.
    """

    def __init__(
        self,
        world: World,
        autosync: Autosync,
        observer: Observer,
        disk: SourceDisk | None = None,
        box: Box | None = None,
        releases: Releases | None = None,
    ) -> None:
        self.world = world
        self.autosync = autosync
        self.observer = observer
        self.disk = disk
        self.box = box
        self.releases = releases
        #: The file systems that are mounted below the source, with the parts of the world that they are.
        self.shares: list[tuple[Share, World]] = []
        #: How many objects without a file the quiet points have found, and how often they were accepted.
        self.withheld = self.accepted = 0
        #: Whether a mount point is away until autosync reports it: a shorter absence may be missed.
        self.waits_for_doubt = False
        #: Exit codes of an autosync that ends in order: 3 while something waits for an operator.
        self.exit_codes: tuple[int, ...] = (0, 3) if autosync.may_withhold else (0,)

    def quiet(self, *, accept: bool = False) -> float:
        """Wait until target and source are equal and no change is in work; check all versions. Returns the duration in seconds.

        Where deletions may be withheld, objects without a file may remain, as many as autosync lists.

        Args:
            accept: whether they are accepted, so that nothing remains.

        Raises:
            Broken: they do not become equal, or a promise was broken meanwhile.
        """
        began = time.monotonic()
        self.world.rest()
        self._wait(lambda: not self.observer.differences(with_extra=not self.autosync.may_withhold), "the target equals the source")
        if self.autosync.may_withhold:
            self._settle_withheld(accept=accept)
        elif self.disk is not None:
            self._wait(lambda: self.autosync.pending() == [], "nothing waits for acceptance", pause=0.5)
        self.observer.check_versions()
        self.check()
        self.world.book.quiet()
        seconds = time.monotonic() - began
        self.world.note(f"quiet after {seconds:.1f} s: {len(self.world.book.now)} files")
        return seconds

    def _settle_withheld(self, *, accept: bool) -> None:
        """Check that what remains is listed as withheld; accept it."""
        if self.observer.extra():
            self._wait(lambda: not self.observer.extra() or bool(self.autosync.pending()), "what remains is listed", pause=0.5)
        if self.observer.extra():
            self.scan()
            self._wait(self._is_all_listed, "all that remains is listed", pause=0.5)
            self.withheld += len(self.observer.extra())
        if accept and (self.observer.extra() or self.autosync.pending()):
            listed = self.autosync.control("accept", "--yes").stdout
            self.world.note(f"accepted: {listed}")
            self._wait(
                lambda: not self.observer.differences() and self.autosync.pending() == [], "what was accepted is deleted", pause=0.5
            )  # fmt: skip
            self.accepted += 1

    def _is_all_listed(self) -> bool:
        """Whether autosync lists as many keys as remain. Of a root or a mount point it lists all that the target had below it."""
        pending = self.autosync.pending() or []
        listed = sum(item["count"] for item in pending)
        most = len(self.observer.extra(with_allowed=True))
        return len(self.observer.extra()) <= listed and (listed <= most or any(item["path"] for item in pending))

    def _wait(self, condition: Callable[[], bool], what: str, pause: float = 0.05) -> None:
        """Wait until autosync is idle, and a condition is true.

        Raises:
            Broken: it does not become true.
        """

        def is_reached() -> bool:
            self.check()
            try:
                return self.autosync.is_idle() and condition()
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                return False

        try:
            wait_until(is_reached, _PATIENCE, what, pause)
        except Broken:
            raise
        except AssertionError as error:
            left = self.observer.differences()
            keys = f"{len(left)} keys differ: {left[:10]}" if left else "the keys are equal"
            idle = "" if self.autosync.is_idle() else "; the ledger is not empty"
            raise self.broken(f"{error}: {keys}{idle}; waiting for acceptance: {self.autosync.pending()}") from error

    def wait_for_doubt(self) -> None:
        """Wait until autosync reports that a mount point is in doubt.

        Raises:
            AssertionError: it does not.
        """

        def is_reported() -> bool:
            self.check()
            return any(item["path"] for item in self.autosync.pending() or ())

        wait_until(is_reported, _PATIENCE, "a mount point is in doubt", pause=0.3)

    def scan(self) -> None:
        """Request a scan of everything, and wait for the end of one."""
        before = self.autosync.scans_ended()

        def is_requested() -> bool:
            self.check()
            return self.autosync.control("rescan").returncode == 0 or self.autosync.scans_ended() > before

        def has_ended() -> bool:
            self.check()
            return self.autosync.scans_ended() > before

        wait_until(is_requested, 60, "a scan is requested: autosync may only be being started", pause=0.2)
        wait_until(has_ended, 60, "a scan has ended")

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
