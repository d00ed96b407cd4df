"""The Celery app of `celery -A autosync worker` and `celery -A autosync flower`, and its settings.

The operator's file is celeryconfig.py in the directory where Celery is started, or the module of `--config` or CELERY_CONFIG_MODULE.
Without a file the package's defaults apply; a broken file ends the program with one line.
"""

from __future__ import annotations

from .process import installation_path

if installation_path.is_celery():  # -A puts the current directory first, and what follows here would be imported from there
    installation_path.search_only()
    installation_path.search_others_last()

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning
from celery.loaders.base import BaseLoader
from kombu.entity import Exchange, Queue

from .actor import own_option_names
from .broker import redis_transport as transport
from .broker.celery_settings import DEFAULTS, NEEDED
from .broker.operator_settings import (
    CONFIG,
    exit_with,
    merged_secrets,
    named_secrets,
    options_in_environment,
    problem_of_settings,
    read_environment,
    read_module,
)
from .errors import ConfigurationError
from .logs import configure, keep_secrets
from .model.broker_tls import certificate_checks, with_certificate_checks
from .model.mirror import DEFAULT_QUEUE
from .model.setting_names import OR_NAME_THE_ACTOR, check_variables, warning_about
from .process import search_path
from .process import standard_streams as streams
from .process import utf8_mode as utf8

log = logging.getLogger(__name__)

#: Columns of Flower's list of tasks. By default, arguments and result, which describe a transfer, are not among them. Flower's own settings
#: take precedence.
_COLUMNS = "name,args,state,result,received,runtime,worker"

#: Options of a broker's URL that are times, in seconds.
_TIMEOUTS = ("socket_timeout", "socket_connect_timeout")
_TASKS = ("autosync.tasks.transfer", "autosync.tasks.queues")
#: Modules that a worker of Celery loads at its start, or with its first message. Any version of Celery may rename inner modules, so these
#: are hints: a worker loads the modules that it needs by itself.
_PRELOADED = (
    "billiard.pool",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.app.routes",
    "celery.apps.worker",
    "celery.backends.base",
    "celery.concurrency.thread",
    "celery.events.receiver",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.control",
    "celery.worker.loops",
    "celery.worker.pidbox",
    "celery.worker.strategy",
)


class Secrets:
    """The values of secret options. Celery sends its settings to Flower and to `celery inspect`, and masks those whose names look secret.
    Inside a dict it would not mask a name like `login`, so this class is not a dict."""

    def __init__(self, by_name: Mapping[str, Any]) -> None:
        self._by_name = by_name

    def by_name(self) -> Mapping[str, Any]:
        """The values, see `model.secrets.secret_of`."""
        return self._by_name

    def __repr__(self) -> str:
        return "***"


class App(Celery):
    """Reads timeouts from the broker's URL as redis-py does (kombu fails over them), and checks certificates as `ledger.connect` does."""

    def _connection(self, url: str, *args: Any, transport_options: Mapping[str, Any] | None = None, **options: Any) -> Any:
        plain, timeouts = _without_timeouts(with_certificate_checks(url))
        return super()._connection(plain, *args, transport_options={**timeouts, **(transport_options or {})}, **options)


class Loader(BaseLoader):
    """Merges the settings when they are first needed."""

    #: Whether modules of the user may be in the current directory.
    searches_here = True
    #: Variables, and settings of autosync's prefix, that mean nothing.
    unknown_names: Sequence[str] = ()

    def read_configuration(self, fail_silently: bool = True) -> dict[str, Any]:
        """The environment over the operator's file over the package's defaults.

        Raises:
            SystemExit: the file cannot be used; one line says why.
        """
        streams.ensure_open()
        _ensure_utf8()
        name = os.environ.get("CELERY_CONFIG_MODULE", CONFIG)
        from_environment = read_environment()
        if self.searches_here:
            _search_current_directory(from_environment.get("autosync_sources", ()))
        from_module, unknown_settings = read_module(name)
        settings = {**DEFAULTS, **from_module, **from_environment}
        by_file, by_variable = [named_secrets(some.get("autosync_secrets", {})) for some in ({**DEFAULTS, **from_module}, from_environment)]
        settings["autosync_secrets"] = Secrets({**merged_secrets(by_file, by_variable), **options_in_environment()})
        problem = problem_of_settings(settings)
        if problem:
            exit_with(f"{name}: {problem}")
        if self.searches_here:
            _refuse_to_run_uploads(settings["autosync_sources"])
            self.unknown_names = [*unknown_settings, *_unknown_variables()]  # autosync has checked those of its own workers
        try:
            settings |= _tls_settings(os.environ.get("CELERY_BROKER_URL") or settings["broker_url"])
        except ConfigurationError as error:
            exit_with(str(error))
        queues = settings.get("task_queues") or [queue_called(name) for name in settings["autosync_queues"] or [DEFAULT_QUEUE]]
        settings["task_queues"] = queues
        settings.setdefault("task_default_queue", next(iter(queues)) if isinstance(queues, dict) else queues[0].name)
        return settings


def queue_called(name: str) -> Queue:
    """The queue of this name, with an exchange of its own."""
    return Queue(name, Exchange(name), routing_key=name)


def make_app(**settings: Any) -> Celery:
    """An app with the settings that correctness needs.

    Args:
        settings: further settings that no file can change.
    """
    os.environ.setdefault("FLOWER_TASKS_COLUMNS", _COLUMNS)
    return App("autosync", loader=Loader, include=_TASKS, **{**NEEDED, **settings})


