"""The modules of actors' classes: where Python finds them, and by which names worker processes import them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ..actor import Actor
from ..errors import ConfigurationError
from ..process import installation_path, search_path

log = logging.getLogger(__name__)


def set_search_path(own_class: type[Actor] | None, actors: Sequence[str], paths: Sequence[str]) -> None:
    """Let Python find modules of the user's, but none in a mirrored directory.

    Args:
        own_class: a class of the caller's.
        actors: the names of the actors.
        paths: the mirrored directories and files.

    Raises:
        ConfigurationError: an actor's module is in a mirrored directory, or does not exist.
    """
    script = file_of(own_class)
    modules = [name for name in actors if "." in name]
    installation_path.search_others_last()
    search_path.leave_out(paths)
    directories = [os.path.dirname(script)] if script else []
    directories += [os.getcwd()] if own_class or modules else []
    for directory in dict.fromkeys(directories):
        around = search_path.source_around(directory, paths)
        if around is None:
            search_path.append(directory)
            continue
        if script and directory == directories[0]:
            log.warning("of %s only %s itself is loaded, since %s is mirrored", directory, os.path.basename(script), around)
        for name in modules if own_class is None else ():
            if find_spec(name.partition(".")[0]) is None:
                raise ConfigurationError(
                    f"actor {name!r}: no module is loaded from {directory}, since {around} is mirrored",
                    "start in another directory, or have PYTHONPATH name one outside",
                )


def file_of(actor: type[Actor] | None) -> str | None:
    """The file of the module that defines a class; None if there is none, or if the module is part of a package."""
    file = getattr(sys.modules.get(actor.__module__), "__file__", None) if actor else None
    return os.path.abspath(file) if actor and file and "." not in actor.__module__ else None


def importable_name(actor: type[Actor]) -> str:
    """The name `module.Class` by which a worker process imports a class, also one in the program's main file."""
    module = actor.__module__
    if module == "__main__":
        file = file_of(actor)
        if file is None:
            raise ConfigurationError(
                f"{actor.__name__} is defined in an interactive session", "put it into a file: worker processes import it"
            )
        module = Path(file).stem
    return f"{module}.{actor.__name__}"
