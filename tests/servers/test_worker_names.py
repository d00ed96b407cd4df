"""A worker has one name, Celery's, wherever a person or a script reads it."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_batch import Recording, Workbench

from autosync.celery import Secrets
from autosync.errors import PermanentError
from autosync.ledger import UNKNOWN, Ledger, connect, new_owner, owner_prefix, worker_of
from autosync.logs import JsonFormatter, TextFormatter
from autosync.tasks import transfer
from lab.commands import Commands

NAME = "box1@host"


@pytest.fixture
def bench(broker: str, tree: Path) -> Workbench:
    Recording.reset()
    return Workbench(broker, tree)


@pytest.fixture
def task(bench: Workbench) -> Iterator[Any]:
    """A running task of Celery, as far as a batch needs it."""

    class App:
        conf = SimpleNamespace(broker_url=bench.broker, autosync_sources=[str(bench.tree)], autosync_secrets=Secrets({}))

    running = SimpleNamespace(app=App(), request=SimpleNamespace(id="1", hostname=NAME))
    yield running
    transfer.worker_state(running.app, NAME).close()


def test_the_same_name_is_in_the_failed_list_the_history_the_log_and_the_status(
    bench: Workbench, task: Any, tree: Path, commands: Commands, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        (tree / name).write_text(name)
    bench.ledger.claims.mark([("a", UNKNOWN), ("b", UNKNOWN)])
    caplog.set_level(logging.INFO, "autosync.transfer")
    during: list[str] = []

    def control(*words: str) -> str:
        return commands.run("autosync-ctl", f"--broker={bench.broker}", *words).stdout

    def read_status(key: str) -> None:
        if key == "b":
            raise PermanentError("never this one")
        during.extend((control("status", "--json"), control("status"), control("why", "a")))

    Recording.meanwhile = read_status
    assert "1 failed" in transfer.run(task, "m", ["a", "b"])

    assert {worker["worker"] for worker in json.loads(during[0])[0]["workers"]} == {NAME}
    assert f"  {NAME} " in during[1]
    assert f"claimed by {NAME}; " in during[2]
    assert f"tries, {NAME}: never this one" in control("failed")
    assert json.loads(control("failed", "--json"))["worker"] == NAME
    assert f"tries, at {NAME}: never this one" in control("why", "b")
    assert f"by {NAME}\n" in control("why", "b")
    assert f"by {NAME}\n" in control("why", "a")
    assert [vars(record)["worker"] for record in caplog.records if hasattr(record, "worker")] == [NAME, NAME], "uploaded and failed"


def test_the_json_lines_of_a_failed_and_of_a_retried_key_have_mirror_key_and_worker(
    bench: Workbench, task: Any, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        (tree / name).write_text(name)
    bench.ledger.claims.mark([("a", UNKNOWN), ("b", UNKNOWN)])
    caplog.set_level(logging.INFO, "autosync.transfer")
    errors: dict[str, Exception] = {"a": PermanentError("never this one"), "b": OSError("later")}

    def fail(key: str) -> None:
        raise errors[key]

    Recording.meanwhile = fail
    transfer.run(task, "m", ["a", "b"])

    lines = {line["key"]: line for line in (json.loads(JsonFormatter().format(record)) for record in caplog.records) if "key" in line}
    assert {key: (line["mirror"], line["worker"]) for key, line in lines.items()} == {"a": ("m", NAME), "b": ("m", NAME)}
    assert lines["a"]["message"] == "failed: a: never this one"
    assert lines["b"]["message"].startswith("b: OSError: later; tried again in ")
    assert TextFormatter().format(caplog.records[-1]).endswith(caplog.records[-1].getMessage()), "text lines have no fields"


def test_the_json_line_of_a_mirror_that_a_worker_refuses_has_mirror_and_worker(
    bench: Workbench, task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bench.ledger.definition.publish("{}", "v")

    assert transfer.run(task, "m", ["a"]).startswith("refused: ")

    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    line = json.loads(JsonFormatter().format(record))
    assert (line["mirror"], line["worker"]) == ("m", NAME)


def test_a_worker_that_was_started_again_is_one_worker(broker: str) -> None:
    """The claims of the killed process last until its leases end."""
    ledger = Ledger(connect(broker), "m")
    ledger.definition.publish("{}", "v")
    ledger.claims.mark([("a", UNKNOWN), ("b", UNKNOWN)])
    for pid, key in ((1, "a"), (2, "b")):
        ledger.claims.claim(new_owner("host", pid, NAME), "v", [key])

    assert {worker: sorted(keys) for worker, keys in ledger.key_states.claimed_by_worker().items()} == {NAME: ["a", "b"]}
    assert ledger.release_all_of_dead(owner_prefix("host", 1)) == 1
    assert ledger.claims.requeue_orphans() == ["a"]
    assert ledger.key_states.claimed_by_worker() == {NAME: ["b"]}


@pytest.mark.parametrize("name", [NAME, "a b@host", "größe%20@host", "a:b@host", "mirror-1@host"])
def test_the_name_of_an_owner_contains_that_of_its_worker_and_no_space(name: str) -> None:
    owner = new_owner(socket.gethostname(), os.getpid(), name)

    assert worker_of(owner) == name
    assert len(owner.split()) == 1
    assert owner.isascii()
    assert owner != new_owner(socket.gethostname(), os.getpid(), name)


def test_an_owner_of_an_earlier_version_is_printed_as_its_process() -> None:
    assert worker_of("host:7:0123abcd") == "host:7"
