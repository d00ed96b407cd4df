"""Everything on one host: the embedded broker and the worker processes, kept alive as children."""

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

from ..broker.embedded import EmbeddedServer
from ..errors import ConfigurationError, StartError
from ..model.keys import Source, slashed
from ..model.mirror import Mirror
from ..process import search_path
from ..process.child import Child, has_one_thread, set_process_title

log = logging.getLogger(__name__)

#: How long the children of a process that was killed may take to end, and how long between two looks, in seconds.
_ORPHANS, _PAUSE = 20.0, 0.01
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


def state_within(sources: Sequence[Source], base: Path, mirror: str) -> tuple[str, ...]:
    """The directories in the sources that hold autosync's own state: `base` as a whole, where other mirrors may have theirs. None is made.

    Args:
        sources: of the mirror.
        base: the directory that holds a state directory for each mirror; may be missing.
        mirror: name of the mirror.

    Raises:
        ConfigurationError: what would be left out holds other things too.
    """
    found: list[str] = []
    real_base, own = os.path.realpath(base), os.path.realpath(base / mirror)
    for source in sources:
        real = os.path.realpath(source.path)
        if real_base != real and _is_within(real_base, real):
            found += [slashed(source.path) + real_base[len(slashed(real)) :]]
            if _is_within(str(base), source.path):  # the way to it may go through a link
                found += [str(base)]
        elif _is_within(own, real) or _is_within(real, own):
            raise ConfigurationError(
                f"the state directory {base / mirror} and the source {source.path} lie in one another", "give another with --state-dir"
            )
    if found:
        _refuse_other_things(base)
    return tuple(dict.fromkeys(found))


def _is_within(path: str, directory: str) -> bool:
    return slashed(path).startswith(slashed(directory))


def _refuse_other_things(base: Path) -> None:
    """Nothing may be left out that is not state: a directory with the lock of a mirror, or one that was to become that."""
    try:
        with os.scandir(base) as entries:
            for entry in entries:
                if not entry.is_dir() or (os.listdir(entry) and not os.path.isfile(f"{entry.path}/lock")):
                    raise ConfigurationError(
                        f"the state directory {base} lies in the source and would be left out, but {entry.path} is no state of autosync's",
                        "give a directory of its own with --state-dir",
                    )
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(
            f"state directory {error.filename or base} cannot be read: {error.strerror}", "give another with --state-dir"
        ) from error


