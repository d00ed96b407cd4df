"""Stores in the ledger and the state file whether a mirror is accepted, so that scans may delete in its target, and for which scope."""

from __future__ import annotations

import json
from typing import NamedTuple

from ..errors import UnknownDefinition
from ..ledger.definition import DefinitionStore
from ..ledger.sync_state import SyncState
from ..model.definition_signature import is_signed, sign
from ..model.mirror import Mirror
from .state_file import StateFile

#: Precedes the definition in the signed text, so that the signature of a definition is not valid for an acceptance.
_DOMAIN = "accepted\0"
_FIELD = "acceptance"


class _Acceptance(NamedTuple):
    """The definition with which a mirror was accepted, and its signature."""

    definition: str
    signature: str


class AcceptanceStore:
    """The acceptance of one mirror.

    Args:
        name: of the mirror.
        sync_state: of the mirror.
        definition: of the mirror, for ledgers that an older version has written.
        file: the state file.
        signing_key: see `model.definition_signature`; "": nothing is signed.
    """

    def __init__(self, name: str, sync_state: SyncState, definition: DefinitionStore, file: StateFile, signing_key: str) -> None:
        self._name = name
        self._sync_state = sync_state
        self._definition = definition
        self._file = file
        self._signing_key = signing_key

    def is_accepted(self, mirror: Mirror) -> bool:
        """Whether the mirror was accepted with this target, and with a scope that includes the mirror's. With a signing key, only an
        acceptance that was signed with it counts.

        Args:
            mirror: the definition.

        Raises:
            BrokerError: the broker does not respond.
        """
        if is_accepted_in(self._file, mirror, self._signing_key):
            return True
        stored = self._sync_state.acceptance()
        return self._was_accepted_before(mirror) if stored is None else _covers(stored, mirror, self._signing_key)

    def accept(self, mirror: Mirror) -> None:
        """Store that the mirror is accepted.

        Args:
            mirror: the definition.

        Raises:
            BrokerError: the broker does not respond. The state file is written.
        """
        definition = mirror.dumps()
        found = _Acceptance(definition, sign(self._signing_key, self._name, _DOMAIN + definition))
        self._file.update(acceptance=found._asdict())
        self._sync_state.set_accepted(json.dumps(found._asdict()))

    def revoke(self) -> None:
        """Store that the mirror is not accepted. Otherwise a mirror that returns to earlier sources or an earlier target would still be
        accepted, and would delete what it has sent meanwhile.

        Raises:
            BrokerError: the broker does not respond. The state file is written.
        """
        self._file.update(acceptance=None)
        self._sync_state.revoke_acceptance()

    def _was_accepted_before(self, mirror: Mirror) -> bool:
        """Whether an older version has accepted the mirror: it stored the acceptance beside the definition, without a signature. The
        definition must delete: without deletions, a mirror was in sync even if the target held other keys."""
        if self._signing_key or not self._sync_state.accepted():
            return False
        before = self._definition.read()
        return before is not None and _is_within(mirror, before.definition, must_delete=True)


def is_accepted_in(file: StateFile, mirror: Mirror, signing_key: str) -> bool:
    """Whether a mirror is accepted by its state file alone; see `AcceptanceStore.is_accepted`."""
    return _covers(file.read().get(_FIELD), mirror, signing_key)


def _covers(stored: object, mirror: Mirror, signing_key: str) -> bool:
    found = _parse(stored)
    try:
        is_valid = found is not None and is_signed(signing_key, mirror.name, _DOMAIN + found.definition, found.signature)
    except UnicodeError:  # JSON can carry halves of characters
        return False
    return is_valid and found is not None and _is_within(mirror, found.definition)


def _parse(stored: object) -> _Acceptance | None:
    try:
        found = json.loads(stored) if isinstance(stored, str) else stored
        definition, signature = found["definition"], found["signature"]  # type: ignore[index]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return _Acceptance(definition, signature) if isinstance(definition, str) and isinstance(signature, str) else None


def _is_within(mirror: Mirror, definition: str, *, must_delete: bool = False) -> bool:
    try:
        before = Mirror.loads(definition)
        return mirror.is_within_scope_of(before) and (before.delete or not must_delete)
    except (UnknownDefinition, ValueError):  # another version wrote it
        return False
