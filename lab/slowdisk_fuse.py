"""The process behind `slowdisk.slow_disk`: a FUSE file system that shows a directory, and where each call needs so long.

    python -m lab.slowdisk_fuse SHOWN MOUNTPOINT SECONDS

Reading `/.seen` in it gives the calls, and how many of them were in flight at once at most.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .slowdisk import NO_FUSE, SEEN

try:
    import mfusepy
except OSError as error:  # it loads libfuse
    print(error, file=sys.stderr)
    sys.exit(NO_FUSE)

_ATTRIBUTES = ("st_gid", "st_ino", "st_mode", "st_nlink", "st_size", "st_uid")
_TIMES = ("st_atime", "st_ctime", "st_mtime")


class SlowDisk(mfusepy.Operations):  # type: ignore[misc]
    """Shows a directory.

    Args:
        directory: the directory.
        seconds: how long each call takes.
    """

    use_ns = True

    def __init__(self, directory: str, seconds: float) -> None:
        self._directory = directory
        self._seconds = seconds
        self._lock = threading.Lock()
        self._calls = self._now = self._most = 0

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """lstat(2)."""
        if path == SEEN:
            return self._attributes(self._directory) | {"st_mode": 0o100444, "st_size": len(self._seen())}
        with self._call():
            return self._attributes(self._directory + path)

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, Any], int]]:
        """The names, with what they are."""
        with self._call(), os.scandir(self._directory + path) as entries:
            found = [(entry.name, {"st_mode": 0o040000 if entry.is_dir(follow_symlinks=False) else 0o100000}, 0) for entry in entries]
        yield from found

    def open(self, path: str, flags: int) -> int:
        """Only what was seen can be read."""
        if path != SEEN:
            raise mfusepy.FuseOSError(errno.EACCES)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """What was seen."""
        return self._seen()[offset : offset + size]

    def _seen(self) -> bytes:
        return f"{json.dumps({'calls': self._calls, 'at once': self._most}):<200}".encode()

    def _attributes(self, path: str) -> dict[str, Any]:
        try:
            seen = os.lstat(path)
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno) from error
        return {key: getattr(seen, key) for key in _ATTRIBUTES} | {key: getattr(seen, f"{key}_ns") for key in _TIMES}

    @contextmanager
    def _call(self) -> Iterator[None]:
        with self._lock:
            self._calls += 1
            self._now += 1
            self._most = max(self._most, self._now)
        try:
            time.sleep(self._seconds)
            yield
        finally:
            with self._lock:
                self._now -= 1


if __name__ == "__main__":
    mfusepy.FUSE(
        SlowDisk(sys.argv[1], float(sys.argv[3])), sys.argv[2], foreground=True, attr_timeout=0, entry_timeout=0, negative_timeout=0
    )
