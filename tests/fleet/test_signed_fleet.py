"""A fleet whose definitions are signed."""

from __future__ import annotations

import json
from pathlib import Path

from autosync.ledger import Ledger, connect
from autosync.mirror import version_of
from lab.buckets import Bucket, equal_soon
from lab.programs import Programs
from lab.servers import wait_until

KEY, OTHER = "k" * 32, "o" * 32


def test_a_fleet_that_signs(programs: Programs, broker: str, bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    other = Bucket(bucket.server)
    sources = {"AUTOSYNC_SOURCES": json.dumps([str(tree)])}
    box = programs.worker(broker=broker, AUTOSYNC_SIGNING_KEY=f"@{tmp_path}/key", **sources)
    options = ["--name=m", f"--source-prefix={tree}/", f"--broker={broker}", f"--signing-key=@{tmp_path}/key", *bucket.options(), str(tree)]
    programs.start("autosync-watch", *options)
    (tree / "a").write_text("a")
    equal_soon(bucket, tree, "signed")

    # Somebody who may write to the broker, as autosync's own user.
    ledger = Ledger(connect(broker), "m")
    published = ledger.definition()
    assert published is not None
    forged = json.loads(published.definition)
    forged["settings"]["target_container"] = other.name
    text = json.dumps(forged)
    ledger.register(text, version_of(text), "autosync.m", published.signature)
    (tree / "b").write_text("b")

    wait_until(lambda: "is not signed with this worker's key" in box.said(), 30, "it is refused")
    assert other.sizes() == {}
    assert KEY not in box.said()
