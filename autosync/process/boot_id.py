"""Identifies the host."""

from __future__ import annotations

import socket
from pathlib import Path


def boot_id() -> str:
    """The kernel's boot id, which changes with each start of the host. Containers on one host share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
