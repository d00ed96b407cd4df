"""A fleet whose definitions are signed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect
from autosync.model.mirror import version_of
from lab.buckets import Bucket, equal_soon
from lab.programs import Programs
from lab.servers import wait_until

KEY, OTHER = "k" * 32, "o" * 32


def test_a_fleet_that_signs(programs: Programs, broker: str, bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    other = Bucket(bucket.server)
    sources = {"AUTOSYNC_SOURCES": json.dumps([str(tree)])}
    worker = programs.worker(broker=broker, AUTOSYNC_SIGNING_KEY=f"@{tmp_path}/key", **sources)
    assert worker.output().count("definitions of mirrors are checked: ") == 1
    options = ["--name=m", f"--source-prefix={tree}/", f"--broker={broker}", f"--signing-key=@{tmp_path}/key", *bucket.options(), str(tree)]
    programs.start("autosync-watch", *options)
    (tree / "a").write_text("a")
    equal_soon(bucket, tree, "signed")

    # Somebody who may write to the broker, as autosync's own user.
    ledger = Ledger(connect(broker), "m")
    published = ledger.definition.read()
    assert published is not None
    forged = json.loads(published.definition)
    forged["settings"]["target_container"] = other.name
    text = json.dumps(forged)
    ledger.definition.publish(text, version_of(text), "autosync.m", published.signature)
    (tree / "b").write_text("b")

    wait_until(lambda: "is not signed with this worker's key" in worker.output(), 30, "it is refused")
    assert other.sizes() == {}
    assert KEY not in worker.output()


@pytest.mark.parametrize("log_format", ["", "json"])
def test_a_box_logs_at_its_start_that_it_checks_nothing(programs: Programs, broker: str, tmp_path: Path, log_format: str) -> None:
    environ = {"CELERY_BROKER_URL": broker, "AUTOSYNC_SOURCES": str(tmp_path / "share"), "AUTOSYNC_LOG_FORMAT": log_format}
    environ |= {"AUTOSYNC_VERBOSITY": "-1"} if log_format else {}  # Celery's own format has no verbosity
    worker = programs.start("celery", "-A", "autosync", "worker", **environ)  # at Celery's own level: warnings

    wait_until(lambda: "definitions" in worker.output() or worker.poll() is not None, 60, "the line")

    (line,) = [line for line in worker.output().splitlines() if "definitions" in line]
    message = json.loads(line)["message"] if log_format else line.removeprefix("autosync: ")
    assert message == "definitions of mirrors are not checked: this box has no signing key, and accepts what anybody writes to the broker"
