"""A disk that takes its time: a directory, shown again through FUSE, where each call needs so long. It is a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import ROOT
from .servers import Missing, wait_until

#: The file in it that shows what was seen. It is not listed.
SEEN = "/.seen"
#: The exit code of the process where libfuse is missing.
NO_FUSE = 77


@contextmanager
def slow_disk(directory: Path, mountpoint: Path, seconds: float) -> Iterator[Callable[[], dict[str, int]]]:
    """Mount a slow disk for the length of a with-block.

    Yields:
        A function that returns what the disk has seen: `calls`, and `at once`.

    Raises:
        Missing: this machine has no FUSE.
    """
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount") is None:
        raise Missing("FUSE")
    mountpoint.mkdir()
    words = [sys.executable, "-m", "lab.slowdisk_fuse", str(directory), str(mountpoint), str(seconds)]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: mountpoint.is_mount() or process.poll() is not None)
        if process.poll() == NO_FUSE:
            raise Missing("libfuse")
        if process.poll() is not None:
            raise RuntimeError(process.communicate()[1])
        yield lambda: json.loads((mountpoint / SEEN[1:]).read_text())
    finally:
        subprocess.run(["fusermount", "-u", str(mountpoint)], check=False, capture_output=True)
        process.communicate(timeout=10)
