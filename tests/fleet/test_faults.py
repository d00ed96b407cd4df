"""Accidents at the worst moment: after each, and after a restart where one is needed, the target equals the source, byte for byte.

Each test first shows that its accident has happened.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from autosync.ledger import Ledger, connect
from lab.buckets import Bucket, equal_soon, on_disk
from lab.faults import Proxy
from lab.parts import permitted
from lab.programs import BIN, Program, Programs
from lab.servers import Valkey, wait_until

pytestmark = pytest.mark.timeout(240)

MEBI = 1 << 20


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:
    """Stands in front of the server of `bucket`."""
    with Proxy(bucket.server.url) as stats:
        yield stats


@pytest.fixture
def ledger(own_valkey: Valkey) -> Ledger:
    """Of the mirror, where `own_valkey` is its broker."""
    return Ledger(connect(own_valkey.url), "faulty")


@pytest.fixture
def options(bucket: Bucket, proxy: Proxy, tree: Path) -> list[str]:
    return [f"--target-container={bucket.name}", f"--endpoint-url={proxy.url}", f"--source-prefix={tree}/", "--name=faulty", str(tree)]


@pytest.fixture
def live(programs: Programs, options: list[str], bucket: Bucket, tree: Path) -> Callable[..., Program]:
    """Starts autosync with one worker behind the proxy, with one file, and waits until the bucket equals the tree."""

    def start(*more: str) -> Program:
        write(tree / "first")
        process = programs.start("autosync", "-v", "--workers=1", *more, *options)
        wait_until(lambda: "mirroring" in process.output(), 60, "it has started")
        equal(bucket, tree, "the first scan")
        return process

    return start


def write(path: Path, version: int = 1, size: int = 1000) -> None:
    """Write a file that has its name and version throughout its content."""
    path.write_bytes(_content(path.name, version, size))


def _content(name: str, version: int, size: int) -> bytes:
    line = f"{name} {version} {size}\n".encode()
    return (line * (size // len(line) + 1))[:size]


def torn(bucket: Bucket) -> list[str]:
    """The keys of objects that are not one whole version of a file that `write` has written."""
    found = []
    for key in bucket.sizes():
        with suppress(bucket.client.exceptions.NoSuchKey):
            data = bucket.read(key)
            name, version, size = data.split(b"\n", 1)[0].decode().rsplit(" ", 2)
            if data != _content(name, int(version), int(size)):
                found.append(key)
    return found


def equal(bucket: Bucket, tree: Path, what: str) -> None:
    """Wait until the bucket holds what the tree holds."""
    equal_soon(bucket, tree, what, 90, to_the_byte=True)


def write_many(tree: Path, name: str, count: int) -> None:
    """Write files of this name and a number."""
    for number in range(count):
        write(tree / f"{name}{number}")


def come_change_and_go(tree: Path, new: int, old: int) -> None:
    """Write new files; of the old ones change the first half and delete the other."""
    write_many(tree, "new", new)
    for number in range(old // 2):
        write(tree / f"old{number}", version=2)
        (tree / f"old{number + old // 2}").unlink()


def all_done(ledger: Ledger, seconds: float = 60) -> None:
    """Wait until nothing is left to do, and see that nothing has failed."""
    wait_until(lambda: ledger.key_states.count_dirty() == 0, seconds, "nothing is left to do")
    assert list(ledger.failures.all()) == []


def unharmed(process: Program) -> None:
    """See that it still runs, and met nothing that it did not expect."""
    assert process.poll() is None
    assert "Traceback" not in process.output()


def begin_slow_uploads(proxy: Proxy, bucket: Bucket, tree: Path) -> None:
    """Write a small and a large file, and wait until both are in the middle of their uploads. The small one is larger than what the kernel
    keeps for a connection, and would send after the death of the process."""
    proxy.speed = 0.3 * MEBI
    write(tree / "small", size=7 * MEBI)
    write(tree / "large", size=20 * MEBI)
    wait_until(lambda: proxy.in_flight("small") and proxy.in_flight("large"), 60, "both are in the middle")


def test_the_proxy_distinguishes_two_uploads_of_one_key(
    proxy: Proxy, bucket: Bucket
) -> None:
    def put(key: str, size: int = 200_000) -> None:
        signed = bucket.client.generate_presigned_url("put_object", Params={"Bucket": bucket.name, "Key": key})
        # The signature is of the server's own address, which is the value of the Host header.
        address = signed.replace(bucket.server.url, proxy.url)
        response = requests.put(address, data=_content(key, 1, size), headers={"Host": bucket.server.url[7:]}, timeout=30)
        assert response.status_code == 200, response.text

    for key in ("one", "one", "two"):
        put(key)
    assert proxy.overlaps() == []
    proxy.speed = 100_000
    twice = [threading.Thread(target=put, args=("one",)) for _ in range(2)]
    for thread in twice:
        thread.start()
    for thread in twice:
        thread.join(30)
    assert [(one.key, other.key) for one, other in proxy.overlaps()] == [("one", "one")]


# Processes that are killed


@pytest.mark.parametrize("victim", ["celery", "valkey"])
def test_a_child_is_killed_in_the_middle_of_an_upload(
    victim: str, live: Callable, proxy: Proxy, bucket: Bucket, tree: Path
) -> None:
    foreign = sorted(bucket.begin_upload(key) for key in ("large", "other"))
    process = live()
    begin_slow_uploads(proxy, bucket, tree)
    assert len(bucket.open_uploads()) == 3, "one is of our own"

    process.children(victim)[0].kill()
    assert proxy.in_flight("small")
    assert proxy.in_flight("large")
    assert bucket.sizes().keys() == {"first"}
    write(tree / "late")
    (tree / "first").unlink()
    name = rf"worker \S+-1@{re.escape(socket.gethostname())}" if victim == "celery" else "the embedded broker"
    wait_until(lambda: re.search(f"{name} ended with status -9; it is started again", process.output()), 30, "its end is noticed")
    proxy.speed = None
    if victim == "celery":
        wait_until(lambda: proxy.counts["gone"] >= 2, 30, "both uploads have broken off")

    equal(bucket, tree, "everything, in spite of it")
    wait_until(lambda: bucket.open_uploads() == foreign, 30, "only what others began is still open")
    unharmed(process)


def test_autosync_is_killed_in_the_middle_of_an_upload_and_started_again(
    live: Callable, programs: Programs, options: list[str], proxy: Proxy, bucket: Bucket, tree: Path
) -> None:
    process = live()
    begin_slow_uploads(proxy, bucket, tree)

    process.kill()
    process.wait()
    proxy.speed = None
    wait_until(lambda: proxy.counts["gone"] >= 2, 30, "both uploads have broken off")
    assert bucket.sizes().keys() == {"first"}
    write(tree / "small", version=2, size=7 * MEBI)
    write(tree / "late")
    (tree / "first").unlink()
    again = programs.start("autosync", "-v", *options)

    equal(bucket, tree, "everything, after a restart")
    unharmed(again)


def test_a_worker_is_killed_before_it_has_the_id_of_the_upload_that_it_has_begun(
    live: Callable, proxy: Proxy, bucket: Bucket, tree: Path
) -> None:
    foreign = [bucket.begin_upload("large2")]
    process = live()
    proxy.hold = "/large?uploads"
    write(tree / "large", size=20 * MEBI)
    wait_until(lambda: any(proxy.hold in one.path and one.status == 200 for one in proxy.requests), 30, "it was begun")
    (begun,) = [one for one in bucket.open_uploads() if one not in foreign]

    process.children("celery")[0].kill()
    wait_until(lambda: "ended with status -9; it is started again" in process.output(), 30, "its end is noticed")
    assert not any(begun[1] in one.path for one in proxy.requests), "nobody has sent anything for it"
    proxy.hold = ""

    equal(bucket, tree, "everything, in spite of it")
    wait_until(lambda: bucket.open_uploads() == foreign, 30, "what was begun has ended")
    unharmed(process)


# The broker


def test_a_broker_is_emptied_and_the_worker_killed_in_the_middle_of_an_upload(
    own_valkey: Valkey, ledger: Ledger, live: Callable, proxy: Proxy, bucket: Bucket, tree: Path
) -> None:
    """The only note of what is open in the target is lost together with the worker that wrote it."""
    foreign = [bucket.begin_upload("large")]
    process = live(f"--broker={own_valkey.url}")
    client = own_valkey.client()
    begin_slow_uploads(proxy, bucket, tree)
    assert len(bucket.open_uploads()) == 2

    def listings() -> int:
        """How often all that is open was requested: by the watcher, every second."""
        return int(client.info("commandstats")["cmdstat_hgetall"]["calls"])

    before = listings()
    wait_until(lambda: listings() >= before + 2, 30, "the watcher knows what is open")
    process.children("celery")[0].kill()
    client.flushall()
    assert ledger.uploads.all() == {}
    wait_until(lambda: "has lost its memory" in process.output(), 30, "the watcher has noticed")
    proxy.speed = None

    equal(bucket, tree, "everything, in spite of it")
    wait_until(lambda: bucket.open_uploads() == foreign, 30, "what was begun has ended")
    unharmed(process)


def test_a_broker_is_emptied_while_keys_are_dirty_and_again_while_all_is_quiet(
    own_valkey: Valkey, ledger: Ledger, live: Callable, proxy: Proxy, bucket: Bucket, tree: Path
) -> None:
    process = live(f"--broker={own_valkey.url}")
    begin_slow_uploads(proxy, bucket, tree)
    assert ledger.key_states.count_dirty() >= 2

    own_valkey.client().flushall()
    (tree / "first").unlink()
    write(tree / "late")
    wait_until(lambda: "has lost its memory" in process.output(), 30, "the watcher has noticed")
    proxy.speed = None
    equal(bucket, tree, "everything that was dirty")
    all_done(ledger)

    own_valkey.client().flushall()
    wait_until(lambda: process.output().count("has lost its memory") == 2, 30, "the watcher has noticed again")
    write(tree / "late", version=2)
    (tree / "small").unlink()
    equal(bucket, tree, "everything after that")
    all_done(ledger)
    unharmed(process)


def test_a_broker_is_killed_before_it_has_written_what_it_had_confirmed(
    own_valkey: Valkey, ledger: Ledger, live: Callable, bucket: Bucket, tree: Path
) -> None:
    """As it does while a sync of its append-only file is under way, with `appendfsync everysec`: what is written meanwhile has to wait."""
    process = live(f"--broker={own_valkey.url}", "--rescan=0")
    wait_until(lambda: ledger.key_states.count_dirty() == 0 and ledger.sync_state.last_in_sync(), 60, "nothing is left to do")
    (file,) = (own_valkey.directory / "appendonlydir").glob("*.incr.aof")
    worker = process.children("celery")[0]
    worker.suspend()
    kept = file.stat().st_size

    write(tree / "late")
    wait_until(lambda: ledger.key_states.count_dirty() == 1, 30, "the broker knows of it")
    own_valkey.kill()
    assert b"late" in file.read_bytes()[kept:]
    os.truncate(file, kept)
    own_valkey.start()
    wait_until(lambda: "may have lost its last writes" in process.output(), 30, "the watcher has noticed")
    worker.resume()

    equal(bucket, tree, "everything, in spite of it")
    unharmed(process)


def test_once_detects_a_broker_that_was_emptied(
    own_valkey: Valkey, programs: Programs, options: list[str], proxy: Proxy, bucket: Bucket, tree: Path
) -> None:
    proxy.speed = 0.3 * MEBI
    write(tree / "small", size=MEBI)
    write(tree / "large", size=20 * MEBI)
    once = programs.start("autosync", "--once", "-v", "--workers=1", f"--broker={own_valkey.url}", *options)
    wait_until(lambda: "compared 2 files" in once.output() and proxy.in_flight("large"), 60, "the scan is over, and the upload is not")

    own_valkey.client().flushall()
    proxy.speed = None

    assert once.wait(60) == 0
    equal_soon(bucket, tree, "everything, when it has ended", 0, to_the_byte=True)
    assert "has lost its memory" in once.output()


def test_the_result_of_a_scan_does_not_count_as_done_when_the_broker_has_lost_it(
    own_valkey: Valkey, ledger: Ledger, programs: Programs, options: list[str], tree: Path
) -> None:
    """Else a later scan would take a file that changed before for equal, where only its times show that it did."""
    write(tree / "first")
    process = programs.start("autosync-watch", "-v", f"--broker={own_valkey.url}", "--rescan=0", *options)
    dirty = ledger.key_states.count_dirty
    wait_until(lambda: "compared 1 files" in process.output() and dirty() == 1, 30, "the first scan is over, and there is no worker")

    own_valkey.client().flushall()
    wait_until(lambda: process.output().count("compared 1 files") == 2, 30, "everything is compared again")
    wait_until(lambda: ledger.key_states.count_dirty() == 1, 30, "it was found again")

    assert ledger.sync_state.last_in_sync() is None


def test_a_broker_is_frozen_for_longer_than_a_lease_during_an_upload_while_files_come_change_and_go(
    own_valkey: Valkey, ledger: Ledger, live: Callable, proxy: Proxy, bucket: Bucket, tree: Path
) -> None:
    """And for longer than anybody waits for an answer."""
    write_many(tree, "old", 20)
    process = live(f"--broker={own_valkey.url}?socket_timeout=2", "--lease=6")
    begin_slow_uploads(proxy, bucket, tree)
    proxy.speed = 0.1 * MEBI

    with own_valkey.frozen():
        until = time.monotonic() + 6
        come_change_and_go(tree, 20, 20)
        write(tree / "large", version=2, size=20 * MEBI)
        wait_until(lambda: "what happens meanwhile is kept and sent later" in process.output(), 60, "the watcher has met it")
        wait_until(lambda: "claims of faulty could not be renewed" in process.output(), 60, "so has the worker")
        wait_until(lambda: time.monotonic() > until, 7, "the leases are over, also if they were renewed just before")
        assert proxy.in_flight("small")
        assert not any(key.startswith("new") for key in bucket.sizes())
    proxy.speed = None

    equal(bucket, tree, "everything, in spite of it")
    all_done(ledger, 90)
    assert proxy.overlaps() == []
    unharmed(process)


# The target


def test_a_target_that_answers_every_third_request_with_500_or_503_is_made_equal_and_nothing_fails(
    own_valkey: Valkey, ledger: Ledger, live: Callable, proxy: Proxy, bucket: Bucket, tree: Path
) -> None:
    write_many(tree, "old", 10)
    process = live(f"--broker={own_valkey.url}")
    proxy.errors = 1 / 3

    come_change_and_go(tree, 60, 10)
    write(tree / "large", size=40 * MEBI)

    equal(bucket, tree, "everything, in spite of it")
    all_done(ledger)
    assert min(proxy.counts["500"], proxy.counts["503"]) > 10, proxy.counts
    unharmed(process)


def test_connections_that_are_cut_in_the_middle_of_a_body_tear_no_object(live: Callable, proxy: Proxy, bucket: Bucket, tree: Path) -> None:
    names = [*(f"small{number}" for number in range(5)), "large"]

    def write_all(version: int) -> None:
        for name in names:
            write(tree / name, version, (18 * MEBI if name == "large" else 300_000) + version)

    write_all(1)
    process = live()
    proxy.cut_small, proxy.cut_parts = 12, 6
    write_all(2)

    seen: list[list[str]] = []
    wait_until(lambda: seen.append(torn(bucket)) or proxy.counts["cut small"] == 12, 90, "all cuts of small files", pause=0.2)
    wait_until(lambda: seen.append(torn(bucket)) or proxy.counts["cut part"] == 6, 90, "all cuts of parts", pause=0.2)
    equal(bucket, tree, "everything, in spite of it")
    assert not any(seen), seen
    assert torn(bucket) == []
    unharmed(process)


def test_a_target_that_is_away_until_keys_have_run_out_of_tries_is_made_equal_without_help(
    own_valkey: Valkey, ledger: Ledger, live: Callable, proxy: Proxy, bucket: Bucket, tree: Path
) -> None:
    """With the ten tries that are the default it would have to be away for two minutes."""
    write_many(tree, "old", 10)
    process = live(f"--broker={own_valkey.url}", "--attempts=3", "--rescan=0")

    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])))
    come_change_and_go(tree, 10, 10)
    wait_until(lambda: len(list(ledger.failures.all())) == 20, 60, "all keys have run out of tries")
    assert "; tried again in" in process.output()
    proxy.listen()

    equal(bucket, tree, "everything, in spite of it")
    all_done(ledger)
    unharmed(process)


def test_a_target_that_is_away_for_several_tries_is_made_equal_soon_after(live: Callable, proxy: Proxy, bucket: Bucket, tree: Path) -> None:
    """How long the tries of a key last is held in `test_batch.py`: more than a minute."""
    write_many(tree, "old", 10)
    process = live("--rescan=0")

    proxy.refuse()
    write_many(tree, "new", 10)
    for number in range(10):
        (tree / f"old{number}").unlink()
    (tree / "directory").mkdir()
    write(tree / "directory/late")
    wait_until(lambda: process.output().count("; tried again in") >= 4 * 21, 60, "each was tried four times")
    assert sorted(bucket.sizes()) == ["first", *(f"old{number}" for number in range(10))], "nothing could be done meanwhile"
    proxy.listen()

    equal(bucket, tree, "everything, in spite of it")
    unharmed(process)


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    permitted("mount", "-t", "tmpfs", "-o", "size=2m", "autosync-test", str(directory))
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """Fill the disk; there is space again when the file is removed."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 1024)
    assert os.statvfs(directory).f_bavail == 0
    return filler


