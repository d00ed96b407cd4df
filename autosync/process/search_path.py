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
        sources: paths of mirrored directories; those that do not exist are compared by their paths.
    """
    by_path = {os.path.realpath(source): source for source in sources}
    by_identity: dict[tuple[int, int] | None, str] = {found: source for path, source in by_path.items() if (found := _identity(path))}
    real = Path(os.path.realpath(directory))
    around = (by_path.get(str(one)) or by_identity.get(_identity(one)) for one in (real, *real.parents))
    return next(filter(None, around), None)


def entries_within(sources: Iterable[str]) -> dict[str, str]:
    """The entries of the search path that are in a source, each with that source; none of those of Python's own installation.

    Args:
        sources: paths of mirrored directories.
    """
    sources, installed = tuple(sources), _installation()
    found = {entry: source_around(entry, sources) for entry in sys.path if not _is_within(entry, installed)}
    return {entry: source for entry, source in found.items() if source is not None}


def leave_out(sources: Iterable[str], *, here: bool = True) -> dict[str, str]:
    """Remove all directories in a source from the search path, except those of Python's own installation.

    Args:
        sources: paths of mirrored directories.
        here: remove the current directory as well.

    Returns:
        The directories in a source, each with that source.
    """
    found = entries_within(sources)
    removed = set(found)
    if here:
        current, installed = os.path.realpath(os.getcwd()), _installation()
        removed |= {entry for entry in sys.path if os.path.realpath(entry) == current and not _is_within(entry, installed)}
    sys.path[:] = [entry for entry in sys.path if entry not in removed]
    return found


def leave_out_directory_of_program() -> None:
    """Remove the directory of this process's program, which Python puts first: that of an installed command holds no modules."""
    program = os.path.dirname(os.path.realpath(sys.argv[0]))
    sys.path[:] = [entry for entry in sys.path if not entry or os.path.realpath(entry) != program]


def append(directory: str) -> None:
    """Append a directory to the search path."""
    if directory not in sys.path:
        sys.path.append(directory)


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


def _is_within(entry: str, directories: Iterable[str]) -> bool:
    real = os.path.realpath(entry)
    return any(real == directory or real.startswith(directory + os.sep) for directory in directories)


def _installation() -> set[str]:
    """The directories of Python and its packages, and of autosync, which `pip install --target` puts into a directory with what it needs.
    They may be in a source: `autosync ~` mirrors ~/.local/lib, too."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    packages = (*site.getsitepackages(), site.getusersitepackages(), own_directory(), _zipped_library())
    return {os.path.realpath(path) for path in (*map(sysconfig.get_path, names), *packages)}


def _zipped_library() -> str:
    """The archive that Python searches before the directory of its standard library, whether it exists or not."""
    return f"{os.path.dirname(sysconfig.get_path('stdlib'))}/python{sys.version_info.major}{sys.version_info.minor}.zip"