def lock(directory: Path, mirror: str) -> IO[str]:
    """Take the state directory for this process and its broker; the lock goes with the last of them. If the process that had the lock was
    killed, its children are waited for.

    Raises:
        StartError: another autosync has it, or there is no room.
    """
    held = open(directory / "lock", "a+", encoding="utf-8")  # noqa: SIM115 - held until the end
    until = time.monotonic() + _ORPHANS
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            held.seek(0)
            owner = held.read().strip() or "unknown"
            if owner.isdecimal() and not os.path.exists(f"/proc/{owner}") and time.monotonic() < until:
                time.sleep(_PAUSE)
                continue
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
        name: under which workers are known.
        mirrors: what they are for.
        directory: the state directory.
        broker: URL of a broker to use instead of an embedded one.
        workers: how many worker processes.
        secrets: see `model.secrets.secret_of`; they reach the workers through their environment.
        log_format: "text" or "json".
        verbosity: see `autosync.logs.configure`.
        held: the lock of the state directory, which workers must not share.
        script: the file that defines a user's actor; workers load it whatever directory it lies in.
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
        held: IO[str],
        script: str | None = None,
    ) -> None:
        self._server = None if broker else EmbeddedServer(directory, held.fileno())
        self.broker = broker or (self._server.url if self._server else "")
        self._held = held
        environ = self._environ(mirrors, secrets, log_format, verbosity)
        # What a user's module has set up in this process when it was loaded (connections, threads) may not survive a fork.
        self._may_fork = not any("." in mirror.actor for mirror in mirrors)
        self._workers = [
            Child(
                f"worker {number}",
                self._command(name, number, script),
                environ=environ,
                directory=str(directory),
                inside=partial(self._work, name, number, environ) if self._may_fork else None,
            )
            for number in range(1, workers + 1)
        ]
        #: Closed by `begin`; until then, workers that were forked read from the other end.
        self._gate: tuple[int, int] | None = None
        self._one_at_a_time = threading.Lock()
        #: Whether no worker has anything in hand: set by whoever knows before `stop`.
        self.is_idle = False

    @property
    def is_alone(self) -> bool:
        """Whether nobody else can reach the broker: it is the embedded one."""
        return self._server is not None

    def start(self) -> None:
        """Start the broker; it comes up while other things are done."""
        if self._server:
            self._server.start()

    def load(self) -> None:
        """Load what workers need, if they will be forks of this process."""
        if self._may_fork:
            from ..celery import load_worker

            load_worker()

    def stand_by(self) -> None:
        """Have the workers there, waiting for `begin`, and the broker answering. As long as this process has one thread, workers are forks
        of it: all that is loaded is theirs too, and takes neither time nor memory again. Those that cannot be are started after `begin`.

        Raises:
            StartError: the broker does not start.
        """
        self._gate = os.pipe()
        if self._may_fork and has_one_thread():
            for worker in self._workers:
                worker.start()
        os.close(self._gate[0])
        if self._server:
            self._server.wait()

    def begin(self) -> None:
        """There is work: let the workers begin. May be said from any thread, and more than once. Those that are no forks are started by the
        next `restart_if_dead`."""
        with self._one_at_a_time:
            if self._gate is not None:
                os.close(self._gate[1])
                self._gate = None

    def restart_if_dead(self) -> list[int]:
        """Start what is to begin, and again what has died. To be called from the main thread, every second or so.

        Returns:
            The process ids of workers that have died, whose claims nobody will keep any more.

        Raises:
            StartError: something dies each time it is started.
        """
        if self._server:
            self._server.restart_if_dead()
        if self._gate is None:
            for worker in self._workers:
                if worker.pid() is None:
                    worker.start()
        return [dead for dead in (worker.restart_if_dead() for worker in self._workers) if dead is not None]

    def stop(self) -> None:
        """Let the workers finish or put back what they have in hand, then stop the broker."""
        if self._gate is not None or (self.is_idle and self.is_alone):
            for worker in self._workers:
                worker.end()
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.stop(_DRAIN)
        if self._server:
            self._server.stop()

    def _work(self, name: str, number: int, environ: Mapping[str, str]) -> int:
        """What a worker does that is a fork of this process; the same as `_command`."""
        self._held.close()
        set_process_title(["celery", "worker", _node(name, number)])  # also while it waits
        os.environ.update(environ)
        sys.path[:] = environ["PYTHONPATH"].split(os.pathsep)
        if self._gate is not None:
            inlet, outlet = self._gate
            os.close(outlet)
            os.read(inlet, 1)
            os.close(inlet)
        return become_worker(_node(name, number), "" if self.is_alone else "heartbeat")

    def _command(self, name: str, number: int, script: str | None) -> list[str]:
        # -P: the directory in which it runs is not searched for modules, as `celery` would do.
        become = "import sys; from autosync.daemon.one_host import become_worker; sys.exit(become_worker(*sys.argv[1:]))"
        return [sys.executable, "-P", "-c", become, _node(name, number), "" if self.is_alone else "heartbeat", script or ""]

    def _environ(self, mirrors: Sequence[Mirror], secrets: Mapping[str, Any], log_format: str, verbosity: int) -> dict[str, str]:
        """The workers' environment: this one's, with what celeryconfig.py says on an upload box."""
        ours = {
            "CELERY_CONFIG_MODULE": "autosync.broker.celery_settings",
            "CELERY_BROKER_URL": self.broker,
            "AUTOSYNC_SOURCES": json.dumps(sorted({source.root for mirror in mirrors for source in mirror.sources})),
            "AUTOSYNC_QUEUES": ",".join(sorted({mirror.queue for mirror in mirrors})),
            "AUTOSYNC_SECRETS": json.dumps(dict(secrets)),
            "AUTOSYNC_LOG_FORMAT": log_format,
            "AUTOSYNC_VERBOSITY": str(verbosity),
            "AUTOSYNC_EVENTS": "0" if self.is_alone else "1",
            "PYTHONUTF8": "1",  # as this process, see `process.utf8_mode`
            # Where a user's own actor was found, it must be found again; an empty entry would mean the child's directory.
            "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if os.path.isdir(path or ".")),
        }
        return {**os.environ, **ours}


def become_worker(node: str, heartbeat: str, script: str = "") -> int:
    """Be a worker until a signal comes.

    Args:
        node: what Celery calls it, but for the host.
        heartbeat: whether it announces that it lives; "" means that it does not.
        script: the file that defines a user's actor; "" if there is none.

    Returns:
        The exit status.
    """
    set_process_title(["celery", "worker", node])
    if script:
        search_path.add_script(script)
    from ..celery import work  # a fork has it from its parent, which loaded it while the broker came up

    return work(f"{node}@{socket.gethostname()}", heartbeat=bool(heartbeat))


def _node(name: str, number: int) -> str:
    """What Celery calls a worker of a mirror, but for the host."""
    return f"{name}-{number}"


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
