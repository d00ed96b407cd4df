"""What the options of a command describe: mirrors with their policies, limits and actors."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any

from .. import logs
from ..actor import Actor, secret_names
from ..compare.delete_limit import DeleteLimit
from ..compare.diff import Compare
from ..compare.scan import Policy
from ..errors import ConfigurationError, PermanentError
from ..model.file_rules import parse_size_bounds
from ..model.limits import Limits
from ..model.mirror import DEFAULT_QUEUE, LONGEST_LEASE, SHORTEST_LEASE, Mirror, is_lease
from ..model.paths import is_at_or_below
from ..process.boot_id import file_view
from .options import sources_of


@dataclass(frozen=True)
class Plan:
    """One mirror as the options describe it. `secrets`: values of secret options by name; `accept_existing`: see `RunSettings`."""

    mirror: Mirror
    policy: Policy
    limits: Limits
    actor: Actor
    secrets: dict[str, str]
    accept_existing: bool


def plan_of(actor_class: type[Actor], actor_name: str, values: dict[str, Any], name: str | None) -> Plan:
    """Configure the logs, check the values of the options, and make the plan that they describe.

    Args:
        actor_class: the class of the target's actor; it is constructed with the values of its options.
        actor_name: the name by which workers load this class.
        values: the values of the options, by name.
        name: the mirror's name, "" for a name made from the target; None for the name in the options.

    Raises:
        ConfigurationError: a value cannot be used.
    """
    verbosity = -1 if values["quiet"] else values["verbose"]
    logs.configure(values["log_format"], verbosity)
    settings = {str(option.name): values[str(option.name)] for option in actor_class.options}
    settings["target_container"] = values["target_container"]
    secrets = {option: values[option] for option in secret_names(actor_class)}
    actor = actor_class(**settings)
    # The values after the constructor: for example, a relative path would be useless to a worker in another directory.
    public = {option: getattr(actor, option) for option in settings if option not in secrets}
    set_secrets = {option: value for option, value in secrets.items() if value is not None}
    mirror = _mirror(actor_name, actor, public, tuple(sorted(set_secrets)), {**values, "name": values["name"] if name is None else name})
    limits = Limits.parse(values["limit_requests"], values["limit_bandwidth"], values["limit_inflight"])
    if mirror.threads == 1 and values["limit_inflight"] is None:
        limits = replace(limits, inflight=1)  # one at a time in the whole fleet
    policy = Policy(mirror.delete, _limit(values["max_delete"]), Compare(values["compare"]), mirror.file_rules)
    return Plan(mirror, policy, limits, actor, set_secrets, values["accept_existing"])


def _mirror(actor_name: str, actor: Actor, settings: dict[str, Any], secrets: tuple[str, ...], values: dict[str, Any]) -> Mirror:
    sources = sources_of(values["paths"])
    name = valid_name(values["name"] or _default_name(actor_name, settings, values["target_prefix"]))
    min_size, max_size = parse_size_bounds(values["min_size"], values["max_size"])
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
        secrets=secrets,
        delete=values["delete"],
        threads=values["threads"],
        attempts=values["attempts"],
        queue=_queue(values["queue"] or f"{DEFAULT_QUEUE}.{name}"),
        host=file_view(),
        lease=_lease(values["lease"]),
        min_size=min_size,
        max_size=max_size,
        one_file_system=values["one_file_system"],
        max_links=values["max_links"],
        target_exclude=tuple(values["target_exclude"]),
        overlap=tuple(sorted({valid_name(other, "--overlap") for other in values["overlap"]})),
    )
    keys = mirror.keys()  # raises ConfigurationError for wrong prefixes and expressions
    if not keys.spans(""):
        raise ConfigurationError(f"--target-exclude {min(mirror.target_exclude)!r} leaves out everything", "give a longer prefix")
    _check_prefix(mirror, actor)
    for source in sources:
        target = actor.directory and (actor.directory.rstrip("/") or "/")
        if target and (is_at_or_below(target, source.path) or is_at_or_below(source.path, target)):
            raise ConfigurationError(
                f"the target {target} and the source {source.path} lie in one another", "mirror to a directory outside"
            )
    return mirror


def _check_prefix(mirror: Mirror, actor: Actor) -> None:
    """Refuse a prefix with which the target can have no object. A key that is refused without it too is reported by itself.

    Raises:
        ConfigurationError: keys of a source are refused for the prefix.
    """
    prefix = mirror.target_prefix
    for span in mirror.keys().spans("") if prefix else ():
        key = span.prefix if span.only else f"{span.prefix}x"
        reason = _refusal(actor, key)
        if reason and not _refusal(actor, key.removeprefix(prefix)):
            raise ConfigurationError(f"--target-prefix {prefix!r} cannot be used: {reason}", "give another prefix")


def _refusal(actor: Actor, key: str) -> str:
    """Why the target can have no object with this key; "" if it can."""
    try:
        actor.check_key(key)
    except PermanentError as error:
        return error.what
    return ""


def valid_name(name: str, option: str = "--name") -> str:
    """Check a name that will be part of the names of files and workers. Returns it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigurationError(f"{option} {name!r} cannot be used", "take up to 100 letters, digits, '.', '_' and '-'")
    return name


def _queue(name: str) -> str:
    """Check the name of a queue, in which commas and colons have a meaning for Celery and kombu. Returns it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
        raise ConfigurationError(f"--queue {name!r} cannot be used", "take up to 200 letters, digits, '.', '_' and '-'")
    return name


def _lease(seconds: float) -> float:
    if not is_lease(seconds):
        raise ConfigurationError(f"--lease {seconds:g} cannot be used", f"take {SHORTEST_LEASE:g} to {LONGEST_LEASE:g} seconds")
    return seconds


def _default_name(actor_name: str, settings: dict[str, Any], prefix: str) -> str:
    """A readable name made from the target, with a hash that distinguishes targets with similar names."""
    parts = [actor_name.rpartition(".")[2], settings.get("target_container") or settings.get("url") or "", prefix]
    exact = "\0".join([*map(str, parts), str(settings.get("endpoint_url") or "")])
    readable = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(filter(None, map(str, parts)))).strip("-")[:60]
    return f"{readable}-{hashlib.sha256(exact.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


def _limit(text: str | None) -> DeleteLimit:
    return DeleteLimit() if text is None else DeleteLimit.parse(text)