def test_a_state_directory_on_a_full_disk_is_reported_in_one_line_and_nothing_is_lost(
    live: Callable, small_disk: Path, bucket: Bucket, tree: Path
) -> None:
    process = live(f"--state-dir={small_disk}")

    filler = fill(small_disk)
    for number in range(300):
        write(tree / f"{number}-{'x' * 200}")
    (tree / "first").unlink()
    wait_until(lambda: "No space left on device" in process.output(), 60, "it has met the full disk")
    assert process.poll() is None
    filler.unlink()

    equal(bucket, tree, "everything, when there is space again")
    unharmed(process)


def test_a_start_with_a_full_disk_ends_with_one_line(programs: Programs, options: list[str], small_disk: Path, tree: Path) -> None:
    write(tree / "first")
    fill(small_disk)

    done = programs.run("autosync", f"--state-dir={small_disk}", *options)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert f"state directory {small_disk}/faulty cannot be written" in done.stderr


# A share that shows old things


@pytest.fixture
def stale_share(bindfs: Callable, tree: Path, tmp_path: Path) -> Path:
    """The source as a mount that believes what it has seen until `forget`."""
    mount = tmp_path / "share"
    mount.mkdir()
    bindfs(tree, mount, "-o", "attr_timeout=3600,entry_timeout=3600,negative_timeout=3600")
    return mount


