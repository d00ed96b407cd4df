"""The mounts of this process's mount namespace (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
import select
from contextlib import suppress
from typing import NamedTuple

from ..model.paths import is_at_or_below, itself_and_parents, slashed

_MOUNTINFO = "/proc/self/mountinfo"
_BLOCK = 1 << 20
#: Beginnings of the names of file systems whose data another process or host has.
_REMOTE = ("autofs", "nfs", "cifs", "smb", "fuse", "9p", "ceph", "afs", "virtiofs", "lustre", "gfs", "ocfs")
#: Spaces and other separators in paths are written as three octal digits.
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """The topmost mount at one path.

    Attributes:
        number: the mount's id. It is unique among the mounts that exist, and given again to later ones.
        kind: type of the file system.
        what: the device, and the directory of its file system that is mounted.
    """

    number: int
    kind: str
    what: str = ""

    @property
    def is_trigger(self) -> bool:
        """Whether the directory only waits for its first use to be mounted (autofs(5))."""
        return self.kind == "autofs"

    @property
    def may_block(self) -> bool:
        """Whether each access may take long, since another process or host responds."""
        return self.kind.startswith(_REMOTE)


class MountTable:
    """Reads the mounts, and detects that they have changed. Without /proc there are none."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._is_first = True
        with suppress(OSError):
            self._descriptor = os.open(_MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        if self._descriptor >= 0:
            self._poll.register(self._descriptor, select.POLLPRI | select.POLLERR)

    def has_changed(self) -> bool:
        """Whether a mount was added or removed since the last call; True for the first call."""
        is_first, self._is_first = self._is_first, False
        return self._descriptor >= 0 and (bool(self._poll.poll(0)) or is_first)

    def read(self) -> dict[str, Mount]:
        """The mounts, by their paths without links."""
        if self._descriptor < 0:
            return {}
        blocks: list[bytes] = []
        with suppress(OSError):
            while block := os.pread(self._descriptor, _BLOCK, sum(map(len, blocks))):
                blocks.append(block)
        return mounts_of(b"".join(blocks))

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def mounts_of(text: bytes) -> dict[str, Mount]:
    """The mounts in the text of mountinfo. A later line hides an earlier one of the same path."""
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        if len(fields) < 6 or not after:
            continue
        path = _unescaped(fields[4])
        found[path] = Mount(int(fields[0]), os.fsdecode(after.split(b" ")[0]), os.fsdecode(b" ".join(fields[2:4])))
    return found


def real_paths(path: str) -> tuple[str, ...]:
    """The paths without links by which a directory can be reached: a bind mount shows it, or one above it, at another path too.

    Args:
        path: the directory's absolute path; the directory may be missing.

    Returns:
        The path without links, and those by other mounts of the same file system.
    """
    real = os.path.realpath(path)
    table = MountTable()
    try:
        mounts = table.read()
    finally:
        table.close()
    existing = next((one for one in itself_and_parents(real) if os.path.isdir(one)), "/")
    top = next((one for one in itself_and_parents(existing) if one in mounts), "")
    if not top:
        return (real,)
    device, _, root = mounts[top].what.partition(" ")
    inside = _joined(_unescaped(os.fsencode(root)), existing[len(slashed(top)) :])
    others = []
    for point, mount in mounts.items():
        other_device, _, other_root = mount.what.partition(" ")
        shown = _unescaped(os.fsencode(other_root))
        if other_device != device or not is_at_or_below(inside, shown):
            continue
        candidate = _joined(point, inside[len(slashed(shown)) :])
        if candidate != existing and _is_same(candidate, existing):  # another mount may hide it
            others.append(_joined(candidate, real[len(slashed(existing)) :]))
    return (real, *sorted(others))


def _joined(directory: str, rest: str) -> str:
    return slashed(directory) + rest if rest else directory


def _is_same(one: str, other: str) -> bool:
    with suppress(OSError):
        return os.path.samefile(one, other)
    return False


def _unescaped(text: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), text))
