"""The commands `autosync` and `autosync-watch`: they read options, make the mirrors that these describe, and run them.

Celery and its dependencies take long to load. They are loaded while the broker starts and the actor's prefetch process checks the target:
together that takes half of the time of a short run.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..actor import Actor, as_actor, own_option_names, without_secrets
from ..actors import load
from ..daemon.one_host import OneHost, lock, serving
from ..daemon.overlaps import Overlaps
from ..daemon.state_directory import state_directory, state_within
from ..errors import AutosyncError, ConfigurationError, StartError
from ..model.definition_signature import SIGNING_KEY, read_key
from ..model.mirror import Mirror
from ..model.secrets import escape_secret
from ..model.setting_names import warning_about
from ..model.text import printable
from ..process.child import allow_many_open_files
from ..state.state_file import state_files
from ..state.state_lock import watch_lock
from .actor_modules import file_of, importable_name, set_search_path
from .config_file import config_option, read_targets, table_arguments
from .options import actor_option, check_variables, context_settings, parameters, refuse_empty_secrets, state_base
from .plan import Plan, plan_of, valid_name

if TYPE_CHECKING:
    from ..daemon.main_loop import Signals
    from ..daemon.mirror_runner import RunSettings

log = logging.getLogger(__name__)

_ONE_HOST = """Keep the copy of PATH in a target equal to PATH, all the time, on this host alone.

Watches PATH, compares it with the target, and transfers what differs, with a broker and workers of its own, until Ctrl-C or SIGTERM.
"""
_WATCH = """Keep the copy of PATH in a target equal to PATH, with upload boxes that do the transfers.

