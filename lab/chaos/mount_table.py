"""Mounting and unmounting, each checked in the kernel's table of mounts: an accident that did not happen is an error."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ..servers import wait_until


def count_at(at: Path, process: int | str = "self") -> int:
    """The number of mounts at a path (proc_pid_mountinfo(5)).

    Args:
        at: the mount point.
        process: id of a process in the mount namespace.
    """
    lines = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    return [_unescaped(line.split(" ")[4]) for line in lines].count(str(at))


def mount(at: Path, *options: str, process: int | str = "self") -> None:
    """Mount a file system.

    Args:
        at: the mount point.
        options: of mount(8); tmpfs without.
        process: id of a process in the mount namespace.

    Raises:
        AssertionError: it is not in the table of mounts.
    """
    before = count_at(at, process)
    failed = _failure(process, "mount", *(options or ("-t", "tmpfs", "tmpfs")), str(at))
    assert count_at(at, process) > before, f"nothing was mounted at {at}: {failed}"


def unmount(at: Path, *options: str, process: int | str = "self") -> None:
    """Unmount what is mounted last at a path, as soon as nobody reads from it.

    Args:
        at: the mount point.
        options: of umount(8).
        process: id of a process in the mount namespace.

    Raises:
        AssertionError: it is still in the table of mounts.
    """
    before = count_at(at, process)
    assert before, f"nothing is mounted at {at}"
    wait_until(lambda: not _failure(process, "umount", *options, str(at)), 60, f"nobody reads from {at}", pause=0.02)
    assert count_at(at, process) < before, f"{at} is still mounted"


def move(at: Path, to: Path, process: int) -> None:
    """Move a mount, with those below it, in the mount namespace of a process.

    Raises:
        AssertionError: it is not in the table of mounts.
    """
    before = count_at(at, process)
    failed = _failure(process, "mount", "--move", str(at), str(to))
    assert count_at(to, process) and count_at(at, process) < before, f"{at} was not moved: {failed}"


def _failure(process: int | str, *command: str) -> str:
    """Run a command in the mount namespace of a process. Returns its errors; "": it has succeeded."""
    enter = () if process == "self" else ("nsenter", f"--target={process}", "--mount")
    done = subprocess.run([*enter, *command], check=False, capture_output=True, text=True)
    return (done.stderr or f"{command[0]} ended with {done.returncode}") if done.returncode else ""


def _unescaped(path: str) -> str:
    return re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), path.encode()).decode(errors="surrogateescape")
