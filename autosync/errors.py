"""The errors of autosync, and the exit codes.

Every error that a user sees is an `AutosyncError`. Its message says what happened, with the path or key, and what the user can do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `autosync` and `autosync-watch`; docs/settings.md lists them for operators."""

    #: The work is done, or the program stopped in order after SIGTERM.
    DONE = 0
    #: The program could not start, or could not go on.
    FAILED = 1
    #: The command line, an environment variable or the configuration file is wrong.
    USAGE = 2
    #: The program ended in order, but target and source may differ. docs/settings.md lists the reasons.
    INCOMPLETE = 3
    #: Interrupted: SIGINT, or SIGTERM before `--once` was through.
    INTERRUPTED = 130


class AutosyncError(Exception):
    """Root of all errors of this package.

    Args:
        what: what happened, with the path, key or address.
        cure: what the user can do about it; the message has it after `what`.
    """

    def __init__(self, what: str, cure: str = "") -> None:
        super().__init__(what, cure)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.what}; {self.cure}" if self.cure else self.what


class ConfigurationError(AutosyncError):
    """An option, a variable or a file of the user's cannot be used (exit code 2)."""


class StartError(AutosyncError):
    """A condition for the first transfer is not met (exit code 1)."""


class BrokerError(AutosyncError):
    """Redis or Valkey did not respond, or responded with an error. It may be tried again."""


class BrokerRefused(BrokerError):
    """The broker refuses this client: a wrong password, a missing permission, an invalid certificate.

    A program that starts ends with this error. A running program goes on trying, since an operator may correct it.
    """


class TargetError(AutosyncError):
    """The target did not carry out a request. It is tried again later, with growing delays."""


class UnknownDefinition(AutosyncError):
    """The definition of a mirror needs a later version of autosync."""


class UnknownMirror(AutosyncError):
    """The broker has no definition of a mirror. It may have lost its memory, and get the definition again."""


class PermanentError(TargetError):
    """The target will never carry out this request. The key goes to the failed list at once."""


class TargetRefused(PermanentError):
    """The target as a whole cannot be used: no such container, wrong credentials, no permission."""


class SlowDown(TargetError):
    """The target demands fewer requests (HTTP 429, S3 503 SlowDown)."""


class SourceRefused(PermanentError):
    """The configuration of a worker does not allow the source of a mirror."""


class SourceDenied(PermanentError):
    """A file of the source may not be read. The key is tried again when permissions change, and after delays that grow."""


class SourceUnsure(AutosyncError):
    """The state of the source cannot be trusted now: another directory is in its place, or a share is stale or fails."""


class SourceReplaced(SourceUnsure):
    """A root or a mount point is not the directory that the watcher has published: the watcher has to decide what that means."""


class FileChanged(AutosyncError):
    """The file changed while it was read, so the content read is no version of the file.

    Args:
        what: the message.
        parts: offset and length of the parts that must be read and sent again. Empty if the whole file must be.
    """

    def __init__(self, what: str, *, parts: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(what)
        self.parts = parts


#: The name of `FileChanged` until 0.1. Actors of users may catch it.
Torn = FileChanged


class LeaseLost(AutosyncError):
    """The worker could not renew its claim of a key in time, so another worker may have claimed the key."""


class Draining(AutosyncError):
    """The worker is stopping. The key goes back to the queue unchanged."""


class OutOfOrder(AutosyncError):
    """A listing that claims to be sorted has a key that does not follow the one before it."""