Watches PATH and compares it with the target, and puts what differs into the queue. Start `celery -A autosync worker` on the upload boxes.
"""


def run(name: str, args: list[str], actor: type[Actor] | None, *, one_host: bool) -> int:
    """Run a command.

    Args:
        name: the command's name.
        args: arguments of the command.
        actor: a class of the caller's; None for the actor in the arguments.
        one_host: True for `autosync`, False for `autosync-watch`.

    Returns:
        The exit code.

    Raises:
        click.ClickException: the arguments are wrong.
        AutosyncError: the command cannot start, or cannot go on.
    """
    own_class = as_actor(actor) if actor is not None else None
    config, wanted_actor, paths = _first_options(args)
    tables = read_targets(config)
    actors = [wanted_actor, *(str(table.get("actor")) for table in tables)]
    set_search_path(own_class, actors, paths)

    def own_options() -> set[str]:
        own = {str(option.name) for option in own_class.options} if own_class else set()
        return own.union(*map(own_option_names, actors))

    try:
        found = _plans(name, args, own_class, wanted_actor, tables, f"configuration file {config}", one_host=one_host)
    except (click.UsageError, ConfigurationError):
        check_variables(own_options)  # a variable with a wrong name may be the reason
        raise
    if isinstance(found, int):  # --help or --version was printed
        return found
    plans, values = found
    unknown = check_variables(own_options)
    if unknown:
        log.warning("%s", warning_about(unknown))
    _refuse_twins(plans)
    together = valid_name(values["name"] or (_name_of_file(config) if len(plans) > 1 else plans[0].mirror.name))
    plans = _without_state(plans, state_base(values["state_dir"]), together)
    if values["dry_run"]:
        from .dry_run import dry_run

        for plan in plans:
            _check(plan.actor)
        return dry_run(plans, together, values)
    return _run_mirrors(plans, together, values, file_of(own_class), one_host=one_host)


def _plans(
    name: str, args: list[str], own_class: type[Actor] | None, wanted_actor: str, tables: Sequence[dict[str, Any]], about: str, *,
    one_host: bool,
) -> tuple[list[Plan], dict[str, Any]] | int:  # fmt: skip
    """The plans of all targets, and the values of the options; an exit code after --help or --version."""
    if not tables:
        command = _command(name, own_class, wanted_actor, one_host=one_host)
        found: tuple[Plan, dict[str, Any]] | int = command.main(args, prog_name=name, standalone_mode=False)
        return found if isinstance(found, int) else ([found[0]], found[1])
    plans: list[Plan] = []
    values: dict[str, Any] = {}
    for number, table in enumerate(tables, 1):
        found = _plan_of_table(name, args, own_class, table, f"{about}, target {number}", one_host=one_host)
        if isinstance(found, int):
            return found
        plans.append(found[0])
        values = found[1]
    return plans, values


def _plan_of_table(
    name: str, args: list[str], own_class: type[Actor] | None, table: dict[str, Any], about: str, *, one_host: bool
) -> tuple[Plan, dict[str, Any]] | int:
    """The plan of one of several targets. Values in its table take precedence over those for all targets."""
    own = {option: value for option, value in table.items() if option != "name" and (option != "actor" or own_class is not None)}
    try:
        wanted_actor = table["actor"] if "actor" in table else _first_options(args)[1]
        command = _command(name, own_class, str(wanted_actor), str(table.get("name") or ""), one_host=one_host)
        found: tuple[Plan, dict[str, Any]] | int = command.main(
            [*args, *table_arguments(own, command.params, about)], prog_name=name, standalone_mode=False
        )
    except click.UsageError as error:
        raise ConfigurationError(f"{about}: {' '.join(error.format_message().split()).rstrip('.')}", "see --help") from error
    except ConfigurationError as error:
        raise error if error.what.startswith(about) else ConfigurationError(f"{about}: {error.what}", error.cure) from error
    return found


def _command(name: str, own_class: type[Actor] | None, wanted_actor: str, mirror: str | None = None, *, one_host: bool) -> click.Command:
    """The command with the options of one kind of target. It returns a plan and the values of the options.

    Args:
        name: the command's name.
        own_class: a class of the caller's.
        wanted_actor: name of the actor, if there is no such class.
        mirror: the mirror's name for one of several targets, "" for a name made from the target; None for the name in the options.
        one_host: see `run`.
    """
    actor_class = own_class or load(wanted_actor)
    actor_name = importable_name(own_class) if own_class else wanted_actor
    options = parameters(actor_class, fixed_actor=own_class is not None, one_host=one_host)
    refuse_empty_secrets(options)
    command = click.Command(
        name,
        params=options,
        callback=lambda **values: (plan_of(actor_class, actor_name, values, mirror), values),
        help=_ONE_HOST if one_host else _WATCH,
        epilog="Every option may also be given as an environment variable (AUTOSYNC_TARGET_PREFIX for --target-prefix) or in --config.",
        context_settings=context_settings(),
    )
    # These two have no environment variables: AUTOSYNC_VERSION may have another meaning on this host.
    click.version_option(package_name="autosync", prog_name=name, allow_from_autoenv=False)(command)
    click.help_option("-h", "--help", allow_from_autoenv=False)(command)
    return command


def _first_options(args: list[str]) -> tuple[str | None, str, tuple[str, ...]]:
    """The configuration file, the actor and the PATHs in the arguments. They are needed before a user's module is loaded, that is, before
    the actor's own options can be read. So the value of such an option may count as a PATH here."""
    options: dict[str, Any] = {**context_settings(), "ignore_unknown_options": True, "allow_extra_args": True}
    preliminary = click.Command(
        "preliminary", params=[config_option(), actor_option()], add_help_option=False, callback=lambda actor, config: (config, actor),
        context_settings=options,
    )  # fmt: skip
    with preliminary.make_context("preliminary", list(args), resilient_parsing=False) as context:
        config, actor = preliminary.invoke(context)
    everything = click.Command("preliminary", params=parameters(Actor, fixed_actor=False, one_host=True), add_help_option=False)
    with everything.make_context("preliminary", list(args), resilient_parsing=True, **options) as context:
        return config, str(actor), tuple(map(os.path.abspath, context.params["paths"] or ()))


def _refuse_twins(plans: Sequence[Plan]) -> None:
    names = [plan.mirror.name for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"two targets have the name {name}", "give each a name of its own, or another target")


def _without_state(plans: Sequence[Plan], base: Path, name: str) -> list[Plan]:
    """The same plans without autosync's own state in their sources. Each such directory is logged once.

    Raises:
        ConfigurationError: see `state_directory.state_within`.
    """
    within = [state_within(plan.mirror.sources, base, name) for plan in plans]
    for directory in dict.fromkeys(one for some in within for one in some):
        log.info("%s is left out: autosync keeps its own state there", printable(directory))
    return [replace(plan, mirror=replace(plan.mirror, state_directories=some)) for plan, some in zip(plans, within, strict=True)]


