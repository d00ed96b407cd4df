"""One file or folder for each kind of target. `load` finds a class by its short name, or one of the user's by `module.Class`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from ..actor import Actor, as_actor, secret_names
from ..errors import ConfigurationError
from ..model.mirror import Mirror
from ..model.secrets import redacted, secret_of


def short_names() -> list[str]:
    """The short names of the actors in this folder."""
    found = (entry.name for entry in files(__package__).iterdir() if entry.is_dir() or entry.name.endswith(".py"))
    return sorted(name.removesuffix(".py") for name in found if not name.startswith("_"))


def load(name: str) -> type[Actor]:
    """Find an actor class.

    Args:
        name: a short name, which is that of a file or folder here that defines one class; or `module.Class`.

    Raises:
        ConfigurationError: there is no such class, it cannot be imported, or it is no `Actor`.
    """
    ours = "." not in name
    module_name, _, class_name = (f"{__package__}.{name}", "", "") if ours else name.rpartition(".")
    advice = f"known are {', '.join(short_names())}, or module.Class of your own"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigurationError(f"there is no actor {name!r}", advice) from error
        package = f"'autosync[{name}]'" if ours else str(error.name).partition(".")[0]
        raise ConfigurationError(f"actor {name!r} needs the module {error.name!r}", f"install it with: pip install {package}") from error
    except Exception as error:  # a user's module may fail in any way
        raise ConfigurationError(f"actor {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if ours:
        found = [
            value for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Actor) and value.__module__ == module_name
        ]  # fmt: skip
        if len(found) != 1:
            raise ConfigurationError(f"there is no actor {name!r}", advice)
        return found[0]
    found_class = getattr(module, class_name, None)
    if not isinstance(found_class, type):
        raise ConfigurationError(f"{name} is not a subclass of autosync.Actor", advice)
    return as_actor(found_class)


def actor_of(mirror: Mirror, secrets: Mapping[str, Any], cure: str) -> Actor:
    """Make the actor of a mirror, with the secrets of this host.

    Args:
        mirror: has the name of the actor, and its settings.
        secrets: see `secret_of`.
        cure: the advice in the error for a missing secret; {} is replaced by the name of the option.

    Raises:
        ConfigurationError: a secret is missing, or a setting cannot be used.
    """
    actor_class = load(mirror.actor)
    found = {option: secret_of(secrets, mirror.name, option) for option in secret_names(actor_class)}
    for option in sorted(found):
        if found[option] is None and option in mirror.secrets:
            raise ConfigurationError(f"there is no value for the secret option {option}", cure.format(option))
    try:
        return actor_class(**{**mirror.settings, **found})
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # settings of another type, or that the actor does not have
        raise ConfigurationError(
            f"actor {mirror.actor!r} cannot use its settings: {redacted(f'{type(error).__name__}: {error}', found.values())}",
            "start its autosync-watch again, with the same version of autosync on all hosts",
        ) from error