def forget(share: Path) -> None:
    """Have the kernel drop what it remembers of a share, but for files that are open: that is a part of mounting it anew."""
    permitted("mount", "-i", "-o", "remount,rw", str(share))


@pytest.fixture
def box_elsewhere(programs: Programs, broker: str, bucket: Bucket, stale_share: Path, tree: Path, tmp_path: Path) -> Program:
    """An upload box that takes itself for another host than the file host, and reads the share."""
    permitted("unshare", "--mount", "true")
    (tmp_path / "boot_id").write_text("another-host\n")
    elsewhere = f'mount --bind {tmp_path}/boot_id /proc/sys/kernel/random/boot_id && exec "$@"'
    process = programs.start(
        "/usr/bin/unshare", "--mount", "sh", "-c", elsewhere, "sh", str(BIN / "celery"),
        "-A", "autosync", "worker", "--without-gossip", "--without-mingle", "-l", "INFO",
        CELERY_BROKER_URL=broker, AUTOSYNC_SOURCES=json.dumps({str(tree): str(stale_share)}),
    )  # fmt: skip
    wait_until(lambda: " ready." in process.output() or process.poll() is not None, 60, "the worker is ready")
    assert Path(f"/proc/{process.pid}/root/proc/sys/kernel/random/boot_id").read_text() == "another-host\n"
    return process


