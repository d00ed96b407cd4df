"""What can go wrong, named once, and the exit codes that tell it to a shell.

Every error that reaches a user is an `AutosyncError`: it says what happened (with the path or key) and, where there is
one, what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `autosync` and `autosync-watch`; docs/settings.md lists them for operators."""

    #: The work is done, or the program was asked to stop (SIGTERM) and stopped in order.
    DONE = 0
    #: It could not start, or could not go on.
    FAILED = 1
    #: The command line, an environment variable or the configuration file is wrong.
    USAGE = 2
    #: It ended in order, but some keys are in the failed list, a part of the source could not be read, or deletions are withheld: more than
    #: --max-delete, or of a mirror that is not accepted.
    INCOMPLETE = 3
    #: Interrupted: SIGINT, or SIGTERM before `--once` was through.
    INTERRUPTED = 130


class AutosyncError(Exception):
    """Root of all errors of this package.

    Args:
        what: what happened, with the path, key or address it happened to.
        cure: what the reader can do about it; shown behind the first sentence.
    """

    def __init__(self, what: str, cure: str = "") -> None:
        super().__init__(what, cure)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.what}; {self.cure}" if self.cure else self.what


class ConfigurationError(AutosyncError):
    """An option, variable or file that the user wrote cannot be used (exit code 2)."""


class StartError(AutosyncError):
    """Something that must stand before the first transfer does not (exit code 1)."""


class BrokerError(AutosyncError):
    """Redis or Valkey did not answer, or answered with an error. Always worth another try."""


class BrokerRefused(BrokerError):
    """The broker will not have us as things are set up: a wrong password, a missing permission, a certificate that does not fit.

    What runs goes on trying, since somebody may mend it; what starts says so and ends.
    """


class TargetError(AutosyncError):
    """The target did not do what it was asked. Tried again later, with growing delays."""


class UnknownDefinition(AutosyncError):
    """The definition of a mirror has what only a later version of autosync understands."""


class PermanentError(TargetError):
    """The target will never do this; trying again is no use. The key goes to the failed list at once."""


class TargetRefused(PermanentError):
    """The target as a whole cannot be used: no such container, wrong credentials, no permission."""


class SlowDown(TargetError):
    """The target asks for fewer requests (HTTP 429, S3 503 SlowDown)."""


class SourceRefused(PermanentError):
    """A worker was asked for a source that its own configuration does not allow."""


class SourceUnsure(AutosyncError):
    """The source cannot be believed at this moment: another directory in its place, a stale or failing share."""


class FileChanged(AutosyncError):
    """The file changed while it was being read; what was read is not a version that ever stood on the disk.

    Args:
        pieces: offset and length of what has to be read and sent again, if that helps; nothing else changed since it was read.
    """

    def __init__(self, what: str, *, pieces: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(what)
        self.pieces = pieces


#: Its name until 0.1; actors of users may catch it.
Torn = FileChanged


class LeaseLost(AutosyncError):
    """The worker could not renew its claim on a key in time, so another may hold it by now."""


class Draining(AutosyncError):
    """The worker is being stopped; the key goes back to the queue untouched."""


class OutOfOrder(AutosyncError):
    """A listing that was taken to be sorted gave a key that is not behind the one before it."""
