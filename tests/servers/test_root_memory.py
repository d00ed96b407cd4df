"""What is remembered of the roots, in the ledger and in the state file: the newer copy counts, and a damaged one does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect
from autosync.model.definition_signature import sign
from autosync.source.roots import RootRegister
from autosync.state.root_memory import RootMemory
from autosync.state.state_file import StateFile
from lab.comparing import fill, keys_of

KEY = "k" * 32
DAMAGED = {
    "no JSON": "{",
    "a number": "7",
    "deep": "[" * 100_000,
    "no fields": "{}",
    "another type": '{"number": "x", "roots": [], "known": {}, "doubts": {}}',
    "unknown fields of a directory": '{"number": 9, "roots": ["/s"], "known": {"/s": {"new": 1}}, "doubts": {}}',
    "a number that no directory has": '{"number": 9, "roots": ["/s"], "known": {"/s": {"device": -1, "inode": 1}}, "doubts": {}}',
    "a number without an end": '{"number": 1e999, "roots": [], "known": {}, "doubts": {}}',
    "half a character": '{"number": 9, "roots": ["/\\ud800"], "known": {}, "doubts": {}}',
    "a path that no directory has": '{"number": 9, "roots": ["/s\\u0000"], "known": {}, "doubts": {}}',
}


@pytest.fixture
def ledger(broker: str) -> Ledger:
    return Ledger(connect(broker), "m")


@pytest.fixture
def start(ledger: Ledger, tree: Path, tmp_path: Path) -> Callable[..., tuple[RootRegister, RootMemory]]:
    """The roots of a process that has just started, and their memory."""

    def one(key: str = "") -> tuple[RootRegister, RootMemory]:
        roots = RootRegister(keys_of(tree))
        memory = RootMemory(roots, StateFile(tmp_path, "m"), ledger, "m", key)
        memory.load()
        return roots, memory

    return one


def replace_root(tree: Path) -> None:
    tree.rename(tree.with_name("before"))
    fill(tree, "marker")


@pytest.mark.parametrize("key", ["", KEY], ids=["unsigned", "signed"])
@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("damaged", ["ledger", "file"])
def test_a_damaged_copy_does_not_count(
    start: Callable, ledger: Ledger, tree: Path, tmp_path: Path, damaged: str, text: str, key: str
) -> None:
    fill(tree, "a")
    start(key)[1].store()
    if damaged == "ledger":
        ledger.root_records.write(text, sign(key, "m", text) if text.isascii() else "")
    else:
        try:
            StateFile(tmp_path, "m").update(roots=json.loads(text))
        except (ValueError, RecursionError):
            StateFile(tmp_path, "m").path.write_text(text)
    replace_root(tree)

    roots, _ = start(key)

    assert roots.is_in_doubt(str(tree)), "the other copy is read"


@pytest.mark.parametrize("older", ["ledger", "file", "both, and the ledger is forged"])
def test_the_newer_copy_counts(start: Callable, ledger: Ledger, tree: Path, tmp_path: Path, older: str) -> None:
    """The state directory comes back from a backup, the broker from an old file, or somebody writes to the broker."""
    fill(tree, "a")
    file = StateFile(tmp_path, "m")
    _, memory = start(KEY)
    memory.store()
    text, signature = ledger.root_records.read()
    in_file = file.read()["roots"]
    replace_root(tree)
    roots, memory = start(KEY)
    roots.note_keys(str(tree), 1)
    assert roots.remembered.accept(str(tree))
    memory.store()  # the acceptance is the newest record
    if older == "ledger":
        ledger.root_records.write(text, signature)
    elif older == "file":
        file.update(roots=in_file)
    else:
        file.update(roots=in_file)
        newest, _ = ledger.root_records.read()
        ledger.root_records.write(newest, "forged")

    roots, _ = start(KEY)

    doubt = roots.remembered.doubts().get(str(tree))
    assert (doubt is not None and doubt.accepted) == (older in ("ledger", "file"))
