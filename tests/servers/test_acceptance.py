"""The acceptance of a mirror, and what it withholds: kept in the ledger and in the state file, so that losing one of them undoes none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect
from autosync.model.definition_signature import sign
from autosync.model.keys import Source
from autosync.model.mirror import Mirror, version_of
from autosync.model.withheld import Withheld
from autosync.state.deletion_state import DeletionState
from autosync.state.pending import ItemKind, PendingItem, pending_in_file, pending_in_ledger
from autosync.state.state_file import StateFile

MIRROR = Mirror("m", "file", (Source("/s"),), target_prefix="p/")
KEY, OTHER_KEY = "k" * 32, "o" * 32


@pytest.fixture
def ledger(broker: str) -> Ledger:
    return Ledger(connect(broker), "m")


def state(ledger: Ledger, directory: Path, key: str = "") -> DeletionState:
    return DeletionState(MIRROR, ledger, StateFile(directory, "m"), key)


def lose(what: str, broker: str, directory: Path) -> None:
    if what != "the state directory":
        connect(broker).flushall()
    if what != "the ledger":
        for path in directory.iterdir():
            path.unlink()


@pytest.mark.parametrize("what", ["the ledger", "the state directory", "both"])
@pytest.mark.parametrize("key", ["", KEY], ids=["unsigned", "signed"])
def test_losing_one_of_both_undoes_no_acceptance(ledger: Ledger, broker: str, tmp_path: Path, what: str, key: str) -> None:
    assert not state(ledger, tmp_path, key).is_accepted(MIRROR)
    state(ledger, tmp_path, key).accept()
    assert state(ledger, tmp_path, key).is_accepted(MIRROR)

    lose(what, broker, tmp_path)

    assert state(ledger, tmp_path, key).is_accepted(MIRROR) == (what != "both")


@pytest.mark.parametrize("what", ["the ledger", "the state directory", "both"])
def test_losing_one_of_both_lifts_nothing_that_is_withheld(ledger: Ledger, broker: str, tmp_path: Path, what: str) -> None:
    state(ledger, tmp_path).accept()
    state(ledger, tmp_path).set_withheld(Withheld(7, ("a", "b"), "d"), accepted=True)
    assert state(ledger, tmp_path).withheld() == 7
    waits = [PendingItem(ItemKind.DELETIONS, count=7, examples=("a", "b"), digest="d")]
    assert pending_in_ledger(ledger.sync_state.pending()) == pending_in_file(StateFile(tmp_path, "m")) == waits

    lose(what, broker, tmp_path)

    assert state(ledger, tmp_path).withheld() == (0 if what == "both" else 7)
    state(ledger, tmp_path).set_withheld(Withheld(), accepted=True)
    assert state(ledger, tmp_path).withheld() == 0


def test_what_waits_is_written_again_into_a_broker_that_has_lost_it(ledger: Ledger, broker: str, tmp_path: Path) -> None:
    one = state(ledger, tmp_path)
    one.set_withheld(Withheld(7, ("a",), "d"), accepted=False)
    connect(broker).flushall()

    one.pending.write()
    assert ledger.sync_state.pending() == {}, "what it holds is not asked each second"
    one.pending.rewrite()
    one.pending.write()

    assert [item.kind for item in pending_in_ledger(ledger.sync_state.pending())] == [ItemKind.EXISTING]


@pytest.mark.parametrize(
    ("stored_with", "read_with", "counts"), [("", KEY, False), (OTHER_KEY, KEY, False), (KEY, KEY, True), ("", "", True)]
)
@pytest.mark.parametrize("where", ["ledger", "state file"])
def test_where_definitions_are_signed_only_a_signed_acceptance_counts(
    ledger: Ledger, broker: str, tmp_path: Path, stored_with: str, read_with: str, counts: bool, where: str
) -> None:
    state(ledger, tmp_path, stored_with).accept()
    lose("the ledger" if where == "state file" else "the state directory", broker, tmp_path)

    assert state(ledger, tmp_path, read_with).is_accepted(MIRROR) == counts


def test_the_signature_of_a_definition_is_none_of_an_acceptance(ledger: Ledger, tmp_path: Path) -> None:
    """A stranger with access to the broker has signed definitions there."""
    definition = MIRROR.dumps()
    signature = sign(KEY, "m", definition)
    ledger.definition.publish(definition, version_of(definition), signature=signature)
    client = ledger.sync_state._client
    client.hset("autosync:{m}:mirror", mapping={"accepted": 1, "cleared": f"{version_of(definition)} 1.0"})
    assert state(ledger, tmp_path).is_accepted(MIRROR), "without a key this is what an older version stored"
    assert not state(ledger, tmp_path, KEY).is_accepted(MIRROR)

    ledger.sync_state.set_accepted(json.dumps({"number": 1, "definition": definition, "signature": signature}))
    assert not state(ledger, tmp_path, KEY).is_accepted(MIRROR)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"number": 1, "definition": 1, "signature": ""}', '{"number": 1, "definition": "{}", "signature": ""}',
    '{"number": 1, "definition": "\\ud800", "signature": "x"}', '{"number": "x", "definition": "{}", "signature": ""}',
    '{"number": 1e999, "definition": "{}", "signature": ""}', '{"definition": "{}", "signature": ""}'],
)  # fmt: skip
@pytest.mark.parametrize("key", ["", KEY], ids=["unsigned", "signed"])
def test_a_damaged_acceptance_is_none(ledger: Ledger, tmp_path: Path, text: str, key: str) -> None:
    ledger.sync_state.set_accepted(text or "x")
    StateFile(tmp_path, "m").update(acceptance=text)

    assert not state(ledger, tmp_path, key).is_accepted(MIRROR)


@pytest.mark.parametrize("text", ["abc", "-1", "1e9", "9" * 30, "\u0663"])
def test_a_damaged_number_of_withheld_deletions_lifts_nothing(ledger: Ledger, tmp_path: Path, text: str) -> None:
    state(ledger, tmp_path).accept()
    ledger.sync_state._client.hset("autosync:{m}:mirror", "holding", text)

    assert state(ledger, tmp_path).withheld() == 1


def test_what_the_target_held_before_the_mirror_is_no_withheld_deletion_of_it(ledger: Ledger, tmp_path: Path) -> None:
    """`--accept-existing` accepts it; what an accepted mirror has withheld is lifted by no acceptance of that kind."""
    state(ledger, tmp_path).set_withheld(Withheld(7, ("a",), "d"), accepted=False)
    assert state(ledger, tmp_path).withheld() == 0

    state(ledger, tmp_path).set_withheld(Withheld(7, ("a",), "d"), accepted=True)
    assert state(ledger, tmp_path).withheld() == 7


def test_an_older_version_that_deleted_nothing_has_accepted_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """It noted that it was in sync with a target that held other keys."""
    for delete in (True, False):
        definition = replace(MIRROR, delete=delete).dumps()
        ledger.definition.publish(definition, version_of(definition))
        ledger.sync_state._client.hset("autosync:{m}:mirror", "cleared", f"{version_of(definition)} 1.0")

        assert state(ledger, tmp_path).is_accepted(MIRROR) == delete


def test_a_mirror_that_had_another_scope_meanwhile_is_not_accepted_again_by_itself(ledger: Ledger, tmp_path: Path) -> None:
    one = state(ledger, tmp_path)
    one.accept()
    assert not one.is_accepted(replace(MIRROR, sources=(Source("/other"),)))

    one.revoke()

    assert not state(ledger, tmp_path).is_accepted(MIRROR)


@pytest.mark.parametrize("key", ["", KEY], ids=["unsigned", "signed"])
@pytest.mark.parametrize("restored", ["the ledger", "the state file"])
def test_an_acceptance_from_before_a_revocation_counts_no_more(ledger: Ledger, tmp_path: Path, key: str, restored: str) -> None:
    """The state directory comes back from a backup, or could not be written; or the broker starts with an old file."""
    one, file, names = state(ledger, tmp_path, key), StateFile(tmp_path, "m"), ledger.definition._names
    one.accept()
    before, in_ledger = file.read(), ledger.sync_state.acceptance()
    one.revoke()
    if restored == "the ledger":
        ledger.sync_state._client.hset(names.definition, mapping={"accepted": 1, "acceptance": in_ledger or ""})
    else:
        file.update(**before)

    assert not state(ledger, tmp_path, key).is_accepted(MIRROR)

    state(ledger, tmp_path, key).accept()
    assert state(ledger, tmp_path, key).is_accepted(MIRROR)
