"""One file or folder for each kind of target. `load` finds a class by its short name, or a user's by `module.Class`."""

from __future__ import annotations

import importlib
from importlib.resources import files

from ..actor import Actor
from ..errors import ConfigurationError


def short_names() -> list[str]:
    """The short names of the actors in this folder."""
    found = (entry.name for entry in files(__package__).iterdir() if entry.is_dir() or entry.name.endswith(".py"))
    return sorted(name.removesuffix(".py") for name in found if not name.startswith("_"))


def load(name: str) -> type[Actor]:
    """Find an actor class.

    Args:
        name: a short name (the file or folder here; its class is the one that it defines), or `module.Class`.

    Raises:
        ConfigurationError: there is no such class, it cannot be imported, or it is no `Actor`.
    """
    ours = "." not in name
    module_name, _, class_name = (f"{__package__}.{name}", "", "") if ours else name.rpartition(".")
    known = f"known are {', '.join(short_names())}, or module.Class of your own"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigurationError(f"there is no actor {name!r}", known) from error
        raise ConfigurationError(f"actor {name!r} needs the module {error.name!r}", "install it with pip") from error
    except Exception as error:  # a user's module may fail in any way
        raise ConfigurationError(f"actor {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if ours:
        found = [
            value for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Actor) and value.__module__ == module_name
        ]  # fmt: skip
        if len(found) != 1:
            raise ConfigurationError(f"there is no actor {name!r}", known)
        return found[0]
    found_class = getattr(module, class_name, None)
    if not (isinstance(found_class, type) and issubclass(found_class, Actor)):
        raise ConfigurationError(f"{name} is not a subclass of autosync.Actor", known)
    return found_class
