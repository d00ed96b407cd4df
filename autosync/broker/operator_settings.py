"""The operator's settings of Celery: celeryconfig.py and environment variables, read and checked. A problem ends the program."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from typing import Any, NoReturn

from kombu.entity import Queue

from ..model.definition_signature import SIGNING_KEY
from ..model.setting_names import nearest
from .celery_settings import DEFAULTS

#: The module in which settings are looked for by default.
CONFIG = "celeryconfig"
#: How the settings begin that are autosync's own.
_PREFIX = "autosync_"


def read_module(name: str) -> tuple[dict[str, Any], list[str]]:
    """Read the operator's file.

    Args:
        name: the module's name.

    Returns:
        The settings by name, and the names of autosync's prefix that are no settings.

    Raises:
        SystemExit: the file cannot be used.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name == CONFIG:
            return {}, []
        exit_with(f"{name}: there is no module {error.name!r}")
    except SyntaxError as error:
        exit_with(f"{error.filename}, line {error.lineno}: {error.msg}")
    except Exception as error:  # an operator's file may raise anything
        exit_with(f"{name}: {type(error).__name__}: {error}")
    values = {key: value for key, value in vars(module).items() if not key.startswith("_") and not _is_module(value)}
    settings = {key: value for key, value in values.items() if key.islower()}
    ours = [key for key in DEFAULTS if key.startswith(_PREFIX)]
    for key in values:
        near = nearest(key.lower(), ours) if key.lower().startswith(_PREFIX) and key not in DEFAULTS else []
        if near and not (key not in settings and settings.keys() & near):  # a constant that a setting is made from may have its name
            exit_with(f"{name}: there is no setting {key!r}; write {' or '.join(near)}, or remove it")
    return settings, sorted(key for key in settings if key.startswith(_PREFIX) and key not in DEFAULTS)


def read_environment() -> dict[str, Any]:
    """The settings in environment variables, from `autosync` for its own workers, or from a container in place of a file.

    Raises:
        SystemExit: a variable cannot be used.
    """
    found: dict[str, Any] = {}
    sources = os.environ.get("AUTOSYNC_SOURCES")
    if sources:
        try:
            found["autosync_sources"] = json.loads(sources) if sources[0] in "[{" else sources.split(os.pathsep)
        except ValueError as error:
            exit_with(f"AUTOSYNC_SOURCES: {error}")
    if os.environ.get("AUTOSYNC_QUEUES"):
        found["autosync_queues"] = os.environ["AUTOSYNC_QUEUES"].split(",")
    if os.environ.get("AUTOSYNC_EVENTS"):
        found["worker_send_task_events"] = os.environ["AUTOSYNC_EVENTS"] != "0"
    if os.environ.get("AUTOSYNC_LOG_FORMAT"):
        found["autosync_log_format"] = os.environ["AUTOSYNC_LOG_FORMAT"]
    try:
        if "AUTOSYNC_SECRETS" in os.environ:
            if not os.environ["AUTOSYNC_SECRETS"].strip():
                exit_with("AUTOSYNC_SECRETS is set and empty; give it a dict in JSON, or unset it")
            found["autosync_secrets"] = json.loads(os.environ["AUTOSYNC_SECRETS"])
        if os.environ.get("AUTOSYNC_VERBOSITY"):
            found["autosync_verbosity"] = int(os.environ["AUTOSYNC_VERBOSITY"])
    except ValueError as error:
        exit_with(f"AUTOSYNC_SECRETS or AUTOSYNC_VERBOSITY: {error}")
    return found


def options_in_environment() -> dict[str, str]:
    """The values of options in environment variables: AUTOSYNC_PASSWORD is that of --password. Workers read secret options from these."""
    prefix = "AUTOSYNC_"
    return {name[len(prefix) :].lower(): value for name, value in os.environ.items() if name.startswith(prefix)}


