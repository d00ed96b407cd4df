"""The configuration file: values for options, and a table for each of several targets."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import click

from ..errors import ConfigurationError
from ..model.setting_names import NEGATED, nearest

#: The name of the tables for several targets.
TARGET = "target"
#: Options for all targets of one watcher, which the table of one target cannot have.
_SHARED = frozenset({
    "broker", "config", "done_marker", "dry_run", "links", "log_format", "max_links", "once", "paths", "quiet", "rescan", "settle",
    "signing_key", "source_exclude", "state_dir", "temporary", "verbose", "workers",
})  # fmt: skip


def config_option() -> click.Option:
    """--config. It is eager: its values are read before the other options need their defaults."""
    return click.Option(
        ["--config"],
        type=click.Path(),
        is_eager=True,
        callback=_load_values,
        metavar="FILE",
        help="TOML file with values for these options, and for several targets.",
    )


def read_targets(path: str | None) -> list[dict[str, Any]]:
    """The tables of targets, with underscores in the names of options. Empty if the options describe the one target.

    Raises:
        ConfigurationError: the file cannot be read, or the value of that name is no list of tables.
    """
    found = _read(path).get(TARGET, []) if path is not None else []
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        raise ConfigurationError(f"configuration file {path}: {TARGET!r} is not a list of tables", f"write [[{TARGET}]]")
    return [_plain(table) for table in found]


def table_arguments(table: Mapping[str, Any], parameters: Sequence[click.Parameter], about: str) -> list[str]:
    """The values of a table as arguments of a command line.

    Args:
        table: values by the name of the option.
        parameters: the command's parameters.
        about: names the table in error messages.

    Raises:
        ConfigurationError: an option does not exist, or may not be in a table.
    """
    options = {str(one.name): one for one in parameters if isinstance(one, click.Option)}
    found: list[str] = []
    for name, value in table.items():
        if name in _SHARED:
            raise ConfigurationError(f"{about}: {name!r} holds for all targets", "write it above the tables")
        if name not in options:
            raise _no_option(about, name, options)
        found += _option_arguments(options[name], value, about)
    return found


def _no_option(about: str, name: str, options: Collection[str]) -> ConfigurationError:
    flags = {wrong: right for wrong, right in NEGATED.items() if right in options}
    near = [f"{flags[one]} = false" if one in flags else one for one in nearest(name.lower(), {*options, *flags})]
    cure = f"write {' or '.join(dict.fromkeys(near)).replace('_', '-')}" if near else "see --help"
    return ConfigurationError(f"{about}: there is no option {name!r}", cure)


def _option_arguments(option: click.Option, value: Any, about: str) -> Iterator[str]:
    name = option.opts[0]
    if option.is_flag:
        if not isinstance(value, bool):
            raise ConfigurationError(f"{about}: {option.name!r} is true or false")
        if value or option.secondary_opts:
            yield name if value else option.secondary_opts[0]
    elif option.multiple:
        yield from (f"{name}={_text(one)}" for one in (value if isinstance(value, list) else [value]))
    else:
        yield f"{name}={_text(value)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _load_values(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    """Callback of --config: the values of the file become the defaults of the options."""
    if path is None:
        return None
    values = _plain(_read(path))
    values.pop(TARGET, None)
    options = {str(option.name): option for option in context.command.params if option.name not in ("config", "version", "help")}
    for name, value in values.items():
        if name not in options and not context.ignore_unknown_options:
            raise _no_option(f"configuration file {path}", name, [*options, TARGET])
        is_list = name in options and (options[name].multiple or options[name].nargs != 1)
        if is_list and not isinstance(value, list):
            values[name] = [value]
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"configuration file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"configuration file {path}: {error}", "see https://toml.io") from error


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in table.items()}
