"""The embedded broker and the worker processes of one host, as children that are restarted when they die."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..broker.embedded_valkey import EmbeddedServer
from ..errors import StartError
from ..model.mirror import Mirror
from ..process import search_path
from ..process.child import Child, has_one_thread, set_process_title
from ..process.process_state import is_running

log = logging.getLogger(__name__)

#: How long the children of a killed process may take to end, and the pause between two checks, in seconds.
_ORPHANS, _PAUSE = 20.0, 0.01
#: How long workers may take to finish their transfers or release their keys, in seconds.
_DRAIN = 30.0


def lock(directory: Path, mirror: str) -> IO[str]:
    """Lock the state directory for this process and its broker; the lock ends with the last of them. If the owner of the lock was killed,
    wait for the end of its children.

    Raises:
        StartError: another autosync has the lock, or the disk is full.
    """
    lock_file = open(directory / "lock", "a+", encoding="utf-8")  # noqa: SIM115 - held until the end
    until = time.monotonic() + _ORPHANS
    while True:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            lock_file.seek(0)
            owner = lock_file.read().strip() or "unknown"
            if owner.isdecimal() and not is_running(int(owner)) and time.monotonic() < until:
                time.sleep(_PAUSE)
                continue
            lock_file.close()
            raise StartError(
                f"mirror {mirror} is already watched by another autosync (process {owner})",
                "stop that one, or give this one another --name",
            ) from error
    try:
        lock_file.truncate(0)
        lock_file.write(str(os.getpid()))
        lock_file.flush()
    except OSError as error:
        raise StartError(f"{directory}/lock: {error.strerror}", "make room, or give another --state-dir") from error
    return lock_file


class OneHost:
    """The broker, unless an external one is used, and the workers.

    Args:
        name: part of the workers' names.
        mirrors: that the workers serve.
        directory: the state directory.
        broker: URL of an external broker; None for an embedded one.
        workers: number of worker processes.
        secrets: see `model.secrets.secret_of`; workers get them through their environment.
        log_format: "text" or "json".
        verbosity: see `autosync.logs.configure`.
        lock_file: the lock of the state directory, which workers must not inherit.
        script: the file that defines a user's actor; workers load it from any directory.
    """

    def __init__(
        self,
        name: str,
        mirrors: Sequence[Mirror],
        directory: Path,
        *,
        broker: str | None,
        workers: int,
        secrets: Mapping[str, Any],
        log_format: str,
        verbosity: int,
        lock_file: IO[str],
        script: str | None = None,
    ) -> None:
        self._server = None if broker else EmbeddedServer(directory, lock_file.fileno())
        self.broker = broker or (self._server.url if self._server else "")
        self._lock_file = lock_file
        environ = self._environ(mirrors, secrets, log_format, verbosity)
        # Connections and threads that a user's module has made while it was loaded may not survive a fork.
        self._may_fork = not any("." in mirror.actor for mirror in mirrors)
        self._workers = [
            Child(
                f"worker {_with_host(_node(name, number))}",
                self._command(name, number, script),
                environ=environ,
                directory=str(directory),
                inside=partial(self._run_in_fork, name, number, environ) if self._may_fork else None,
                log_fields={"worker": _with_host(_node(name, number))},
            )
            for number in range(1, workers + 1)
        ]
        #: A pipe whose writing end `begin` closes; until then, forked workers block on the reading end.
        self._start_pipe: tuple[int, int] | None = None
        self._begin_lock = threading.Lock()
        #: Whether no worker has a key in work. The main loop sets it before `stop`.
        self.is_idle = False

    @property
    def has_embedded_broker(self) -> bool:
        """Whether the broker is the embedded one, which no other host can reach."""
        return self._server is not None

    def start(self) -> None:
        """Start the broker, without waiting for it."""
        if self._server:
            self._server.start()

    def load(self) -> None:
        """Load the modules of workers, if they will be forks of this process."""
        if self._may_fork:
            from ..celery import load_worker

            load_worker()

    def start_waiting(self) -> None:
        """Fork the workers, which wait for `begin`, and wait for the broker. Forks share all loaded modules with this process. If this
        process cannot be forked, because of threads or a user's actor, the workers are started after `begin`.

        Raises:
            StartError: the broker does not start.
        """
        self._start_pipe = os.pipe()
        if self._may_fork and has_one_thread():
            for worker in self._workers:
                worker.start()
        os.close(self._start_pipe[0])
        if self._server:
            self._server.wait()

    def begin(self) -> None:
        """Let the workers begin, since there is work. May be called from any thread, and more than once. Workers that are no forks are
        started by the next `restart_if_dead`."""
        with self._begin_lock:
            if self._start_pipe is not None:
                os.close(self._start_pipe[1])
                self._start_pipe = None

    def restart_if_dead(self) -> list[int]:
        """Start workers that are to begin, and restart dead children. Call it from the main thread, about every second.

        Returns:
            The process ids of workers that have died, so that their claims can be released.

        Raises:
            StartError: a child dies each time it is started.
        """
        if self._server:
            self._server.restart_if_dead()
        if self._start_pipe is None:
            for worker in self._workers:
                if worker.pid() is None:
                    worker.start()
        return [dead for dead in (worker.restart_if_dead() for worker in self._workers) if dead is not None]

    def stop(self) -> None:
        """Let the workers finish their transfers or release their keys, then stop the broker."""
        if self._start_pipe is not None or (self.is_idle and self.has_embedded_broker):
            for worker in self._workers:
                worker.end()
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.stop(_DRAIN)
        if self._server:
            self._server.stop()

    def _run_in_fork(self, name: str, number: int, environ: Mapping[str, str]) -> int:
        """Run a worker in a fork of this process; the same as `_command` does."""
        self._lock_file.close()
        set_process_title(["celery", "worker", _node(name, number)])  # also while it waits
        os.environ.update(environ)
        sys.path[:] = environ["PYTHONPATH"].split(os.pathsep)
        if self._start_pipe is not None:
            inlet, outlet = self._start_pipe
            os.close(outlet)
            os.read(inlet, 1)
            os.close(inlet)
        return become_worker(_node(name, number), "" if self.has_embedded_broker else "heartbeat")

    def _command(self, name: str, number: int, script: str | None) -> list[str]:
        # -P: modules are not searched in the current directory, as `celery` would do.
        become = "import sys; from autosync.daemon.one_host import become_worker; sys.exit(become_worker(*sys.argv[1:]))"
        return [sys.executable, "-P", "-c", become, _node(name, number), "" if self.has_embedded_broker else "heartbeat", script or ""]

    def _environ(self, mirrors: Sequence[Mirror], secrets: Mapping[str, Any], log_format: str, verbosity: int) -> dict[str, str]:
        """The workers' environment: that of this process, with the settings that celeryconfig.py has on an upload box."""
        settings = {
            "CELERY_CONFIG_MODULE": "autosync.broker.celery_settings",
            "CELERY_BROKER_URL": self.broker,
            "AUTOSYNC_SOURCES": json.dumps(sorted({source.root for mirror in mirrors for source in mirror.sources})),
            "AUTOSYNC_QUEUES": ",".join(sorted({mirror.queue for mirror in mirrors})),
            "AUTOSYNC_SECRETS": json.dumps(dict(secrets)),
            "AUTOSYNC_LOG_FORMAT": log_format,
            "AUTOSYNC_VERBOSITY": str(verbosity),
            "AUTOSYNC_EVENTS": "0" if self.has_embedded_broker else "1",
            "PYTHONUTF8": "1",  # as this process, see `process.utf8_mode`
            # So that a user's actor is found in the child as well. An empty entry would mean the child's current directory.
            "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if os.path.isdir(path or ".")),
        }
        return {**os.environ, **settings}


def become_worker(node: str, heartbeat: str, script: str = "") -> int:
    """Run a worker until a signal arrives.

    Args:
        node: Celery's name of the worker, without the host.
        heartbeat: anything for heartbeat events; "" for none.
        script: the file that defines a user's actor; "" if there is none.

    Returns:
        The exit status.
    """
    set_process_title(["celery", "worker", node])
    if script:
        search_path.add_script(script)
    from ..celery import work  # the parent of a fork has loaded it already

    return work(_with_host(node), heartbeat=bool(heartbeat))


def _node(name: str, number: int) -> str:
    """Celery's name of a worker, without the host."""
    return f"{name}-{number}"


def _with_host(node: str) -> str:
    """Celery's name of a worker on this host."""
    return f"{node}@{socket.gethostname()}"


@contextmanager
def serving(host: OneHost) -> Iterator[OneHost]:
    """Run the broker and the workers of one host for the length of a with-block.

    Raises:
        StartError: the broker cannot be started.
    """
    try:
        host.start()
        yield host
    finally:
        host.stop()
