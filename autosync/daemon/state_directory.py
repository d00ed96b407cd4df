"""The directory in which autosync keeps the state of a mirror: it is created with a mark, and left out of the sources."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigurationError, StartError
from ..model import state_directory_mark as state_mark
from ..model.keys import Source
from ..model.paths import is_at_or_below, slashed


def state_directory(base: Path, mirror: str) -> Path:
    """The directory for the state of a mirror, which is created if it is missing.

    Raises:
        StartError: it cannot be created or written.
    """
    directory = base / mirror
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _mark(directory)
        with open(directory / "lock", "a", encoding="utf-8"):
            pass
    except OSError as error:
        raise StartError(f"state directory {directory} cannot be written: {error.strerror}", "give another with --state-dir") from error
    return directory


def _mark(directory: Path) -> None:
    """Mark a state directory before anything else is in it. The mark appears as a whole; until then it has a temporary name."""
    mark, temporary = directory / state_mark.NAME, directory / f".autosync-{os.urandom(8).hex()}"
    if not mark.exists():
        temporary.write_text(state_mark.TEXT, encoding="utf-8")
        temporary.rename(mark)


def state_within(sources: Sequence[Source], base: Path, mirror: str) -> tuple[str, ...]:
    """The directories in the sources with autosync's own state: `base` as a whole, since other mirrors may have theirs in it.

    Args:
        sources: the mirror's sources.
        base: the directory with a state directory for each mirror; may be missing.
        mirror: name of the mirror.

    Raises:
        ConfigurationError: such a directory contains other files too.
    """
    found: list[str] = []
    real_base, own = os.path.realpath(base), os.path.realpath(base / mirror)
    for source in sources:
        below = _path_below(real_base, source.path)
        if below:
            found += [slashed(source.path) + below]
            if is_at_or_below(str(base), source.path):  # its path may lead through a link
                found += [str(base)]
        elif _path_below(own, source.path) is not None or _path_below(os.path.realpath(source.path), own) is not None:
            raise ConfigurationError(
                f"the state directory {base / mirror} and the source {source.path} lie in one another", "give another with --state-dir"
            )
    if found:
        _refuse_foreign_files(base)
    return tuple(dict.fromkeys(found))


def _refuse_foreign_files(base: Path) -> None:
    """Raise `ConfigurationError` if the directory contains anything but state: directories with a mark or a lock, or empty ones."""
    try:
        with os.scandir(base) as entries:
            for entry in entries:
                if not entry.is_dir() or (os.listdir(entry) and not _is_state(entry.path)):
                    raise ConfigurationError(
                        f"the state directory {base} lies in the source and would be left out, but {entry.path} is no state of autosync's",
                        "give a directory of its own with --state-dir",
                    )
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(
            f"state directory {error.filename or base} cannot be read: {error.strerror}", "give another with --state-dir"
        ) from error


def _is_state(directory: str) -> bool:
    return any(os.path.isfile(f"{directory}/{name}") for name in (state_mark.NAME, "lock"))


def _path_below(path: str, directory: str) -> str | None:
    """The part of a path that is below a directory, also where that is mounted elsewhere as well.

    Args:
        path: without links; may be missing.
        directory: may be missing.

    Returns:
        "" if both are the same directory; None if the path is not in the directory.
    """
    for above in (Path(path), *Path(path).parents):
        with suppress(OSError):
            if os.path.samefile(above, directory):
                return path[len(slashed(str(above))) :]
    real = os.path.realpath(directory)
    return path[len(slashed(real)) :] if is_at_or_below(path, real) else None
