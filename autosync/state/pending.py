"""The pending items, which wait for an operator's acceptance: keys that the target held before the mirror, withheld deletions, changed
roots and mounts.

They are stored in the ledger, for `autosync-ctl` on any host, and in the state file, for a mirror that is not running. Requests for their
acceptance come by the ledger, or by a file beside the state file.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ..errors import BrokerError
from ..ledger.sync_state import SyncState
from ..model.text import listed, printable
from .state_file import StateFile

#: Fields of the state file.
_PENDING, _ACCEPTED = "pending", "accepted"
#: Field of the file with requests.
_ACCEPT = "accept"


class ItemKind(StrEnum):
    """The kind of an item."""

    #: Keys that the target held before the mirror.
    EXISTING = "existing"
    #: Deletions of a mirror that is accepted.
    DELETIONS = "deletions"
    #: The root of a source, which is another directory than before.
    ROOT = "root"
    #: A mount point below a root, where another file system is mounted than before, or none.
    MOUNT = "mount"


@dataclass(frozen=True)
class PendingItem:
    """One pending item.

    Attributes:
        kind: the kind of the item.
        path: the path of a root or a mount point; "" for keys.
        count: number of keys. For a root or a mount: of the keys below it that are kept.
        examples: some of these keys. For a root or a mount: the reason, as the end of a sentence about its path.
        digest: identifies the set of these keys.
    """

    kind: ItemKind
    path: str = ""
    count: int = 0
    examples: tuple[str, ...] = ()
    digest: str = ""

    @property
    def name(self) -> str:
        """Identifies the item in its mirror."""
        return f"{self.kind.value} {self.path}".rstrip()

    def is_covered_by(self, listed: PendingItem) -> bool:
        """Whether this is the same item as one that was listed for an operator, with the same keys."""
        return self.name == listed.name and self.digest == listed.digest

    def text(self) -> str:
        """The item in words, for people."""
        keys, are = (f"{self.count} keys", "are") if self.count != 1 else ("1 key", "is")
        match self.kind:
            case ItemKind.EXISTING:
                return f"{keys} that the target held before this mirror: {listed(self.examples, self.count)}"
            case ItemKind.DELETIONS:
                return f"{keys} that {are} gone from the source: {listed(self.examples, self.count)}"
            case _:
                reasons = ", ".join(map(printable, self.examples))
                return f"{self.kind.value} {printable(self.path)} {reasons}; {keys} of the target {are} kept for that"

    def dumps(self) -> str:
        """The item as JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def parse(found: object) -> PendingItem | None:
    """The item that `PendingItem.dumps` has written, from text or from a value of JSON; None if it is something else."""
    try:
        fields: Any = json.loads(found) if isinstance(found, str) else found
        kind, path, count, examples, digest = (fields[name] for name in ("kind", "path", "count", "examples", "digest"))
        item = PendingItem(ItemKind(kind), path, count, tuple(examples), digest)
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    is_valid = type(count) is int and all(isinstance(one, str) for one in (path, digest, *item.examples))
    return item if is_valid else None


class PendingStore:
    """The pending items of one mirror, for its watcher. Safe to use from many threads.

    Args:
        sync_state: the mirror's state in the ledger.
        file: the state file.
    """

    def __init__(self, sync_state: SyncState, file: StateFile) -> None:
        self._sync_state = sync_state
        self._file = file
        self._items: dict[str, PendingItem] = {}
        self._lock = threading.Lock()
        #: Held while the items are written, so that an older state is not written last.
        self._writing = threading.Lock()
        self._is_written = False

    def replace(self, kinds: Iterable[ItemKind], items: Iterable[PendingItem]) -> None:
        """Replace the items of some kinds. `write` stores the new ones.

        Args:
            kinds: these kinds; items of other kinds stay.
            items: the items that are pending now.
        """
        gone = frozenset(kinds)
        with self._lock:
            kept = {name: item for name, item in self._items.items() if item.kind not in gone}
            after = {**kept, **{item.name: item for item in items}}
            if after != self._items:
                self._items, self._is_written = after, False

    def write(self) -> None:
        """Store the items if they have changed since the last call.

        Raises:
            BrokerError: the broker does not respond. The next call tries again.
        """
        with self._writing:
            with self._lock:
                if self._is_written:
                    return
                items = dict(self._items)
                self._is_written = True
            self._file.update(pending=[asdict(item) for item in items.values()] or None)
            try:
                self._sync_state.set_pending({name: item.dumps() for name, item in items.items()})
            except BrokerError:
                self._is_written = False
                raise

    def rewrite(self) -> None:
        """Let the next `write` store all items again: the broker has lost its memory."""
        self._is_written = False


def pending_in_file(file: StateFile) -> list[PendingItem]:
    """The pending items of a mirror, according to its state file."""
    return _parsed(file.read().get(_PENDING))


def pending_in_ledger(stored: Mapping[str, str]) -> list[PendingItem]:
    """The pending items of a mirror, according to its ledger."""
    return sorted(_parsed(list(stored.values())), key=lambda item: item.name)


def request_in(requests: StateFile, items: Iterable[PendingItem]) -> None:
    """Request the acceptance of items in the file with requests, for a watcher that does not run or whose broker does not respond.
    Earlier requests stay."""
    requested = {item.name: item for item in [*_parsed(requests.read().get(_ACCEPT)), *items]}
    requests.update(accept=[asdict(item) for item in requested.values()])


@contextmanager
def consume_requests(requests: StateFile) -> Iterator[list[PendingItem]]:
    """The items that an operator has accepted in the file with requests. They are removed from it at the end of the with-block."""
    with requests.consume() as found:
        yield _parsed(found.get(_ACCEPT))


class AcceptedItems:
    """The items that an operator has accepted until they are carried out, in the state file: a watcher that is killed carries them out at
    its next start. Not safe to use from many threads.

    Where the file cannot be written or is lost, they are pending again.

    Args:
        file: the state file.
    """

    def __init__(self, file: StateFile) -> None:
        self._file = file
        self._items: list[PendingItem] = []

    def __iter__(self) -> Iterator[PendingItem]:
        return iter(tuple(self._items))

    def load(self) -> None:
        """Load the items that an earlier process has left."""
        self._items = _parsed(self._file.read().get(_ACCEPTED))

    def add(self, items: Iterable[PendingItem]) -> None:
        """Store items. Those that are stored already stay as they are."""
        self._replace([*self._items, *(item for item in items if item not in self._items)])

    def remove(self, items: Iterable[PendingItem]) -> None:
        """Remove items that are carried out, or can never be."""
        gone = list(items)
        self._replace([item for item in self._items if item not in gone])

    def _replace(self, items: list[PendingItem]) -> None:
        if items != self._items:
            self._items = items
            self._file.update(accepted=[asdict(item) for item in items] or None)


def _parsed(found: object) -> list[PendingItem]:
    items = [parse(one) for one in found] if isinstance(found, list) else []
    return [item for item in items if item is not None]
