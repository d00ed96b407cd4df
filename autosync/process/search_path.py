"""Keeps mirrored directories out of Python's search path: otherwise Python could run files that are uploaded there."""

from __future__ import annotations

import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from .installation_path import own_directory


def source_around(directory: str, sources: Iterable[str]) -> str | None:
    """The source that contains a directory, or is that directory, also through links and mounts; None if there is none.

    Args:
        directory: path of a directory that need not exist.
        sources: paths of mirrored directories; those that do not exist are ignored.
    """
    identities = {found: source for source in sources if (found := _identity(source))}
    real = Path(os.path.realpath(directory))
    return next((identities[found] for one in (real, *real.parents) if (found := _identity(one)) in identities), None)


def leave_out(sources: Iterable[str]) -> None:
    """Remove the current directory from the search path, and all directories in a source except those of Python's own installation."""
    sources = tuple(sources)
    here = os.path.realpath(os.getcwd())
    installed = _installation()

    def is_kept(entry: str) -> bool:
        real = os.path.realpath(entry)
        if any(real == own or real.startswith(own + os.sep) for own in installed):
            return True
        return real != here and source_around(real, sources) is None

    sys.path[:] = [entry for entry in sys.path if is_kept(entry)]


def append(directory: str) -> None:
    """Append a directory to the search path."""
    if directory not in sys.path:
        sys.path.append(directory)


def is_celery() -> bool:
    """Whether this process runs Celery's own command."""
    program = Path(sys.argv[0])
    return program.name == "celery" or program.parts[-2:] == ("celery", "__main__.py")


def search_current_directory_last() -> None:
    """Move the current directory to the end of the search path, if it is in the search path."""
    here = os.getcwd()
    others = [entry for entry in sys.path if entry not in ("", here)]
    sys.path[:] = [*others, here] if len(others) < len(sys.path) else others


def add_script(script: str) -> None:
    """Make the main file of a program importable under its own name, without its directory in the search path.

    Args:
        script: path of the file.
    """
    sys.meta_path.insert(0, _ScriptFinder(script))


class _ScriptFinder(MetaPathFinder):
    def __init__(self, script: str) -> None:
        self._script = script
        self._name = Path(script).stem

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._script, loader=_SourceLoader(fullname, self._script))


class _SourceLoader(SourceFileLoader):
    """Compiles a file each time, as Python does with the main file of a program. It neither reads nor writes __pycache__, where others may
    have put bytecode."""

    def path_stats(self, path: str) -> Any:
        """See `importlib.abc.SourceLoader`: a file of unknown age has no bytecode."""
        raise OSError("bytecode is not used")


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def _installation() -> set[str]:
    """The directories of Python and its packages, and of autosync, which `pip install --target` puts into a directory with what it needs.
    They may be in a source: `autosync ~` mirrors ~/.local/lib, too."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    packages = (*site.getsitepackages(), site.getusersitepackages(), own_directory())
    return {os.path.realpath(path) for path in (*map(sysconfig.get_path, names), *packages)}
