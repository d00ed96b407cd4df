"""Which host this is."""

from __future__ import annotations

import socket
from pathlib import Path


def boot_id() -> str:
    """Names this host until it is started again; containers of one host share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
