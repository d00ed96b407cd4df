"""The notes of workers that cannot read a definition."""

from __future__ import annotations

import pytest

from autosync.ledger import Ledger, connect
from lab.servers import wait_until


def test_each_note_that_a_worker_cannot_read_the_definition_has_an_expiry_of_its_own(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(broker)
    ledger = Ledger(client, "m")
    ledger.definition.note_unreadable("renews@host", "first: a reason")
    monkeypatch.setattr("autosync.ledger.definition.UNREADABLE_SECONDS", 0.001)
    ledger.definition.note_unreadable("upgraded@host", "second")
    monkeypatch.undo()
    ledger.definition.note_unreadable("renews@host", "first: a reason")
    wait_until(lambda: "upgraded@host" not in ledger.definition.unreadable(), 20, "one note has expired")

    assert ledger.definition.unreadable() == {"renews@host": "first: a reason"}
    ledger.definition.note_unreadable("renews@host", "another")
    assert client.hkeys("autosync:{m}:unreadable") == [b"renews@host"], "what has expired is removed"
    assert ledger.definition.unreadable() == {"renews@host": "another"}

    ledger.definition.remove_unreadable("renews@host")
    ledger.definition.remove_unreadable("never@host")
    assert ledger.definition.unreadable() == {}
