"""Mirrors that no watcher runs for: what is left of them at brokers and in the state directories of this host, and its removal by
`autosync-ctl forget`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click

from ...errors import ConfigurationError, StartError, UnknownDefinition
from ...ledger import address
from ...model.mirror import Mirror
from ...model.text import listed, printable
from ...state.directory_contents import foreign_paths
from ...state.run_record import StoredMirror, state_directories, stored_mirrors
from ...state.state_file import StateFile, requests_file, state_files
from ...state.state_lock import LOCK, is_in_use, remove
from .mirrors import MirrorHandle, find_any_mirrors
from .status import table, target_of

#: The most foreign paths that are printed.
_MAX_FOREIGN = 20


@dataclass
class MirrorRemains:
    """What there is of one mirror, or of a state directory without one.

    Attributes:
        name: the mirror's name, or the directory's.
        handles: where brokers have it.
        stored: its state files.
        directories: the state directory, if it has no state file of any mirror.
        is_watched: whether a watcher runs for it. Without its broker, a directory that a process uses counts as watched.
    """

    name: str
    handles: list[MirrorHandle] = field(default_factory=list)
    stored: list[StoredMirror] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)
    is_watched: bool = False

    def ran_at(self) -> float | None:
        """When the mirror was last known to run, in seconds since the epoch; None if that is unknown."""
        times = [*(one.ran_at for one in self.stored), *(one.ledger.definition.ran_at() for one in self.handles)]
        return max((time for time in times if time is not None), default=None)

    def definition(self) -> Mirror | None:
        """The definition; None if it is lost, or if another version wrote it."""
        texts = [found.definition for one in self.handles if (found := one.ledger.definition.read())]
        for text in [*texts, *(one.definition for one in self.stored)]:
            with suppress(UnknownDefinition, ValueError):
                return Mirror.loads(text)
        return None

    def places(self) -> list[str]:
        """Where it is, in words for people."""
        return [*(address(one.broker) for one in self.handles), *map(str, sorted({*self._state_directories()}))]

    def listed(self) -> list[str]:
        """What `remove` removes, in words for people."""
        found = []
        for one in self.handles:
            stats = one.ledger.stats.read()
            found.append(f"all data at the broker {address(one.broker)}: {stats.dirty} dirty keys, {stats.failed} failed keys")
        for directory in sorted({*self._state_directories()}):
            place, foreign = printable(str(directory)), foreign_paths(directory)
            if not self._is_alone(directory):
                found.append(f"its files in the state directory, which has other mirrors, {place}")
            elif foreign:
                others = listed(foreign[:_MAX_FOREIGN], len(foreign))
                found.append(f"its files in the state directory {place}, which stays, since autosync has not made {others}")
            else:
                found.append(f"the state directory {place}")
        return found

    def kept_at(self) -> list[str]:
        """The addresses of brokers that were not asked and may have data of the mirror."""
        return sorted({one.broker for one in self.stored if one.broker and not self.handles})

    def remove(self) -> None:
        """Remove it.

        Raises:
            StartError: a process uses the state directory.
            BrokerError: a broker does not respond.
            OSError: files cannot be removed.
        """
        for one in self.handles:
            one.ledger.delete()
        for directory in sorted({*self._state_directories()}):
            if self._is_alone(directory) and not (self.handles and is_in_use(directory)):
                remove(directory)
                continue
            for file in (StateFile(directory, self.name), requests_file(directory, self.name)):
                file.remove()

    def _state_directories(self) -> list[Path]:
        return [*(one.directory for one in self.stored), *self.directories]

    def _is_alone(self, directory: Path) -> bool:
        """Whether no other mirror has its state in a directory."""
        return all(file.mirror == self.name for file in state_files(directory))


def remains_of_mirrors(found: Iterable[MirrorHandle], state: Path) -> list[MirrorRemains]:
    """What there is of all mirrors, sorted by name.

    Args:
        found: the mirrors of brokers.
        state: the directory with the state directories of this host.

    Raises:
        BrokerError: a broker does not respond.
    """
    remains: dict[str, MirrorRemains] = {}
    for handle in found:
        one = remains.setdefault(handle.name, MirrorRemains(handle.name))
        one.handles.append(handle)
        one.is_watched = one.is_watched or bool(handle.ledger.stats.read().holder)
    for stored in stored_mirrors(state):
        one = remains.setdefault(stored.name, MirrorRemains(stored.name))
        one.stored.append(stored)
        one.is_watched = one.is_watched or (not one.handles and is_in_use(stored.directory))
    for directory in state_directories(state):
        if (directory / LOCK).exists() and not state_files(directory):
            one = remains.setdefault(directory.name, MirrorRemains(directory.name))
            one.directories.append(directory)
            one.is_watched = one.is_watched or is_in_use(directory)
    return [one for _, one in sorted(remains.items())]


def stopped_mirror(remains: Iterable[MirrorRemains], name: str) -> MirrorRemains:
    """The mirror of a name, which no watcher runs for.

    Raises:
        StartError: there is none, or it is watched.
    """
    one = next((one for one in remains if one.name == name), None)
    if one is None:
        raise StartError(f"no mirror is called {name!r}", "see autosync-ctl mirrors --stopped; give its broker with --broker")
    if one.is_watched:
        raise StartError(
            f"mirror {name} is watched by a running autosync", "stop that first; its lock ends 15 s after its death, at the latest"
        )
    return one


def last_run_text(ran_at: float | None) -> str:
    """When a mirror ran last, for people."""
    return "unknown" if ran_at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(ran_at))


def list_stopped(broker: str | None, state: Path, name: str | None, *, as_json: bool) -> None:
    """Print the mirrors that have stopped: `autosync-ctl mirrors --stopped`.

    Args:
        broker: URL of the only broker to use; None for the embedded ones of this host.
        state: the directory with the state directories of this host.
        name: only the mirror of this name; None for all.
        as_json: one JSON list, for programs.

    Raises:
        BrokerError: a broker does not respond.
    """
    remains = remains_of_mirrors(find_any_mirrors(broker, state, name), state)
    found = [(one, one.definition()) for one in remains if not one.is_watched and name in (None, one.name)]
    if as_json:
        click.echo(json.dumps([
            {
                "mirror": one.name, "target": target_of(mirror) if mirror else None, "ran_at": one.ran_at(), "places": one.places(),
                "sources": [source.path for source in mirror.sources] if mirror else [],
            }
            for one, mirror in found
        ]))  # fmt: skip
        return
    rows = [
        [one.name, target_of(mirror) if mirror else "-", f"ran last: {last_run_text(one.ran_at())}", ", ".join(one.places())]
        for one, mirror in found
    ]
    for line in table(rows):
        click.echo(printable(line))
    if not rows:
        click.echo("no mirror has stopped")


@click.command(
    "forget",
    help="Remove all data of a mirror without a watcher: at the broker, and its state directory on this host. Lists it first, and asks. "
    "The target stays as it is.",
)
@click.argument("mirror", metavar="[NAME]", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def forget(context: click.Context, mirror: str | None, yes: bool) -> None:
    broker, state, named = context.obj
    name = mirror if mirror is not None else named
    if name is None:
        raise ConfigurationError("forget takes no mirror by chance", "name it: autosync-ctl forget NAME")
    one = stopped_mirror(remains_of_mirrors(find_any_mirrors(broker, state, name), state), name)
    for line in one.listed():
        click.echo(f"{name}: {line}")
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError("forget asks before it goes on, and there is no terminal", "give --yes")
        click.confirm("Remove this?", abort=True)
    elsewhere = one.kept_at()
    one.remove()
    click.echo(f"{name} is forgotten")
    for place in elsewhere:
        click.echo(f"its broker {place} may have data of it: autosync-ctl --broker {place} forget {name}", err=True)