def named_secrets(secrets: Any) -> dict[str, Any]:
    """The secrets by option name, from a value of `autosync_secrets`. In the file, names may have dashes as on a command line.

    Raises:
        SystemExit: the value cannot be used.
    """
    if not isinstance(secrets, dict) or not all(isinstance(name, str) for name in secrets):
        exit_with("autosync_secrets must be a dict from option names to values")
    for name in (inner for outer, value in secrets.items() for inner in (value if isinstance(value, dict) else [outer])):
        plain = str(name).replace("-", "_")
        if plain != SIGNING_KEY and nearest(plain, [SIGNING_KEY]):  # without the key, the box would accept any definition
            exit_with(f"autosync_secrets: there is no secret {name!r}; write {SIGNING_KEY}, or remove it")
    # Values that are dicts belong to a mirror, whose name is the key.
    return {name if isinstance(value, dict) else name.replace("-", "_"): _dashed(value) for name, value in secrets.items()}


def merged_secrets(by_file: dict[str, Any], by_variable: dict[str, Any]) -> dict[str, Any]:
    """The secrets of the file, replaced one by one by those of AUTOSYNC_SECRETS. A variable that names no signing key must not take that of
    the file away: the box would accept any definition."""
    found = dict(by_file)
    for name, value in by_variable.items():
        before = found.get(name)
        found[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return found


def _dashed(value: Any) -> Any:
    return {str(name).replace("-", "_"): one for name, one in value.items()} if isinstance(value, dict) else value


def problem_of_settings(settings: Mapping[str, Any]) -> str:
    """What is wrong with settings, in one line; "" if they can be used."""
    sources = settings["autosync_sources"]
    if not isinstance(sources, list | tuple | set | dict):
        return "autosync_sources must be a list of paths, or a dict from the file host's paths to this box's"
    paths = [*sources, *sources.values()] if isinstance(sources, dict) else sources
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/"):
            return f"autosync_sources: {path!r} is not an absolute path"
    queues = settings["autosync_queues"]
    if not isinstance(queues, list | tuple) or not all(isinstance(queue, str) and queue for queue in queues):
        return "autosync_queues must be a list of queue names"
    problem = _problem_of_queues(settings.get("task_queues") or [])
    if problem:
        return problem
    if not isinstance(settings["autosync_verbosity"], int):
        return "autosync_verbosity must be a number from -1 to 2"
    if settings["autosync_log_format"] not in (None, "text", "json"):
        return "autosync_log_format must be 'text', 'json' or None"
    if not isinstance(settings["broker_url"], str):
        return "broker_url must be a string such as 'redis://host:6379/0'"
    if settings.get("broker_use_ssl"):
        return "broker_use_ssl is not read by all of autosync: write broker_url = 'rediss://host:6379/0?ssl_ca_certs=/path/to/ca.pem'"
    return ""


def _problem_of_queues(queues: Any) -> str:
    """What is wrong with `task_queues`; "" if Celery can use it."""
    names = queues if isinstance(queues, dict) else []
    is_list = isinstance(queues, list | tuple) and all(isinstance(queue, Queue) for queue in queues)
    if not (is_list or isinstance(queues, dict)) or not all(isinstance(name, str) for name in names):
        return "task_queues must be a list of kombu.Queue; autosync_queues takes names"
    for name, value in queues.items() if isinstance(queues, dict) else ((queue.name, queue) for queue in queues):
        if not _is_queue(name, value):
            return f"task_queues: {name!r} must be a kombu.Queue, or a dict such as {{'exchange': 'a', 'routing_key': 'a'}}"
    return ""


def _is_queue(name: str, value: Any) -> bool:
    """Whether a value of `task_queues` is a queue, or options from which Celery can make one."""
    if isinstance(value, dict):
        try:
            value = Queue.from_dict(name, **value)
        except Exception:  # kombu does not check the options
            return False
    if not isinstance(value, Queue):
        return False
    exchange: Any = value.exchange  # None for a queue without one
    texts = (value.name, value.routing_key, getattr(exchange, "name", None), getattr(exchange, "type", None))
    return bool(value.name) and all(isinstance(text or "", str) for text in texts)


def _is_module(value: object) -> bool:
    return isinstance(value, type(os))


def exit_with(problem: str) -> NoReturn:
    """End the program with one line and exit code 1. For any other exception Celery would print a traceback."""
    raise SystemExit(f"autosync: {problem}")
