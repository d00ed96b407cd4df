"""Stores the remembered roots and mount points of a mirror in the ledger and in the state directory."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NamedTuple

from ..errors import UnknownDefinition
from ..ledger import Ledger
from ..model.definition_signature import is_signed, sign
from ..model.json_fields import dataclass_of
from ..model.mirror import IN_DOUBT, Identity, Mirror
from ..model.root_identity import RootIdentity
from ..source.remembered_roots import Doubt
from ..source.roots import RootRegister
from .state_file import StateFile

log = logging.getLogger(__name__)

_FIELD = "roots"


class _Record(NamedTuple):
    """What is stored at one time.

    Attributes:
        number: grows with each record of the mirror.
        roots: the roots of the mirror at that time.
        identities: the remembered directories, by path.
        doubts: the directories in doubt, by path.
    """

    number: int
    roots: tuple[str, ...]
    identities: dict[str, RootIdentity]
    doubts: dict[str, Doubt]


class RootMemory:
    """Loads and stores the remembered roots and mount points. If one of the two copies is lost or older, the other one counts.

    Args:
        roots: the roots and mount points.
        file: the state file of the mirror.
        ledger: the mirror's ledger.
        mirror: the mirror's name.
        signing_key: signs the copy in the ledger; "": it is not signed.
    """

    def __init__(self, roots: RootRegister, file: StateFile, ledger: Ledger, mirror: str, signing_key: str) -> None:
        self._roots = roots
        self._file = file
        self._ledger = ledger
        self._mirror = mirror
        self._key = signing_key
        self._number = 0
        self._stored_version = -1

    def load(self) -> None:
        """Load the record with the greatest number.

        Raises:
            BrokerError: the broker does not respond.
        """
        record = _newest(self._file, [self._ledger], self._mirror, self._key) or self._record_of_definition()
        self._number = record.number
        _load(self._roots, record)

    def store(self) -> None:
        """Store a new record if something has changed.

        Raises:
            BrokerError: the broker does not respond.
        """
        version = self._roots.remembered.version
        if version == self._stored_version:
            return
        self._number += 1
        remembered = self._roots.remembered
        identities, doubts = ({path: asdict(one) for path, one in some.items()} for some in (remembered.identities(), remembered.doubts()))
        record = {"number": self._number, "roots": list(self._roots.roots), "known": identities, "doubts": doubts}
        self._file.update(**{_FIELD: record})
        text = json.dumps(record, sort_keys=True)
        self._ledger.root_records.write(text, sign(self._key, self._mirror, text))
        self._stored_version = version

    def lose_ledger(self) -> None:
        """Store everything again: the broker has lost its memory."""
        self._stored_version = -1

    def _record_of_definition(self) -> _Record:
        """The roots in the published definition, for mirrors of versions that stored no record."""
        published = self._ledger.definition.read()
        published_identities: Mapping[str, Identity] = {}
        if published is not None:
            with suppress(UnknownDefinition, ValueError):
                published_identities = Mirror.loads(published.definition).identities
        identities = {path: RootIdentity(one.device, one.inode) for path, one in published_identities.items() if one != IN_DOUBT}
        return _Record(0, tuple(identities), identities, {})


def load_stored(roots: RootRegister, file: StateFile, ledgers: Iterable[Ledger], mirror: str, signing_key: str) -> None:
    """Load the newest record of a mirror, and store nothing.

    Args:
        roots: receives the record.
        file: the state file of the mirror.
        ledgers: the mirror's ledgers; none if no broker responds.
        mirror: the mirror's name.
        signing_key: see `RootMemory`.

    Raises:
        BrokerError: a broker does not respond.
    """
    record = _newest(file, ledgers, mirror, signing_key)
    if record is None:
        roots.load({}, {})
    else:
        _load(roots, record)


def _load(roots: RootRegister, record: _Record) -> None:
    roots.load(record.identities, record.doubts, former_roots={*record.roots}.difference(roots.roots))


def _newest(file: StateFile, ledgers: Iterable[Ledger], mirror: str, key: str) -> _Record | None:
    records = [_record_of(file.read().get(_FIELD)), *(_record_in(ledger, mirror, key) for ledger in ledgers)]
    return max((record for record in records if record is not None), key=lambda one: one.number, default=None)


def _record_in(ledger: Ledger, mirror: str, key: str) -> _Record | None:
    text, signature = ledger.root_records.read()
    if not text:
        return None
    if key and not is_signed(key, mirror, text, signature):
        log.warning("what the broker holds about the roots of %s is not signed, and does not count", mirror)
        return None
    try:
        return _record_of(json.loads(text))
    except (ValueError, RecursionError):
        return None


def open_doubts(ledger: Ledger) -> dict[str, str]:
    """The roots and mount points in doubt that no operator has accepted, according to the ledger.

    Returns:
        The reasons by path, each as the end of a sentence about the path.

    Raises:
        BrokerError: the broker does not respond.
    """
    text, _ = ledger.root_records.read()
    with suppress(ValueError, RecursionError):
        record = _record_of(json.loads(text)) if text else None
        doubts = record.doubts.items() if record else ()
        return {path: one.text or "is not the directory that it was" for path, one in sorted(doubts) if not one.accepted}
    return {}


def _record_of(raw: Any) -> _Record | None:
    """A record from JSON; None if it is damaged, or another version wrote it."""
    try:
        identities = {path: dataclass_of(RootIdentity, one) for path, one in raw["known"].items()}
        doubts = {path: dataclass_of(Doubt, one) for path, one in raw["doubts"].items()}
        record = _Record(int(raw["number"]), tuple(map(str, raw["roots"])), identities, doubts)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
    return record if _is_usable(record) else None


def _is_usable(record: _Record) -> bool:
    """Whether all numbers and texts of a record can be those of directories."""
    texts = [*record.roots, *record.identities, *record.doubts]
    numbers = [record.number]
    for one in record.identities.values():
        texts += [one.real_path, *(one.names or ())]
        numbers += [one.device, one.inode, one.filesystem]
    try:
        "".join(texts).encode("utf-8", "surrogateescape")
    except UnicodeError:
        return False
    return all(0 <= number < 1 << 64 for number in numbers) and not any("\0" in text for text in texts)
