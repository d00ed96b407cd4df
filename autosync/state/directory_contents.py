"""What autosync and its embedded broker make in a state directory. Whatever else is there belongs to others, and nobody removes it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

#: Files: locks, mark, state and requests of mirrors, listings that were being sorted, and the files of the embedded Valkey; with the
#: temporary names that they have until they are complete.
_FILES = re.compile(
    r"lock|watch\.lock|\.autosync-(?:state|[0-9a-f]{16})|[A-Za-z0-9][A-Za-z0-9._-]*\.(?:mirror|requests)\.json(?:\..+)?"
    r"|autosync-(?:spool|sort)-.+|broker\.(?:address|log|sock.*)|dump\.rdb|temp-.*\.(?:aof|rdb)"
)
#: Valkey's directory of append-only files, and the files in it.
_APPEND_ONLY = "appendonlydir"
_APPEND_ONLY_FILES = re.compile(r"(?:temp-)?appendonly\.aof.*|temp-.*\.(?:aof|rdb)")


def foreign_paths(directory: Path) -> list[str]:
    """The paths in a state directory, relative to it, that autosync has not made; sorted.

    Raises:
        OSError: the directory cannot be read.
    """
    return sorted(entry.path[len(f"{directory}/") :] for entry, is_ours in _contents(directory) if not is_ours)


def remove_own(directory: Path) -> None:
    """Remove from a state directory what autosync has made, and the directory itself if nothing is left in it.

    Raises:
        OSError: something cannot be removed.
    """
    for entry, is_ours in list(_contents(directory)):
        if is_ours:
            os.unlink(entry.path)
    for place in (directory / _APPEND_ONLY, directory):
        if place.is_dir() and not place.is_symlink() and not os.listdir(place):
            place.rmdir()


def _contents(directory: Path) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """What is in a state directory, without Valkey's directory itself, each with whether autosync has made it."""
    for entry in os.scandir(directory):
        if entry.name != _APPEND_ONLY or not entry.is_dir(follow_symlinks=False):
            yield entry, _is_ours(entry, _FILES)
            continue
        for inner in os.scandir(entry.path):
            yield inner, _is_ours(inner, _APPEND_ONLY_FILES)


def _is_ours(entry: os.DirEntry[str], names: re.Pattern[str]) -> bool:
    mode = entry.stat(follow_symlinks=False).st_mode
    return (stat.S_ISREG(mode) or stat.S_ISSOCK(mode)) and names.fullmatch(entry.name) is not None
