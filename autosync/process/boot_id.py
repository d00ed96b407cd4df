"""Identifies the host, and the view of its file systems."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path


def boot_id() -> str:
    """The kernel's boot id, which changes with each start of the host. Containers on one host share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def file_view() -> str:
    """Identifies the files that this process sees: the boot id of the host, and the mount namespace if it is known, parted by a space.
    Containers on one host have namespaces of their own, with other file systems mounted."""
    return f"{boot_id()} {_mount_namespace()}".rstrip()


def has_file_view(other: str) -> bool:
    """Whether this process sees the files of another one.

    Args:
        other: `file_view` of that one. Where it has no mount namespace, as in definitions of earlier versions, the boot id decides.
    """
    boot, _, namespace = other.partition(" ")
    return boot == boot_id() and namespace in ("", _mount_namespace())


def _mount_namespace() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/mnt")
    return ""
