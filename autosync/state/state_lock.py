"""Locks of a state directory, by which `autosync-ctl forget` detects that a process uses it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import StartError
from .directory_contents import remove_own

#: The file that `autosync` locks, for itself and for its broker.
LOCK = "lock"
#: The file that `autosync-watch` locks. Several may share a directory, and the broker decides which of them watches.
_WATCH_LOCK = "watch.lock"


@contextmanager
def watch_lock(directory: Path) -> Iterator[None]:
    """Let others see for the length of a with-block that a watcher uses a state directory. Without room for the file, they do not."""
    with ExitStack() as ends:
        with suppress(OSError):
            file = ends.enter_context(open(directory / _WATCH_LOCK, "a", encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_in_use(directory: Path) -> bool:
    """Whether `autosync` or `autosync-watch` runs with this state directory, or the broker of an `autosync` that was killed."""
    with ExitStack() as ends:
        return not _has_locked(directory, ends)


def remove(directory: Path) -> None:
    """Remove a state directory. What autosync has not made is left there, and the directory then is, too.

    Raises:
        StartError: a process uses it.
        OSError: something cannot be removed.
    """
    with ExitStack() as ends:
        if not _has_locked(directory, ends):
            raise StartError(f"the state directory {directory} is used by a running autosync", "stop that first")
        remove_own(directory)


def _has_locked(directory: Path, ends: ExitStack) -> bool:
    """Lock a state directory against every other process. Returns False if one uses it.

    Args:
        directory: the state directory.
        ends: receives what ends the locks.
    """
    for name in (LOCK, _WATCH_LOCK):
        try:
            file = ends.enter_context(open(directory / name, "rb"))  # noqa: SIM115 - closed by `ends`
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
