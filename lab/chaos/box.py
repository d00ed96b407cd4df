"""An upload box: a worker in a mount namespace of its own, beside the workers of the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..servers import wait_until
from .mount_table import count_at

#: How a program is made another host's: that is known by the boot id.
_BECOME = 'mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"'


class Box:
    """A worker that sees the mounts of this host, and others of its own.

    Args:
        directory: for its log.
        broker: URL of the broker.
        source: the path of the source; it is the same on the box.
        environ: of the worker.
    """

    def __init__(self, directory: Path, broker: str, source: Path, environ: Mapping[str, str]) -> None:
        self._directory = directory / "box"
        self._directory.mkdir()
        (self._directory / "boot_id").write_text("another-host\n")
        #: Where its share is while it has lost it.
        self.away = self._directory / "away"
        self.away.mkdir()
        self._environ = {**environ, "CELERY_BROKER_URL": broker, "AUTOSYNC_SOURCES": json.dumps([str(source)])}
        self._source = source
        self._process: subprocess.Popen[bytes] | None = None
        #: How often it was started.
        self.starts = 0

    def start(self) -> None:
        """Start it, or start it again."""
        celery = str(Path(sys.executable).parent / "celery")
        worker = [celery, "-A", "autosync", "worker", "-n", "box@host", "--without-gossip", "--without-mingle", "-l", "INFO"]
        space = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _BECOME, "sh", str(self._directory / "boot_id")]
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*space, *worker], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, cwd=self._directory,
                start_new_session=True,
            )  # fmt: skip
        self.starts += 1
        wait_until(lambda: self._is_worker() or not self.runs(), 30, "the box is in a mount namespace of its own")
        assert self.runs(), f"the box has ended: {self._directory / 'log'}"

    @property
    def process(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def runs(self) -> bool:
        """Whether it was started, and has not ended."""
        return self._process is not None and self._process.poll() is None

    def ensure(self) -> None:
        """Start it again if it has ended, as the service manager of a host does."""
        if not self.runs():
            self.start()

    def sees_source(self) -> bool:
        """Whether a file system is mounted at the path of its source."""
        return bool(count_at(self._source, self.process))

    def results(self) -> int:
        """The number of its log's lines about files that it has sent or deleted."""
        return (self._directory / "log").read_bytes().count(b" succeeded in ") if self.starts else 0

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None and self.runs():
            os.killpg(self.process, signal.SIGKILL)
            self._process.wait()

    def _is_worker(self) -> bool:
        """Whether its process has its own mounts, and has become the worker."""
        process = Path(f"/proc/{self.process}")
        with suppress(OSError):
            has_own = os.readlink(process / "ns/mnt") != os.readlink("/proc/self/ns/mnt")
            return has_own and (process / "comm").read_text().strip() not in ("unshare", "sh")
        return False