def test_a_worker_whose_share_has_old_attributes_waits_for_the_new_ones(
    box_elsewhere: Program, stale_share: Path, programs: Programs, broker: str, options: list[str], bucket: Bucket, tree: Path
) -> None:
    write(tree / "changed", size=3000)
    write(tree / "deleted")
    watcher = programs.start("autosync-watch", f"--broker={broker}", *options)
    equal(bucket, tree, "the first scan")
    ledger = Ledger(connect(broker), "faulty")
    all_done(ledger, 30)

    def has_old_things() -> bool:
        sizes = {name: (stale_share / name).stat().st_size for name in ("changed", "deleted") if (stale_share / name).exists()}
        return sizes == {"changed": 3000, "deleted": 1000} and not (stale_share / "new").exists() and not (stale_share / "kept").exists()

    def has_new_things() -> bool:
        forget(stale_share)
        return on_disk(stale_share) == on_disk(tree)

    seen: list[object] = []

    def observe() -> dict[str, int]:
        sizes = bucket.sizes()
        seen.append(("kept" in sizes, sizes.get("changed") in (3000, 9000), torn(bucket)))
        return sizes

    assert has_old_things()
    write(tree / "changed", version=2, size=9000)
    write(tree / "new")
    bucket.client.put_object(Bucket=bucket.name, Key="kept", Body=_content("kept", 1, 1000))
    write(tree / "kept")
    (tree / "deleted").unlink()
    keys = ("changed", "new", "kept", "deleted")

    def tries(key: str) -> int:
        dispute = ledger.key_states.facts(key).dispute
        return dispute.tries if dispute else 0

    wait_until(lambda: observe() and min(map(tries, keys)) >= 3, 60, "the worker has met each several times")
    assert has_old_things()
    wait_until(has_new_things, 30, "the share shows them")
    wait_until(lambda: observe() == on_disk(tree), 90, "everything, when the share shows it", pause=0.3)
    equal(bucket, tree, "every byte of it")
    assert set(map(str, seen)) == {str((True, True, []))}
    assert (box_elsewhere.poll(), watcher.poll()) == (None, None)
    assert "Traceback" not in box_elsewhere.output()
