"""Whether another process still runs, by its id and its start time."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple


class ProcessStat(NamedTuple):
    """Fields of proc_pid_stat(5).

    Attributes:
        state: one letter; "Z" is a zombie.
        start_time: when the process was started, in clock ticks since the host was started.
    """

    state: str
    start_time: int


def stat_of(pid: int) -> ProcessStat | None:
    """The state of a process in this process's PID namespace; None if there is none, or if /proc does not show it."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # /proc is that of another PID namespace
            return None
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name of the program may hold anything
        return ProcessStat(fields[0].decode(), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None


def namespaces() -> str:
    """Identifies the namespaces in which process ids and start times of this process are valid; "" if that is unknown."""
    found = []
    with suppress(OSError):
        found.append(os.readlink("/proc/self/ns/pid"))
        found.append(os.readlink("/proc/self/ns/time"))  # since Linux 5.6
    return " ".join(found)


def is_running(pid: int, start_time: int | None = None) -> bool | None:
    """Whether a process runs; a zombie does not.

    Args:
        pid: process id, in this process's PID namespace.
        start_time: see `ProcessStat`. A process that was started at another time has got the same id since. None: unknown.

    Returns:
        None if it cannot be found out: /proc does not show the process, as with its option `hidepid`.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    found = stat_of(pid)
    if found is None:
        return None
    return found.state not in ("Z", "X", "x") and start_time in (None, found.start_time)
