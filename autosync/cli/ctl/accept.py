"""`autosync-ctl accept`: lists what is pending in mirrors, and requests its acceptance from the watchers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ...errors import ConfigurationError
from ...ledger import address
from ...state.pending import ItemKind, PendingItem, pending_in_file, pending_in_ledger, request_in
from ...state.state_file import requests_file, state_files
from .mirrors import MirrorHandle, find_any_mirrors, no_mirror


@dataclass(frozen=True)
class PendingItems:
    """The pending items of one mirror.

    Attributes:
        mirror: the mirror's name.
        items: the items.
        request: requests the acceptance of some of the items.
    """

    mirror: str
    items: tuple[PendingItem, ...]
    request: Callable[[Iterable[PendingItem]], None]

    def of_kinds(self, kinds: Sequence[ItemKind]) -> PendingItems:
        """The items of some kinds only; all of them if no kind is given."""
        return PendingItems(self.mirror, tuple(item for item in self.items if not kinds or item.kind in kinds), self.request)


def pending_of_mirrors(found: Iterable[MirrorHandle], broker: str | None, state: Path, name: str | None) -> list[PendingItems]:
    """The pending items of mirrors, sorted by the mirrors' names.

    Args:
        found: the mirrors whose broker was reached.
        broker: URL of the broker that was given; None for the embedded ones below `state`.
        state: the state directory of this host. Mirrors that are not among the others are found there.
        name: only the mirror of this name; None for all.

    Raises:
        BrokerError: a broker does not respond.
        StartError: there is no mirror, or none of that name.
    """
    all_ = {one.name: _in_ledger(one) for one in found}
    for file in (file for directory in _directories(state) for file in state_files(directory)):
        if file.mirror not in all_ and name in (None, file.mirror):
            all_[file.mirror] = _in_file(file.path.parent, file.mirror, tuple(pending_in_file(file)))
    if not all_:
        raise no_mirror(f"at {address(broker)} or below {state}" if broker else f"below {state}", name)
    return [one for _, one in sorted(all_.items()) if one.items]


def grown(listed: PendingItems, now: PendingItems | None) -> bool:
    """Whether more is pending than what was listed."""
    return now is not None and not all(any(item.is_covered_by(one) for one in listed.items) for item in now.items)


@click.command(
    "accept",
    help="Accept what waits for it: keys that the target held before the mirror, deletions that were withheld, a root or a mount that has "
    "changed. Lists it first, and asks. Also for a mirror that is not running: its next start does it.",
)
@click.option("--existing", is_flag=True, help="Only keys that the target held before the mirror.")
@click.option("--deletions", is_flag=True, help="Only deletions that were withheld.")
@click.option("--root", is_flag=True, help="Only roots that have changed.")
@click.option("--mount", is_flag=True, help="Only mounts that have changed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def accept(context: click.Context, /, yes: bool, **chosen: bool) -> None:
    broker, state, name = context.obj
    kinds = [ItemKind(kind) for kind, is_chosen in chosen.items() if is_chosen]
    listed: dict[str, PendingItems] = {}
    while True:
        found = {one.mirror: one.of_kinds(kinds) for one in pending_of_mirrors(find_any_mirrors(broker, state, name), broker, state, name)}
        found = {mirror: one for mirror, one in found.items() if one.items}
        if not found:
            click.echo("nothing waits for acceptance")
            return
        if listed and not any(grown(listed[mirror], one) if mirror in listed else True for mirror, one in found.items()):
            break
        for mirror, one in found.items():
            for item in one.items:
                click.echo(f"{mirror}: {item.text()}")
        listed = found
        if not yes:
            if not sys.stdin.isatty():
                raise ConfigurationError("accept asks before it goes on, and there is no terminal", "give --yes")
            click.confirm("Accept this?", abort=True)
    for mirror, one in found.items():
        one.request(one.items)
        click.echo(f"{mirror}: accepted; its watcher goes on within a second, after the scan that is running, or at its next start")


def _in_ledger(one: MirrorHandle) -> PendingItems:
    def request(items: Iterable[PendingItem]) -> None:
        for item in items:
            one.ledger.requests.request_accept(item.dumps())

    return PendingItems(one.name, tuple(pending_in_ledger(one.ledger.sync_state.pending())), request)


def _in_file(directory: Path, mirror: str, items: tuple[PendingItem, ...]) -> PendingItems:
    return PendingItems(mirror, items, lambda some: request_in(requests_file(directory, mirror), some))


def _directories(state: Path) -> list[Path]:
    try:
        return sorted(path for path in state.iterdir() if path.is_dir())
    except OSError:
        return []
