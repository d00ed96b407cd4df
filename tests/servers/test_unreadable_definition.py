"""A definition that cannot be read: the notes of workers, and what autosync-ctl prints."""

from __future__ import annotations

import json

import pytest

from autosync.ledger import UNKNOWN, Ledger, connect
from autosync.model.keys import Source
from autosync.model.mirror import Mirror, version_of
from lab.commands import Commands
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


LATER = {"format": 2}
LATER_REASON = "its format is 2, and this version reads 1; install the same version of autosync on all hosts"


def publish(broker: str, **more: object) -> Ledger:
    """Publish a definition with some wrong fields, and mark a key."""
    ledger = Ledger(connect(broker), "m")
    mirror = Mirror("m", "file", (Source("/nowhere"),), settings={"target_container": "/t"}, queue="autosync.m")
    definition = json.dumps({**json.loads(mirror.dumps()), **more})
    ledger.definition.publish(definition, version_of(definition), mirror.queue)
    ledger.claims.mark([("a", UNKNOWN)])
    return ledger


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (LATER, LATER_REASON),
        ({"format": None}, "its format is None, and this version reads 1; install the same version of autosync on all hosts"),
        ({"identities": []}, "its identities is []; use the same version of autosync on all hosts"),
        ({"settings": None}, "its settings is None; use the same version of autosync on all hosts"),
        ({"sources": None}, "its sources is None; use the same version of autosync on all hosts"),
    ],
)
def test_status_prints_why_the_definition_cannot_be_read(broker: str, commands: Commands, more: dict[str, object], reason: str) -> None:
    publish(broker, **more)

    text = commands.run("autosync-ctl", f"--broker={broker}", "status")
    (found,) = json.loads(commands.run("autosync-ctl", f"--broker={broker}", "status", "--json").stdout)

    reason = f"the definition of mirror m cannot be read: {reason}"
    assert (text.returncode, text.stderr) == (0, "")
    assert f"  attention   {reason}\n" in text.stdout
    assert "?" not in text.stdout
    assert (found["definition_error"], found["target"], found["sources"]) == (reason, None, [])
    assert (found["dirty"], found["queue"], found["messages"]) == (1, "autosync.m", 0)


def test_status_has_no_reason_where_the_definition_can_be_read(broker: str, commands: Commands) -> None:
    publish(broker)

    (found,) = json.loads(commands.run("autosync-ctl", f"--broker={broker}", "status", "--json").stdout)

    assert (found["definition_error"], found["sources"]) == (None, ["/nowhere"])


def test_the_doctor_of_a_version_that_cannot_read_the_definition_reports_what_does_not_need_it(broker: str, commands: Commands) -> None:
    publish(broker, **LATER).definition.note_unreadable("box1@host", LATER_REASON)

    done = commands.run("autosync-ctl", f"--broker={broker}", "doctor")

    assert (done.returncode, done.stderr) == (3, "")
    lines = [line.strip().partition(" ")[2].strip() for line in done.stdout.splitlines()]
    assert f"definition: the definition of mirror m cannot be read: {LATER_REASON}" in lines
    assert f"workers: box1@host cannot read the definition: {LATER_REASON}" in lines
    assert "file host: no watcher runs for this mirror; start its autosync or autosync-watch" in lines
    assert any(line.startswith("broker: ") and " responds in " in line for line in lines)
    assert any(line.startswith("workers: none serves the queue autosync.m") for line in lines)


def test_the_doctor_has_no_traceback_for_a_path_that_cannot_be_one(broker: str, commands: Commands) -> None:
    publish(broker, sources=[{"path": "/s\0", "is_file": False}])

    done = commands.run("autosync-ctl", f"--broker={broker}", "doctor")

    assert (done.returncode, done.stderr) == (3, "")
