"""Upload boxes that do not see what the file host sees, with real mounts: they delete and overwrite nothing, and it is reported."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect
from lab.buckets import Bucket, equal_soon, on_disk
from lab.comparing import fill
from lab.parts import lacking, permitted
from lab.programs import BIN, Program, Programs
from lab.samba import Samba, SlowMount
from lab.servers import Missing, wait_until

pytestmark = pytest.mark.timeout(240)

#: After so many tries a box has met a key often. That no number of tries makes it believe its own eyes is tested in test_disputes.py.
TRIES = 4


@pytest.fixture
def ledger(broker: str) -> Ledger:
    return Ledger(connect(broker), "boxes")


@pytest.fixture
def watcher(programs: Programs, broker: str, bucket: Bucket, tree: Path) -> Callable[[], Program]:
    """Starts the watcher of the file host."""
    options = [*bucket.options(), f"--source-prefix={tree}/", "--name=boxes", str(tree)]
    return lambda: programs.start("autosync-watch", f"--broker={broker}", *options)


@pytest.fixture
def box(programs: Programs, broker: str, tree: Path, tmp_path: Path) -> Callable[..., Program]:
    """Starts an upload box in a mount namespace of its own."""
    permitted("unshare", "--mount", "true")

    def start(name: str, share: Path, prepare: str, *, another_host: bool) -> Program:
        (tmp_path / "boot_id").write_text("another-host\n")
        steps = [f"mount --bind {tmp_path}/boot_id /proc/sys/kernel/random/boot_id"] if another_host else []
        script = " && ".join([*steps, prepare, 'exec "$@"'])
        process = programs.start(
            "/usr/bin/unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(BIN / "celery"),
            "-A", "autosync", "worker", "-n", f"{name}@host", "--without-gossip", "--without-mingle", "-l", "INFO",
            CELERY_BROKER_URL=broker, AUTOSYNC_SOURCES=json.dumps({str(tree): str(share)}),
        )  # fmt: skip
        wait_until(lambda: " ready." in process.output() or process.poll() is not None, 60, "the worker is ready")
        namespaces = [os.readlink(f"/proc/{pid}/ns/mnt") for pid in (process.pid, os.getpid())]
        assert namespaces[0] != namespaces[1]
        return process

    return start


@pytest.fixture
def disk(tree: Path) -> Iterator[Path]:
    """A file system that the file host has mounted below its source."""
    directory = tree / "disk"
    directory.mkdir()
    permitted("mount", "-t", "tmpfs", "none", str(directory))
    assert directory.is_mount()
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def slow_share(tree: Path, tmp_path: Path) -> Iterator[tuple[Path, SlowMount]]:
    """The source as an SMB share that is mounted with a slow cache."""
    mount = tmp_path / "mount"
    mount.mkdir()
    try:
        server = Samba(tmp_path / "samba", tree)
    except Missing as missing:
        lacking(str(missing))
    try:
        server.start()
        with SlowMount(server, mount) as share:
            yield mount, share
    finally:
        server.stop()


def all_done(ledger: Ledger) -> None:
    wait_until(lambda: ledger.key_states.count_dirty() == 0, 60, "nothing is left to do")
    assert list(ledger.failures.all()) == []


def make_due(ledger: Ledger, broker: str) -> None:
    """Let the next try of all keys be due now, so that no test waits for half a minute."""
    client, names = connect(broker), ledger._store.names
    for key in client.zrange(names.due, 0, -1):
        if ledger.key_states.facts(key.decode()).owner == "":
            client.zadd(names.due, {key: 0}, xx=True)


def tried_often(ledger: Ledger, broker: str, keys: list[str]) -> None:
    """Wait until the box has met each key often, and the file host has confirmed it."""

    def tries() -> int:
        make_due(ledger, broker)
        disputes = [ledger.key_states.facts(key).dispute for key in keys]
        return min(one.tries if one and one.confirmed_for is not None else 0 for one in disputes)

    wait_until(lambda: tries() >= TRIES, 90, "the box has not seen each key several times", pause=0.2)


def control(programs: Programs, broker: str, *words: str) -> str:
    return programs.run("autosync-ctl", f"--broker={broker}", *words).stdout


def test_a_box_whose_share_is_not_mounted_deletes_nothing_and_is_reported(
    watcher: Callable, box: Callable, programs: Programs, broker: str, ledger: Ledger, bucket: Bucket, tree: Path, tmp_path: Path
) -> None:
    fill(tree, "a", "b/c", "deleted")
    mount = tmp_path / "mount"
    fill(mount, "this share is not mounted")
    watcher()
    first = programs.worker(broker=broker, AUTOSYNC_SOURCES=json.dumps([str(tree)]))
    equal_soon(bucket, tree, "the first scan", 60)
    all_done(ledger)
    first.terminate()
    first.wait(60)
    before = bucket.sizes()

    process = box("blind", mount, "true", another_host=True)
    for name in ("a", "b/c", "new"):
        (tree / name).write_text("saved just now")
    tried_often(ledger, broker, ["a", "b/c", "new"])
    assert bucket.sizes() == before, "nothing was deleted"
    (tree / "deleted").unlink()  # both say so
    wait_until(lambda: "deleted" not in bucket.sizes(), 60, "what the file host saw go is deleted")

    client, names = connect(broker), ledger._store.names
    client.hset(names.disputed, "new", f"{TRIES} {int((time.time() - 301) * 1000)}")  # as if it had been confirmed earlier
    make_due(ledger, broker)
    wait_until(lambda: "blind@host does not see /" in control(programs, broker, "doctor"), 90, "the doctor reports the box", pause=1)
    status = control(programs, broker, "status")
    assert "worker blind@host does not see /" in status
    assert "syncing" in status
    (found,) = json.loads(control(programs, broker, "status", "--json"))
    assert found["unseen_by"] == {"blind@host": f"does not see {tree}/new below {mount}"}
    output = process.output()
    assert output.count("WARNING") == output.count("does not see") - output.count("the file host checks it once more")

    permitted("nsenter", "--mount", f"--target={process.pid}", "mount", "--bind", str(tree), str(mount))
    make_due(ledger, broker)
    equal_soon(bucket, tree, "everything, when the share is mounted", 90)
    all_done(ledger)
    assert "Traceback" not in process.output()


def test_a_container_on_the_file_host_that_lacks_a_file_system_leaves_its_keys_to_others(
    watcher: Callable,
    box: Callable,
    programs: Programs,
    broker: str,
    ledger: Ledger,
    bucket: Bucket,
    tree: Path,
    disk: Path,
    tmp_path: Path,
) -> None:
    fill(tree, "a")
    fill(disk, "b", "c")
    mount = tmp_path / "mount"
    mount.mkdir()
    watcher()
    first = programs.worker(broker=broker, AUTOSYNC_SOURCES=json.dumps([str(tree)]))
    equal_soon(bucket, tree, "the first scan", 60)
    all_done(ledger)
    first.terminate()
    first.wait(60)

    process = box("blind", mount, f"mount --bind {tree} {mount}", another_host=False)  # without what is mounted below
    assert not Path(f"/proc/{process.pid}/root{mount}/disk/b").exists()
    assert Path(f"/proc/{process.pid}/root{mount}/a").exists()
    (tree / "a").write_text("saved just now")
    for name in ("b", "new"):
        (disk / name).write_text("saved just now")
    wait_until(lambda: bucket.sizes()["a"] == len("saved just now"), 60, "what it sees, it sends")
    tried_often(ledger, broker, ["disk/b", "disk/new"])
    assert {"a", "disk/b", "disk/c"} == set(bucket.sizes())

    programs.worker("-n", "sees@host", broker=broker, AUTOSYNC_SOURCES=json.dumps([str(tree)]))

    def sent() -> bool:
        make_due(ledger, broker)
        return bucket.sizes() == on_disk(tree)

    wait_until(sent, 90, "another worker sends what the box does not see", pause=0.3)
    all_done(ledger)
    (disk / "c").unlink()
    wait_until(lambda: bucket.sizes() == on_disk(tree), 60, "a file that is gone on both")
    assert "Traceback" not in process.output()


def test_a_box_whose_smb_share_delays_changes_waits_for_them(
    watcher: Callable,
    box: Callable,
    broker: str,
    ledger: Ledger,
    bucket: Bucket,
    tree: Path,
    slow_share: tuple[Path, SlowMount],
) -> None:
    mount, share = slow_share
    fill(tree, "changed", "deleted", "sub/same")
    process = box("slow", mount, "true", another_host=True)
    watcher()
    equal_soon(bucket, tree, "the first scan", 60)
    all_done(ledger)
    before = bucket.sizes()

    def names() -> set[str]:
        return {path.name for path in mount.iterdir()}

    assert names() == {"changed", "deleted", "sub"}
    (tree / "changed").write_text("the second version")
    (tree / "new").write_text("new")
    (tree / "sub/new").write_text("new")
    (tree / "deleted").unlink()
    tried_often(ledger, broker, ["changed", "new", "sub/new", "deleted"])
    assert names() == {"changed", "deleted", "sub"}, "it still shows what it has seen"
    assert (mount / "changed").stat().st_size == before["changed"]
    assert bucket.sizes() == before, "nothing was deleted, and no old version sent"

    def equal() -> bool:
        make_due(ledger, broker)
        return bucket.sizes() == on_disk(tree)

    share.forget()
    wait_until(equal, 90, "everything, when the share shows it", pause=0.3)
    all_done(ledger)
    assert bucket.read("changed") == b"the second version"
    assert "Traceback" not in process.output()
