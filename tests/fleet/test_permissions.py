"""Files that may not be read: they are tried again when their permissions change. The real commands, bound by permissions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect
from lab.buckets import Bucket, equal_soon
from lab.comparing import fill
from lab.parts import lacking
from lab.programs import BIN, Program, Programs
from lab.servers import wait_until


@pytest.fixture(autouse=True)
def reopened(tree: Path) -> Iterator[None]:
    """Whatever a test has closed can be removed after it."""
    yield
    subprocess.run(["chmod", "-R", "u+rwX", str(tree)], check=True)


@pytest.fixture
def bound(programs: Programs) -> Callable[..., Program]:
    """Starts a command so that permissions bind it, also where root runs the tests."""
    drop = ["/usr/bin/setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if drop and not os.path.exists(drop[0]):
        lacking("setpriv is not installed")
    return lambda *command, **environ: programs.start(*drop, str(BIN / command[0]), *command[1:], **environ)


@pytest.fixture
def ledger(broker: str) -> Ledger:
    return Ledger(connect(broker), "permissions")


@pytest.fixture
def options(broker: str, bucket: Bucket, tree: Path) -> list[str]:
    """No rescan finds anything, and the next try by time is far away."""
    return [f"--broker={broker}", "--name=permissions", "--rescan=0", *bucket.options(), f"--source-prefix={tree}/", str(tree)]


def failed(ledger: Ledger) -> dict[str, str]:
    return {failure.key: failure.reason for failure in ledger.failures.all()}


def test_files_are_sent_when_they_may_be_read(
    bound: Callable, programs: Programs, broker: str, options: list[str], ledger: Ledger, bucket: Bucket, tree: Path
) -> None:
    fill(tree, "closed", "dir/below", "open")
    (tree / "closed").chmod(0o200)
    (tree / "dir").chmod(0o600)
    process = bound("autosync", *options)
    wait_until(lambda: "closed" in failed(ledger) and "open" in bucket.sizes(), 60, f"the file may not be read: {process.output()}")
    control = ["autosync-ctl", f"--broker={broker}"]
    shown = programs.run(*control, "failed").stdout
    assert f"{tree}/closed may not be read: Permission denied; change its permissions" in shown
    assert "it is tried again when its permissions change, and at 20" in shown
    assert "next try    when its permissions change, and at 20" in programs.run(*control, "why", "closed").stdout
    assert "denied      1 failed keys: their files may not be read" in programs.run(*control, "status").stdout
    (tree / "dir").chmod(0o700)
    wait_until(lambda: "dir/below" in bucket.sizes(), 25, "the directory that could not be searched was scanned")
    wait_until(ledger.sync_state.accepted, 25, "a scan of everything was complete")

    (tree / "closed").chmod(0o600)
    equal_soon(bucket, tree, "the file may be read", 25)

    wait_until(lambda: not failed(ledger), 30, "the results are stored")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_what_a_worker_may_not_read_is_tried_again_when_the_watcher_sees_other_permissions(
    bound: Callable, programs: Programs, broker: str, options: list[str], ledger: Ledger, bucket: Bucket, tree: Path
) -> None:
    """The watcher may read everything, and an upload box as another user may not."""
    fill(tree, "d/e/f", "d/g", "open")
    (tree / "d").chmod(0o600)
    (tree / "open").chmod(0o644)
    programs.start("autosync-watch", *options)
    box = bound(
        "celery", "-A", "autosync", "worker", "--without-gossip", "--without-mingle", "-l", "INFO",
        CELERY_BROKER_URL=broker, AUTOSYNC_SOURCES=json.dumps([str(tree)]),
    )  # fmt: skip
    wait_until(lambda: failed(ledger).keys() == {"d/e/f", "d/g"}, 90, f"the box may not read what is below: {box.output()}")
    wait_until(lambda: "open" in bucket.sizes() and ledger.stats.read().files == 1, 30, "the other file is sent")

    (tree / "d/e").chmod(0o755)
    (tree / "d").chmod(0o755)
    (tree / "open").chmod(0o600)
    equal_soon(bucket, tree, "the box may read it", 25)

    wait_until(lambda: ledger.key_states.count_dirty() == 0, 30, "all results are stored")
    assert failed(ledger) == {}
    assert ledger.stats.read().files == 3, "the other file was not sent again"


def test_a_program_that_closes_a_file_before_it_allows_others_to_read_it_is_no_failure(
    bound: Callable, options: list[str], ledger: Ledger, bucket: Bucket, tree: Path
) -> None:
    """scp, tar and others set the permissions after the last byte. The watcher does not know by then that they matter."""
    process = bound("autosync", "--settle=0", *options)
    wait_until(lambda: "mirroring" in process.output() and ledger.sync_state.last_in_sync() is not None, 60, "all is watched")

    for number in range(20):
        (tree / f"{number}").touch(0o200)
        wait_until(lambda number=number: number % 4 or f"{number}" in failed(ledger), 30, "some have failed by then", pause=0.001)
        (tree / f"{number}").chmod(0o600)

    equal_soon(bucket, tree, "all are sent", 25)
    assert ledger.stats.counters()["failures"] >= 5
