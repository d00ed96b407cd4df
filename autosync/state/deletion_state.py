"""Stores over restarts what limits the deletions of a mirror's scans: whether it is accepted, and which deletions are withheld."""

from __future__ import annotations

from ..ledger import Ledger
from ..model.mirror import Mirror
from ..model.withheld import Withheld
from .acceptance import AcceptanceStore
from .pending import ItemKind, PendingItem, PendingStore
from .state_file import StateFile

_WITHHELD = "withheld_deletions"


class DeletionState:
    """The limits of one mirror's deletions, in its ledger and in its state file. If one of the two is lost, the limits stay.

    Args:
        mirror: the mirror's definition.
        ledger: the mirror's ledger.
        file: the state file.
        signing_key: see `model.definition_signature`; "": nothing is signed.

    Attributes:
        mirror: the mirror's present definition.
        pending: what waits for an operator's acceptance.
    """

    def __init__(self, mirror: Mirror, ledger: Ledger, file: StateFile, signing_key: str = "") -> None:
        self.mirror = mirror
        self._sync_state = ledger.sync_state
        self._file = file
        self._acceptance = AcceptanceStore(mirror.name, ledger.sync_state, ledger.definition, file, signing_key)
        self.pending = PendingStore(ledger.sync_state, file)

    def is_accepted(self, mirror: Mirror) -> bool:
        """See `AcceptanceStore.is_accepted`."""
        return self._acceptance.is_accepted(mirror)

    def accept(self) -> None:
        """Store that scans with the present definition may delete.

        Raises:
            BrokerError: the broker does not respond.
        """
        self._acceptance.accept(self.mirror)

    def revoke(self) -> None:
        """See `AcceptanceStore.revoke`."""
        self._acceptance.revoke()

    def withheld(self) -> int:
        """The number of deletions that the last scan of the whole source has withheld while the mirror was accepted. If it is not 0, no
        scan deletes.

        Raises:
            BrokerError: the broker does not respond.
        """
        in_ledger = self._sync_state.withheld_deletions() if self._sync_state.accepted() else 0
        return max(in_ledger, withheld_in(self._file))

    def set_withheld(self, withheld: Withheld, *, accepted: bool) -> None:
        """Store the deletions that a scan of the whole source has withheld.

        Args:
            withheld: the keys.
            accepted: whether the mirror is accepted.

        Raises:
            BrokerError: the broker does not respond.
        """
        kind = ItemKind.DELETIONS if accepted else ItemKind.EXISTING
        count = withheld.count
        items = [PendingItem(kind, count=count, examples=withheld.examples, digest=withheld.digest)] if count else []
        self.pending.replace((ItemKind.DELETIONS, ItemKind.EXISTING), items)
        self._file.update(withheld_deletions=(count or None) if accepted else None)
        self._sync_state.set_withheld_deletions(count)
        self.pending.write()


def withheld_in(file: StateFile) -> int:
    """How many deletions are withheld, by the state file alone; see `DeletionState.withheld`."""
    found = file.read().get(_WITHHELD)
    return found if type(found) is int else 0