def sending_app(broker: str, queue: str, *, events: bool = True) -> Celery:
    """An app that only sends, to one queue of one broker. It reads no celeryconfig.py, which is for upload boxes.

    Args:
        broker: URL of the broker.
        queue: name of the queue.
        events: whether each message causes a task-sent event, for monitors such as Flower.
    """
    transport.install()
    sender = App("autosync", set_as_current=False, **NEEDED)
    sender.config_from_object(
        {
            "broker_url": _for_celery(broker),
            "task_queues": [queue_called(queue)],
            "task_default_queue": queue,
            "task_send_sent_event": events,
            **_tls_settings(broker),
        }
    )
    return sender


def load_worker() -> None:
    """Load the modules that `work` needs, in a process that will be forked into workers."""
    for name in _TASKS:
        importlib.import_module(name)
    for name in _PRELOADED:
        with suppress(Exception):  # a worker that needs the module reports the error
            importlib.import_module(name)


def work(name: str, *, heartbeat: bool) -> int:
    """Run a worker of this app, as `celery worker` does, until a signal ends it.

    Args:
        name: Celery's name of this worker, with its host.
        heartbeat: whether to send worker-heartbeat events.

    Returns:
        The exit status.
    """
    # Celery would warn at each start of a worker that runs as root.
    warnings.filterwarnings("ignore", message="You're running the worker")
    app.loader.searches_here = False
    worker = app.Worker(
        hostname=name, loglevel="WARNING", quiet=True, without_gossip=True, without_mingle=True, without_heartbeat=not heartbeat
    )
    worker.start()
    return int(worker.exitcode or 0)


def _for_celery(broker: str) -> str:
    """A URL of redis-py in Celery's spelling: unix:///path?db=0 is redis+socket:///path?virtual_host=0."""
    return broker.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=") if broker.startswith("unix://") else broker


def _tls_settings(broker: str) -> dict[str, Any]:
    """The settings for a rediss:// broker. Flower needs them, since it reads no TLS options in the URL; kombu reads the URL."""
    checks = certificate_checks(broker)
    return {"broker_use_ssl": checks} if checks else {}


def _without_timeouts(url: str) -> tuple[str, dict[str, float]]:
    """Split a broker's URL into the URL without timeouts in its query, and the timeouts by name, in seconds. kombu cannot read them."""
    head, mark, query = url.partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    timeouts = [pair for pair in pairs if pair.partition("=")[0] in _TIMEOUTS]
    rest = "&".join(pair for pair in pairs if pair not in timeouts)
    return (f"{head}{mark}{rest}" if rest else head), {name: float(value) for name, _, value in (pair.partition("=") for pair in timeouts)}


@signals.celeryd_init.connect
def _prepare_worker(**_: Any) -> None:
    """Prepare a worker before it connects to anything."""
    transport.install()
    keep_secrets()


@signals.worker_ready.connect
def _ignore_deprecations(**_: Any) -> None:
    """Ignore a warning of nine lines that Celery prints at each broken connection, about a default that a later version will change."""
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


@signals.celeryd_after_setup.connect
def _warn_about_names(instance: Any, conf: Any, **_: Any) -> None:
    if not instance.app.loader.unknown_names:
        return
    line = warning_about(instance.app.loader.unknown_names)
    if conf.autosync_log_format:
        log.warning("%s", line)
    else:
        print(f"autosync: {line}", file=sys.stderr)


@signals.celeryd_init.connect
def _log_in_our_format(conf: Any, **_: Any) -> None:
    """If a log format is set, connect a receiver of `setup_logging`, with which Celery does not set up its own logging."""
    if conf.autosync_log_format:
        signals.setup_logging.connect(lambda **_: configure(conf.autosync_log_format, conf.autosync_verbosity), weak=False)


def _ensure_utf8() -> None:
    try:
        utf8.ensure(restarts=installation_path.is_celery())
    except ConfigurationError as error:
        exit_with(str(error))


def _search_current_directory(sources: Any) -> None:
    """Search the current directory right behind the installation: it may contain celeryconfig.py and an actor of the user's own."""
    if installation_path.is_celery():
        search_path.leave_out_directory_of_program()
    _refuse_to_run_uploads(sources)
    search_path.search_current_directory_last()
    if installation_path.is_celery():
        installation_path.search_only()
    search_path.append(os.getcwd())
    if installation_path.is_celery():
        installation_path.search_others_last()


def _refuse_to_run_uploads(sources: Any) -> None:
    """End the program if the current directory, or another that Python searches for modules, is in a source: Python would run uploaded
    files. A source that is the root of the file system does not count."""
    paths = sources.values() if isinstance(sources, dict) else sources
    counted = [path for path in paths if isinstance(path, str) and path != "/"]
    around = search_path.source_around(os.getcwd(), counted)
    if around is not None:
        exit_with(
            f"Celery was started in {os.getcwd()}, where it would run what others put there, since autosync_sources has {around}: "
            "start it in another directory"
        )
    for entry, around in search_path.entries_within(counted).items():
        exit_with(
            f"Python searches for modules in {entry}, where it would run what others put there, since autosync_sources has {around}: "
            "take it off PYTHONPATH"
        )


def _unknown_variables() -> list[str]:
    try:
        return check_variables(os.environ, lambda: own_option_names(os.environ.get("AUTOSYNC_ACTOR", "")), OR_NAME_THE_ACTOR)
    except ConfigurationError as error:
        exit_with(str(error))


app = make_app()
