"""Servers that refuse the commands: a bucket that cannot be used is one clear line. Brokers that refuse: tests/fleet/test_trust.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect
from lab.buckets import Bucket
from lab.commands import Commands

BAD_BUCKETS = {
    "no such bucket": ({"options": ["--target-container=no-such-bucket"]}, "there is no such bucket"),
    "wrong secret": ({"environ": {"AWS_SECRET_ACCESS_KEY": "wrong"}}, "access is denied"),
    "unknown user": ({"environ": {"AWS_ACCESS_KEY_ID": "nobody"}}, "access is denied"),
    "no credentials": (
        {"environ": {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}},
        "no credentials were found",
    ),
    "nobody answers": ({"options": ["--endpoint-url=http://127.0.0.1:1"]}, "Connection refused"),
    "no address": ({"options": ["--endpoint-url=nonsense"]}, "S3 cannot be set up"),
    "unknown profile": ({"options": ["--profile=nobody"]}, "profile (nobody) could not be found"),
}


@pytest.mark.parametrize("case", BAD_BUCKETS)
def test_a_bucket_that_cannot_be_used_is_one_clear_line(case: str, commands: Commands, bucket: Bucket, tree: Path) -> None:
    """As `--once` ends too (tests/programs/test_entry_points.py): both check the target in the same place."""
    (tree / "file").write_text("x")
    change, message = BAD_BUCKETS[case]

    done = commands.run("autosync", "--dry-run", *bucket.options(), *change.get("options", []), str(tree), **change.get("environ", {}))

    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert bucket.sizes() == {}


@pytest.mark.parametrize("option", ["queues", "exclude_queues"])
def test_a_queue_that_no_mirror_has_is_refused_with_those_that_there_are(option: str, commands: Commands, broker: str) -> None:
    Ledger(connect(broker), "a").definition.publish("{}", "v", "autosync.a")

    done = commands.prepare_worker(**{option: "typo,autosync.a"}, CELERY_BROKER_URL=broker)

    assert done.returncode == 1
    assert done.stderr == "autosync: no mirror has the queue typo (known: autosync, autosync.a); start its autosync-watch first\n"
    assert commands.prepare_worker(**{option: "autosync.a"}, CELERY_BROKER_URL=broker).returncode == 0
