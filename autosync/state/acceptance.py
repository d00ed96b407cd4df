"""Stores in the ledger and the state file whether a mirror is accepted, so that scans may delete in its target, and for which scope.

Each acceptance and each revocation has a number that is greater than that of the one before. If ledger and file differ, since one of them
was lost, restored or could not be written, the greater number counts.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

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
    """An acceptance, or a revocation.

    Attributes:
        number: grows with each one of the mirror.
        definition: the definition with which the mirror was accepted; "": it is not accepted any more.
        signature: the signature of both.
    """

    number: int
    definition: str
    signature: str


class AcceptanceStore:
    """The acceptance of one mirror.

    Args:
        name: the mirror's name.
        sync_state: the mirror's state in the ledger.
        definition: the mirror's definition, for ledgers that an older version has written.
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
        newest = self._newest()
        if newest is not None:
            return _covers(newest, mirror)
        return self._sync_state.acceptance() is None and self._was_accepted_before(mirror)

    def accept(self, mirror: Mirror) -> None:
        """Store that the mirror is accepted.

        Args:
            mirror: the definition.

        Raises:
            BrokerError: the broker does not respond. The state file is written.
        """
        self._sync_state.set_accepted(self._store(mirror.dumps()))

    def revoke(self) -> None:
        """Store that the mirror is not accepted. Otherwise a mirror that returns to earlier sources or an earlier target would still be
        accepted, and would delete what it has sent meanwhile.

        Raises:
            BrokerError: the broker does not respond. The state file is written.
        """
        if self._newest() is not None or self._sync_state.accepted():
            self._sync_state.revoke_acceptance(self._store(""))

    def _store(self, definition: str) -> str:
        """Store an acceptance in the file. Returns it as JSON, for the ledger."""
        newest = self._newest()
        number = 1 if newest is None else newest.number + (newest.definition != definition)
        found = _Acceptance(number, definition, sign(self._signing_key, self._name, _signed_text(number, definition)))._asdict()
        self._file.update(acceptance=found)
        return json.dumps(found)

    def _newest(self) -> _Acceptance | None:
        """The last acceptance or revocation. One that is damaged, or whose signature is not valid, does not count."""
        found = [_parse(one, self._name, self._signing_key) for one in (self._file.read().get(_FIELD), self._sync_state.acceptance())]
        return max((one for one in found if one is not None), key=lambda one: one.number, default=None)

    def _was_accepted_before(self, mirror: Mirror) -> bool:
        """Whether an older version has accepted the mirror: it stored the acceptance beside the definition, without a signature. The
        definition must delete: without deletions, a mirror was in sync even if the target held other keys."""
        if self._signing_key or not self._sync_state.accepted():
            return False
        before = self._definition.read()
        return before is not None and _is_within(mirror, before.definition, must_delete=True)


def is_accepted_in(file: StateFile, mirror: Mirror, signing_key: str) -> bool:
    """Whether a mirror is accepted by its state file alone; see `AcceptanceStore.is_accepted`."""
    found = _parse(file.read().get(_FIELD), mirror.name, signing_key)
    return found is not None and _covers(found, mirror)


def _signed_text(number: int, definition: str) -> str:
    return f"{_DOMAIN}{number}\0{definition}"


def _parse(stored: object, mirror: str, signing_key: str) -> _Acceptance | None:
    """What was stored for a mirror; None if it is damaged, or its signature is not valid."""
    try:
        fields: Any = json.loads(stored) if isinstance(stored, str) else stored
        found = _Acceptance(int(fields["number"]), str(fields["definition"]), str(fields["signature"]))
        is_valid = is_signed(signing_key, mirror, _signed_text(found.number, found.definition), found.signature)
    except (ValueError, OverflowError, RecursionError, LookupError, TypeError):  # UnicodeError: JSON can carry halves of characters
        return None
    return found if is_valid else None


def _covers(found: _Acceptance, mirror: Mirror) -> bool:
    return bool(found.definition) and _is_within(mirror, found.definition)


def _is_within(mirror: Mirror, definition: str, *, must_delete: bool = False) -> bool:
    try:
        before = Mirror.loads(definition)
        return mirror.is_within_scope_of(before) and (before.delete or not must_delete)
    except (UnknownDefinition, ValueError):  # another version wrote it
        return False
