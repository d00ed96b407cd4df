"""What the commands do: they read options, make the mirror that these describe, and keep it.

What takes long to load (Celery with all that it needs, in `run`) is loaded while the broker comes up and the actor's scout looks at the
target: together that takes half of the time of a short run.
"""

from __future__ import annotations

import gc
import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import logs
from .actor import Actor, SecretOption, without_secrets
from .actors import load
from .errors import AutosyncError, ConfigurationError, Exit, StartError
from .host import boot_id
from .keys import slashed
from .limit import DeleteLimit
from .look import Comparison, LookReport, Policy
from .mirror import DEFAULT_QUEUE, Mirror
from .onehost import OneHost, lock, serving, state_directory
from .options import actor_option, config_option, context_settings, parameters, sources_of, state_base
from .processes import allow_many_open_files
from .rates import Limits
from .reconciler import Compare
from .signing import SIGNING_KEY, read_key
from .wording import shown

if TYPE_CHECKING:
    from .run import Run, Signals

_ONE_HOST = """Keep the copy of PATH in a target equal to PATH, all the time, on this host alone.

Watches PATH, compares it with the target, and transfers what differs, with a broker and workers of its own, until Ctrl-C or SIGTERM.
"""
_WATCH = """Keep the copy of PATH in a target equal to PATH, with upload boxes that do the transfers.

Watches PATH and compares it with the target, and puts what differs into the queue. Start `celery -A autosync worker` on the upload boxes.
"""


def run(name: str, args: list[str], actor: type[Actor] | None, *, one_host: bool) -> int:
    """Run a command.

    Args:
        name: of the command.
        args: its arguments.
        actor: a class of the caller's; None: the one that the arguments name.
        one_host: `autosync`; else `autosync-watch`.

    Returns:
        The exit code.

    Raises:
        click.ClickException: the arguments are wrong.
        AutosyncError: it cannot start, or cannot go on.
    """
    if actor is None:
        actor_name = _wanted_actor(args)
        actor_class = load(actor_name)
    else:
        actor_class, actor_name = actor, _importable_name(actor)
    command = click.Command(
        name,
        params=parameters(actor_class, fixed_actor=actor is not None, one_host=one_host),
        callback=_callback(actor_class, actor_name, one_host=one_host),
        help=_ONE_HOST if one_host else _WATCH,
        epilog="Every option may also be given as an environment variable (AUTOSYNC_TARGET_PREFIX for --target-prefix) or in --config.",
        context_settings=context_settings(),
    )
    # These two are questions, not settings: AUTOSYNC_VERSION may mean something else to whoever set it.
    click.version_option(package_name="autosync", prog_name=name, allow_from_autoenv=False)(command)
    click.help_option("-h", "--help", allow_from_autoenv=False)(command)
    code = command.main(args, prog_name=name, standalone_mode=False)
    return int(code or 0)


def _wanted_actor(args: list[str]) -> str:
    """Which actor is asked for; it has to be known before its own options can be read."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's module may stand in the current directory
    scout = click.Command(
        "scout", params=[config_option(), actor_option()], add_help_option=False, callback=lambda actor, config: actor,
        context_settings={**context_settings(), "ignore_unknown_options": True, "allow_extra_args": True},
    )  # fmt: skip
    with scout.make_context("scout", list(args), resilient_parsing=False) as context:
        return str(scout.invoke(context))


def _importable_name(actor: type[Actor]) -> str:
    """`module.Class` under which a worker process finds a class that was defined in the program's main file."""
    module = actor.__module__
    if module == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        if not file:
            raise ConfigurationError(
                f"{actor.__name__} is defined in an interactive session", "put it into a file: worker processes import it"
            )
        module = Path(file).stem
    return f"{module}.{actor.__name__}"


def _callback(actor_class: type[Actor], actor_name: str, *, one_host: bool) -> Callable[..., int]:
    def callback(**values: Any) -> int:
        verbosity = -1 if values["quiet"] else values["verbose"]
        logs.configure(values["log_format"], verbosity)
        allow_many_open_files()
        settings = {str(option.name): values[str(option.name)] for option in actor_class.options}
        settings["target_container"] = values["target_container"]
        secrets = {str(option.name): values[str(option.name)] for option in actor_class.options if isinstance(option, SecretOption)}
        actor = actor_class(**settings)
        # As the actor has understood them: a relative path means nothing to a worker in another directory.
        public = {name: getattr(actor, name) for name in settings if name not in secrets}
        mirror = _mirror(actor_name, actor, public, values, one_host=one_host)
        limits = Limits.parse(values["limit_requests"], values["limit_bandwidth"], values["limit_inflight"])
        policy = Policy(mirror.delete, _limit(values["max_delete"]), Compare(values["compare"]), mirror.follow_links)
        if values["dry_run"]:
            _check(actor)
            return _dry_run(mirror, policy, actor)
        signing_key = read_key(values["signing_key"])
        if signing_key:
            secrets[SIGNING_KEY] = signing_key
        return _keep(mirror, policy, limits, actor, secrets, values, verbosity, one_host=one_host)

    return callback


