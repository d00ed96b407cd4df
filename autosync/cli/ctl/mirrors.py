"""Finds mirrors: those of one broker, or of all embedded brokers on this host."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...broker.embedded_valkey import embedded_brokers
from ...errors import BrokerError, ConfigurationError, StartError, UnknownDefinition
from ...ledger import Ledger, address, connect, mirror_names
from ...model.mirror import Mirror
from ...process import installation_path, search_path


@dataclass(frozen=True)
class MirrorHandle:
    """A mirror at a broker.

    Attributes:
        name: the mirror's name.
        broker: URL.
        ledger: the mirror's ledger.
    """

    name: str
    broker: str
    ledger: Ledger

    def mirror(self) -> Mirror:
        """The definition of the mirror.

        Raises:
            StartError: there is no definition any more, or another version of autosync wrote it.
        """
        found = self.ledger.definition.read()
        if found is None:
            raise StartError(f"mirror {self.name} has no definition at {address(self.broker)}", "start its autosync-watch again")
        try:
            return Mirror.loads(found[0])
        except UnknownDefinition as error:
            raise StartError(f"the definition of mirror {self.name} cannot be read: {error.what}", error.cure) from error
        except ValueError as error:
            raise StartError(
                f"the definition of mirror {self.name} cannot be read: {error}", "use the same version of autosync on all hosts"
            ) from error


def find_any_mirrors(broker: str | None, state: Path, name: str | None) -> list[MirrorHandle]:
    """As `find_mirrors`, but the list may be empty."""
    found = _at(broker) if broker else [one for url in embedded_brokers(state) for one in _quietly_at(url)]
    return sorted((one for one in found if name in (None, one.name)), key=lambda one: one.name)


def find_mirrors(broker: str | None, state: Path, name: str | None) -> list[MirrorHandle]:
    """All mirrors of a broker or of this host, sorted by name.

    Args:
        broker: URL of one broker; None for the embedded ones below `state`.
        state: the state directory of this host.
        name: only the mirror of this name; None for all.

    Raises:
        StartError: there is no mirror, or none of that name.
        BrokerError: the broker does not respond.
        ConfigurationError: the URL is malformed.
    """
    found = find_any_mirrors(broker, state, name)
    if not found:
        raise no_mirror(f"at {address(broker)}" if broker else f"below {state}", name)
    return found


def no_mirror(where: str, name: str | None) -> StartError:
    """The error that there is no mirror, or none of a name, at a place."""
    what = f"no mirror is called {name!r}" if name is not None else "no mirror was found"
    return StartError(f"{what} {where}", "start its autosync, or give its broker with --broker")


def single_mirror(found: list[MirrorHandle]) -> MirrorHandle:
    """The only mirror in a list, for commands on one mirror.

    Raises:
        ConfigurationError: there are several mirrors.
    """
    if len(found) > 1:
        raise ConfigurationError(f"there are {len(found)} mirrors: {', '.join(one.name for one in found)}", "name one with --name")
    return found[0]


def search_outside_sources(found: Iterable[MirrorHandle]) -> dict[str, str]:
    """Let Python find modules of the user's, such as that of an actor, but none in a mirrored directory.

    Args:
        found: all mirrors. Those whose definitions this version cannot read are ignored.

    Returns:
        The directories that are left out, each with the source that it is in.
    """
    sources: list[str] = []
    for one in found:
        with suppress(StartError):
            sources += [source.path for source in one.mirror().sources]
    installation_path.search_others_last()
    return search_path.leave_out(sources, here=False)


def _at(url: str) -> list[MirrorHandle]:
    client = connect(url)
    return [MirrorHandle(name, url, Ledger(client, name)) for name in mirror_names(client)]


def _quietly_at(url: str) -> list[MirrorHandle]:
    with suppress(BrokerError):  # the address of a broker that was killed
        return _at(url)
    return []
