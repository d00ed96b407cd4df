"""The commands run in this process: what a shell would see of them, without the time that it takes to start Python.

A test of each exit code starts a real process (lab/programs.py); the rows of a table of bad input run here. A command changes the process
that it runs in: logging, signal handlers, garbage collector, limits, search path. All of that is put back, and no thread may be left.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

from autosync import cli

from . import ROOT
from .programs import BIN
from .servers import wait_until

DOORS: dict[str, Callable[[], object]] = {"autosync": cli.main, "autosync-watch": cli.watch, "autosync-ctl": cli.control}


class Commands:
    """Runs commands in this process.

    Args:
        directory: the current directory of those that are given no other.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def run(self, *command: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as `Programs.run` does.

        Args:
            command: its name, one of `DOORS`, and its arguments.
            cwd: the current directory.
            environ: variables beside those of this process.
        """
        return _run(DOORS[command[0]], command, cwd or self._directory, environ)

    def prepare_worker(
        self, *, queues: str = "", exclude_queues: str = "", cwd: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Do what autosync does when `celery -A autosync worker` starts, before Celery connects to anything: read the settings, and check
        broker, key and queues. Exit code 0: Celery would go on.

        Args:
            queues: of the option -Q.
            exclude_queues: of the option -X.
            cwd: the current directory, where celeryconfig.py may be.
            environ: variables beside those of this process.
        """
        options = {"queues": queues, "exclude_queues": exclude_queues}
        command = ("celery", "-A", "autosync", "worker")
        return _run(lambda: _prepare_worker(options), command, cwd or self._directory, environ)


class _Worker:
    """Stands in the place of Celery's worker, which is known by its app."""

    def __init__(self, app: object) -> None:
        self.app = app


def _prepare_worker(options: dict[str, str]) -> None:
    from celery.signals import celeryd_init

    from autosync.celery import load_worker, make_app

    load_worker()
    sys.path.insert(0, os.getcwd())  # as -A does
    app = make_app(set_as_current=False)
    try:
        celeryd_init.send(sender="celery@here", instance=_Worker(app), conf=app.conf, options=options)
    finally:
        app.close()


def _run(entry: Callable[[], object], command: tuple[str, ...], cwd: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    stderr = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    # click reads the width of the terminal; if a command's output goes to a pipe, as here, it is 80.
    variables = {"COLUMNS": "80", **environ}
    code = 0
    with (
        _process_state_restored(cwd),
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, variables),
        mock.patch.object(sys, "argv", [str(BIN / command[0]), *command[1:]]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            entry()
        except SystemExit as end:
            code = _exit_code(end)
    outputs = [stream.buffer.getvalue().decode() for stream in (stdout, stderr)]
    return subprocess.CompletedProcess(command, code, *outputs)


def _exit_code(end: SystemExit) -> int:
    """The exit code that the interpreter makes of this exception; a text it writes to stderr."""
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    print(end.code, file=sys.stderr)
    return 1


@contextlib.contextmanager
def _process_state_restored(cwd: Path) -> Iterator[None]:
    """Put back what a command changes in its process.

    Raises:
        AssertionError: it has left threads of autosync's.
    """
    assert not ROOT.is_relative_to(cwd), f"modules of {cwd} are unloaded afterwards"
    threads = set(threading.enumerate())
    path, modules, settings = sys.path[:], set(sys.modules), sys.modules.pop("celeryconfig", None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    collects, frozen = gc.isenabled(), gc.get_freeze_count()
    sys.path[:] = [
        directory for directory in path if directory and Path(directory) != ROOT
    ]  # the repository's celeryconfig.py is none of theirs
    importlib.invalidate_caches()  # the files of a user's modules may be younger than what is known of their directory
    try:
        with _logging_restored(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as PYTHONWARNINGS does for processes
            yield
    finally:
        atexit.unregister(gc.freeze)
        if gc.get_freeze_count() > frozen:
            gc.unfreeze()
        if collects:
            gc.enable()
        resource.setrlimit(resource.RLIMIT_NOFILE, open_files)
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if _is_below(sys.modules[name], cwd):
                del sys.modules[name]
        if settings is not None:
            sys.modules["celeryconfig"] = settings
    # Threads with other names belong to servers in this process. A thread that is to end may need a moment.
    left = {thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("autosync")}
    wait_until(lambda: not any(thread.is_alive() for thread in left), 10, f"the command leaves no thread behind: {left}")


def _is_below(module: ModuleType, directory: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).absolute().is_relative_to(directory)


@contextlib.contextmanager
def _logging_restored() -> Iterator[None]:
    """Put back handlers and levels of all loggers; pytest has handlers of its own."""

    def loggers() -> list[logging.Logger]:
        loggers = logging.getLogger().manager.loggerDict.values()
        return [logging.getLogger(), *(one for one in loggers if isinstance(one, logging.Logger))]

    before = {logger: (logger.level, logger.handlers[:]) for logger in loggers()}
    try:
        yield
    finally:
        for logger in loggers():
            level, handlers = before.get(logger, (logging.NOTSET, []))
            logger.setLevel(level)
            logger.handlers[:] = handlers
