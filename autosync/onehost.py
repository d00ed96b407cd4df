"""Everything on one host: the embedded broker and the worker processes of one mirror, kept alive as children."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from .errors import StartError
from .mirror import Mirror
from .processes import Child
from .server import EmbeddedServer

log = logging.getLogger(__name__)

#: How long workers may take to finish or put back what they have in hand, in seconds.
_DRAIN = 30.0


def state_directory(base: Path, mirror: str) -> Path:
    """The directory in which a mirror keeps its state; made if it is missing.

    Raises:
        StartError: it cannot be made or written.
    """
    directory = base / mirror
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(directory / "lock", "a", encoding="utf-8"):
            pass
    except OSError as error:
        raise StartError(f"state directory {directory} cannot be written: {error.strerror}", "give another with --state-dir") from error
    return directory


def lock(directory: Path, mirror: str) -> IO[str]:
    """Take the state directory for this process; the lock goes with it.

    Raises:
        StartError: another autosync has it, or there is no room.
    """
    held = open(directory / "lock", "a+", encoding="utf-8")  # noqa: SIM115 - held until the end
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.seek(0)
        owner = held.read().strip() or "unknown"
        held.close()
        raise StartError(
            f"mirror {mirror} is already kept by another autosync (process {owner})", "stop that one, or give this one another --name"
        ) from error
    try:
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
    except OSError as error:
        raise StartError(f"{directory}/lock: {error.strerror}", "make room, or give another --state-dir") from error
    return held


class OneHost:
    """The broker (unless another is given) and the workers.

    Args:
        mirror: what they are for.
        directory: its state directory.
        broker: URL of a broker to use instead of an embedded one.
        workers: how many worker processes.
        secrets: values of secret options; they reach the workers through their environment.
        log_format: "text" or "json".
        verbosity: see `autosync.logs.configure`.
    """

    def __init__(
        self,
        mirror: Mirror,
        directory: Path,
        *,
        broker: str | None,
        workers: int,
        secrets: Mapping[str, str],
        log_format: str,
        verbosity: int,
    ) -> None:
        self._server = None if broker else EmbeddedServer(directory)
        self.broker = broker or (self._server.url if self._server else "")
        environ = self._environ(mirror, secrets, log_format, verbosity)
        self._workers = [
            Child(f"worker {number}", self._command(mirror.name, number), environ=environ, directory=str(directory))
            for number in range(1, workers + 1)
        ]

    @property
    def is_alone(self) -> bool:
        """Whether nobody else can reach the broker: it is the embedded one."""
        return self._server is not None

    def start(self) -> None:
        """Start the broker, wait until it answers, and start the workers.

        Raises:
            StartError: the broker does not start.
        """
        if self._server:
            self._server.start()
        for worker in self._workers:
            worker.start()

    def tend(self) -> list[int]:
        """Start again what has died. To be called from the main thread, every second or so.

        Returns:
            The process ids of workers that have died, whose claims nobody will keep any more.

        Raises:
            StartError: something dies each time it is started.
        """
        if self._server:
            self._server.tend()
        return [dead for dead in (worker.tend() for worker in self._workers) if dead is not None]

    def stop(self) -> None:
        """Let the workers finish or put back what they have in hand, then stop the broker."""
        for worker in self._workers:
            worker.ask_to_end()
        for worker in self._workers:
            worker.stop(_DRAIN)
        if self._server:
            self._server.stop()

    def _command(self, name: str, number: int) -> list[str]:
        # Celery warns of root at each start; who runs autosync as root has decided so.
        celery = [sys.executable, "-W", "ignore:You're running the worker", "-m", "celery", "--quiet", "-A", "autosync", "worker"]
        options = ["--hostname", f"{name}-{number}@%h", "--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
        return celery + options + (["--without-heartbeat"] if self.is_alone else [])

    def _environ(self, mirror: Mirror, secrets: Mapping[str, str], log_format: str, verbosity: int) -> dict[str, str]:
        """The workers' environment: this one's, with what celeryconfig.py says on an upload box."""
        ours = {
            "CELERY_CONFIG_MODULE": "autosync.settings",
            "CELERY_BROKER_URL": self.broker,
            "AUTOSYNC_SOURCES": json.dumps([source.root for source in mirror.sources]),
            "AUTOSYNC_QUEUES": mirror.queue,
            "AUTOSYNC_SECRETS": json.dumps(dict(secrets)),
            "AUTOSYNC_LOG_FORMAT": log_format,
            "AUTOSYNC_VERBOSITY": str(verbosity),
            "AUTOSYNC_EVENTS": "0" if self.is_alone else "1",
            # Where a user's own actor was found, it must be found again; an empty entry would mean the child's directory.
            "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if os.path.isdir(path)),
        }
        return {**os.environ, **ours}