def _check(actor: Actor) -> None:
    """With this, all is loaded: the garbage collector need not look there any more, and a fork of this process needs little.

    Raises:
        StartError: the target cannot be used.
    """
    try:
        actor.check()
    except AutosyncError as error:
        raise StartError(without_secrets(actor, str(error))) from error
    except Exception as error:  # a user's actor may fail in any way
        raise StartError(without_secrets(actor, f"the target cannot be used: {type(error).__name__}: {error}")) from error
    gc.freeze()
    gc.enable()


def _mirror(actor_name: str, actor: Actor, settings: dict[str, Any], values: dict[str, Any], *, one_host: bool) -> Mirror:
    sources = sources_of(values["paths"])
    name = values["name"] or _default_name(actor_name, settings, values["target_prefix"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigurationError(f"--name {name!r} cannot be used", "take up to 100 letters, digits, '.', '_' and '-'")
    mirror = Mirror(
        name=name,
        actor=actor_name,
        sources=sources,
        source_prefix=values["source_prefix"],
        target_prefix=values["target_prefix"],
        source_filter=values["source_filter"],
        source_exclude=tuple(values["source_exclude"]),
        temporary=tuple(filter(None, values["temporary"])),
        done_marker=values["done_marker"],
        follow_links=values["links"] == "follow",
        settings=settings,
        delete=values["delete"],
        threads=values["threads"],
        attempts=values["attempts"],
        queue=_queue(values["queue"] or f"{DEFAULT_QUEUE}.{name}"),
        host=boot_id(),
    )
    mirror.keys()  # says what is wrong with prefixes and expressions
    for source in sources:
        target = actor.directory
        if target and (slashed(target).startswith(slashed(source.path)) or slashed(source.path).startswith(slashed(target))):
            raise ConfigurationError(
                f"the target {target} and the source {source.path} lie in one another", "mirror to a directory outside"
            )
    return mirror


def _queue(name: str) -> str:
    """The name of a queue; Celery and kombu read commas and colons in it in ways of their own."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
        raise ConfigurationError(f"--queue {name!r} cannot be used", "take up to 200 letters, digits, '.', '_' and '-'")
    return name


def _default_name(actor_name: str, settings: dict[str, Any], prefix: str) -> str:
    """A readable name from the target, with a hash where reading alone would not tell two targets apart."""
    told = [actor_name.rpartition(".")[2], settings.get("target_container") or settings.get("url") or "", prefix]
    exact = "\0".join([*map(str, told), str(settings.get("endpoint_url") or "")])
    readable = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(filter(None, map(str, told)))).strip("-")[:60]
    return f"{readable}-{hashlib.sha256(exact.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


def _dry_run(mirror: Mirror, policy: Policy, actor: Actor) -> int:
    report = LookReport()
    comparison = Comparison(mirror.keys(), actor, policy, exact=True)
    for difference in comparison.differences("", report):
        verb = "delete" if difference.found is None else "check" if difference.etag else "upload"
        print(verb, shown(difference.key))
    for path, reason in report.skipped.items():
        print("skip", shown(path), reason)
    return Exit.DONE if report.complete and not report.held else Exit.INCOMPLETE


def _limit(text: str | None) -> DeleteLimit:
    return DeleteLimit() if text is None else DeleteLimit.parse(text)


def _keep(
    mirror: Mirror,
    policy: Policy,
    limits: Limits,
    actor: Actor,
    secrets: dict[str, Any],
    values: dict[str, Any],
    verbosity: int,
    *,
    one_host: bool,
) -> int:
    directory = state_directory(state_base(values["state_dir"]), mirror.name)
    broker = values["broker"]

    def run(at: str) -> Run:
        from .run import Run

        return Run(
            mirror, policy, actor, at, directory, values["once"], values["settle"], values["rescan"], limits, secrets.get(SIGNING_KEY, "")
        )

    if not one_host:
        actor.stand_by()
        from .run import keep

        signals = _checked(actor, broker)
        return keep(run(broker), signals)
    with lock(directory, mirror.name) as held:
        host = OneHost(
            mirror,
            directory,
            broker=broker,
            workers=values["workers"],
            secrets=secrets,
            log_format=values["log_format"],
            verbosity=verbosity,
            held=held,
        )
        with serving(host):
            actor.stand_by()
            from .run import keep

            host.load()
            signals = _checked(actor, broker)
            host.stand_by()
            return keep(run(host.broker), signals, host)


def _checked(actor: Actor, broker: str | None) -> Signals:
    """See that target and broker can be used, and listen to signals from then on: until then, one ends it at once.

    Raises:
        StartError: they cannot.
    """
    from .run import Signals, insist_on_broker

    _check(actor)
    if broker:
        insist_on_broker(broker)
    signals = Signals()
    signals.install()
    return signals