def _name_of_file(config: str | None) -> str:
    """The common name, on this host, of the mirrors in one configuration file."""
    path = os.path.abspath(config or "")
    readable = re.sub(r"[^A-Za-z0-9]+", "-", Path(path).stem).strip("-")[:60]
    return f"{readable or 'targets'}-{hashlib.sha256(path.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


def _check_all(plans: Sequence[Plan]) -> None:
    """Check that the targets can be used. One of several that cannot is checked again later, and does not delay the others.

    After this, all modules are loaded: they are excluded from garbage collection, so that forks of this process share their memory.

    Raises:
        StartError: no target can be used.
    """
    errors: dict[str, StartError] = {}
    for plan in plans:
        try:
            _check(plan.actor)
        except StartError as error:
            errors[plan.mirror.name] = error
    for name, met in errors.items():
        if len(errors) == len(plans):
            raise met
        log.error("%s: %s; it is tried again", name, met)
    gc.freeze()
    gc.enable()


def _check(actor: Actor) -> None:
    try:
        actor.check()
    except AutosyncError as error:
        raise StartError(without_secrets(actor, str(error))) from error
    except Exception as error:  # a user's actor may fail in any way
        raise StartError(without_secrets(actor, f"the target cannot be used: {type(error).__name__}: {error}")) from error


def _run_mirrors(plans: Sequence[Plan], name: str, values: dict[str, Any], script: str | None, *, one_host: bool) -> int:
    allow_many_open_files()
    base = state_base(values["state_dir"])
    broker = values["broker"]
    if broker is None:  # otherwise this waits for the broker, which has more mirrors
        for plan, companions in _with_companions(plans):
            Overlaps(plan.mirror, base, companions=companions).check()
    is_new = not any(state_files(base / name))
    directory = state_directory(base, name)
    signing_key = read_key(values["signing_key"])

    def runs(at: str) -> list[RunSettings]:
        from ..daemon.mirror_runner import RunSettings

        return [
            RunSettings(
                plan.mirror, plan.policy, plan.actor, at, directory, values["once"], values["settle"], values["rescan"], plan.limits,
                signing_key, f"{plan.mirror.name}: " if len(plans) > 1 else "", plan.accept_existing, is_new, companions,
            )
            for plan, companions in _with_companions(plans)
        ]  # fmt: skip

    if not one_host:
        with watch_lock(directory):
            _start_prefetch(plans)
            from ..daemon.main_loop import run_mirrors

            signals = _check_targets_and_broker(plans, broker)
            return run_mirrors(runs(broker), signals)
    with lock(directory, name) as lock_file:
        host = OneHost(
            name,
            [plan.mirror for plan in plans],
            directory,
            broker=broker,
            workers=values["workers"],
            secrets={
                **{plan.mirror.name: {option: escape_secret(value) for option, value in plan.secrets.items()} for plan in plans},
                **({SIGNING_KEY: escape_secret(signing_key)} if signing_key else {}),
            },
            log_format=values["log_format"],
            verbosity=-1 if values["quiet"] else values["verbose"],
            lock_file=lock_file,
            script=script,
        )
        with serving(host):
            _start_prefetch(plans)
            from ..daemon.main_loop import run_mirrors

            host.load()
            signals = _check_targets_and_broker(plans, broker)
            host.start_waiting()
            return run_mirrors(runs(host.broker), signals, host)


def _with_companions(plans: Sequence[Plan]) -> list[tuple[Plan, tuple[Mirror, ...]]]:
    """Each plan, and the mirrors of all others."""
    return [(plan, tuple(other.mirror for other in plans if other is not plan)) for plan in plans]


def _start_prefetch(plans: Sequence[Plan]) -> None:
    """Have our S3 actor check its bucket in a process of its own, while this one loads Celery. Actors of users have no such method."""
    for plan in plans:
        start = getattr(plan.actor, "start_prefetch", None)
        if start is not None:
            start()


def _check_targets_and_broker(plans: Sequence[Plan], broker: str | None) -> Signals:
    """Check that targets and broker can be used, then install the signal handlers. Until then, a signal ends the program at once.

    Raises:
        StartError: the targets or the broker cannot be used.
    """
    from ..daemon.main_loop import Signals, check_broker

    _check_all(plans)
    if broker:
        check_broker(broker)
    signals = Signals()
    signals.install()
    return signals
