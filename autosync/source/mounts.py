"""The mounts of this process's mount namespace (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
import select
from contextlib import suppress
from typing import NamedTuple

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
        path = os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), fields[4]))
        found[path] = Mount(int(fields[0]), os.fsdecode(after.split(b" ")[0]), os.fsdecode(b" ".join(fields[2:4])))
    return found
