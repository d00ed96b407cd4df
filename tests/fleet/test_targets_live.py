"""Several targets from one watch: each is kept for itself, with a queue, limits and a lag of its own."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect, queues_of_mirrors
from lab.buckets import Bucket, equal_soon, on_disk
from lab.faults import Proxy
from lab.programs import Program, Programs
from lab.servers import Valkey, wait_until
from lab.target_tables import to_directory, with_targets


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    made = tmp_path / "copy"
    made.mkdir()
    return made


def to_bucket(bucket: Bucket, url: str = "", *more: str) -> str:
    lines = ['name = "bucket"', f'target-container = "{bucket.name}"', f'endpoint-url = "{url or bucket.server.url}"', *more]
    return "\n".join(lines)


def ledgers(program: Program, state: Path) -> Callable[[str], Ledger]:
    """The ledgers of an autosync with a broker of its own."""
    addresses = [path.read_text().strip() for path in state.glob("*/broker.address")]
    assert len(addresses) == 1, "there is one broker for all"
    return lambda name: Ledger(connect(addresses[0]), name)


def same(tree: Path, copy: Path) -> bool:
    try:
        return on_disk(tree) == on_disk(copy)
    except FileNotFoundError:  # what is being written has another name until it is whole
        return False


def watches(pid: int) -> int:
    found = [path.read_text().count("inotify wd:") for path in Path(f"/proc/{pid}/fdinfo").iterdir() if path.exists()]
    return sum(found)


def test_each_target_has_what_its_table_defines(programs: Programs, bucket: Bucket, tree: Path, copy: Path, tmp_path: Path) -> None:
    for name in ("one.mp3", "d/two.txt", "d/e/three.mp3"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    only_mp3 = ['source-filter = ".*mp3$"', 'target-prefix = "radio/"', 'limit-requests = "100/s"', "delete = false"]
    config = with_targets(tree, to_bucket(bucket), to_directory(copy, *only_mp3))

    done = programs.run("autosync", f"--config={config}", "--once")

    assert done.returncode == 0, done.stderr
    assert bucket.sizes() == on_disk(tree)
    assert set(on_disk(copy)) == {"radio/one.mp3", "radio/d/e/three.mp3"}
    assert "bucket: uploaded 3 files" in done.stderr
    assert "directory: uploaded 2 files" in done.stderr
    reported = programs.run("autosync", f"--config={config}", "--dry-run").stdout
    assert reported.splitlines()[0] == "bucket:"
    assert "\ndirectory:\n" in reported


def test_one_watch_serves_all_and_each_has_its_queue_and_its_limits(
    programs: Programs, bucket: Bucket, tree: Path, copy: Path, tmp_path: Path
) -> None:
    for number in range(20):
        (tree / f"d{number}").mkdir()
    tables = to_bucket(bucket, "", "threads = 1"), to_directory(copy, 'limit-requests = "50/s"')
    config = with_targets(tree, *tables, state_dir=str(tmp_path / "state"))
    process = programs.start("autosync", f"--config={config}")
    wait_until(lambda: process.output().count("mirroring ") == 2 and "watches are placed: 21" in process.output(), 30, "both are kept")

    for number in range(20):
        (tree / f"d{number}/file").write_text(str(number))
    equal_soon(bucket, tree, "the bucket has all")
    wait_until(lambda: same(tree, copy), 20, "the directory has all")
    assert watches(process.pid) == 21, "each directory is watched once"

    ledger = ledgers(process, tmp_path / "state")
    assert ledger("bucket").limits.read().inflight == 1, "--threads=1 is one transfer at a time"
    assert ledger("directory").limits.read().requests == 50
    wait_until(lambda: ledger("bucket").stats.read().dirty == ledger("directory").stats.read().dirty == 0, 20, "all is noted")
    (tree / "d3/file").unlink()
    equal_soon(bucket, tree, "what is deleted goes")
    wait_until(lambda: same(tree, copy), 20, "from both")


def test_a_target_that_does_not_answer_holds_no_other_up(
    programs: Programs, bucket: Bucket, tree: Path, copy: Path, tmp_path: Path
) -> None:
    with Proxy(bucket.server.url) as proxy:
        state = tmp_path / "state"
        config = with_targets(tree, to_bucket(bucket, proxy.url), to_directory(copy), state_dir=str(state))
        process = programs.start("autosync", f"--config={config}")
        wait_until(lambda: process.output().count("mirroring ") == 2, 30, "both are kept")
        (tree / "first").write_text("first")
        equal_soon(bucket, tree, "both are served")

        proxy.hold = bucket.name
        for number in range(50):
            (tree / f"file-{number}").write_text(str(number))
        wait_until(lambda: same(tree, copy), 20, "the other target goes on")
        ledger = ledgers(process, state)
        assert ledger("bucket").stats.read().dirty >= 50
        wait_until(lambda: ledger("bucket").stats.read().lag > 1 > ledger("directory").stats.read().lag, 20, "each has a lag of its own")
        (tree / "late").write_text("late")
        wait_until(lambda: same(tree, copy), 10, "and on")
        assert ledger("bucket").stats.read().dirty >= 51, "no answer came"

        proxy.hold = ""
        equal_soon(bucket, tree, "and it again", 90)


def test_a_target_that_is_away_at_the_start_holds_no_other_up(programs: Programs, bucket: Bucket, tree: Path, copy: Path) -> None:
    (tree / "file").write_text("x")
    with Proxy(bucket.server.url) as proxy:
        proxy.refuse()
        config = with_targets(tree, to_bucket(bucket, proxy.url), to_directory(copy))
        once = programs.run("autosync", f"--config={config}", "--once", timeout=110)
        assert once.returncode == 1
        assert "bucket: " in once.stderr
        assert once.stderr.strip().splitlines()[-1].startswith("autosync: ")
        assert same(tree, copy)

        process = programs.start("autosync", f"--config={config}")
        wait_until(lambda: "it is tried again" in process.output() and process.output().count("mirroring ") == 2, 60, "it goes on")
        (tree / "more").write_text("more")
        wait_until(lambda: same(tree, copy), 20, "the other is kept")
        assert bucket.sizes() == {}

        proxy.listen()
        equal_soon(bucket, tree, "it is back", 90)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_where_no_target_can_be_used_it_ends(programs: Programs, tree: Path, tmp_path: Path) -> None:
    config = with_targets(tree, to_directory(tmp_path / "nope"), to_directory(tmp_path / "neither", name="other"))

    done = programs.run("autosync", f"--config={config}", "--once")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("autosync: target container")


def test_a_fleet_has_a_queue_for_each_target(programs: Programs, own_valkey: Valkey, bucket: Bucket, tree: Path, copy: Path) -> None:
    config = with_targets(tree, to_bucket(bucket), to_directory(copy, 'queue = "near"'), broker=own_valkey.url)
    watcher = programs.start("autosync-watch", f"--config={config}")
    wait_until(lambda: watcher.output().count("mirroring ") == 2, 30, "both are kept")
    assert queues_of_mirrors(connect(own_valkey.url)) == ["autosync.bucket", "near"]

    programs.worker("-Q", "near", broker=own_valkey.url, AUTOSYNC_SOURCES=str(tree))
    (tree / "file").write_text("x")
    wait_until(lambda: same(tree, copy), 20, "it has a box")
    assert bucket.sizes() == {}
    programs.worker("-Q", "autosync.bucket", "-n", "other@%h", broker=own_valkey.url, AUTOSYNC_SOURCES=str(tree))
    equal_soon(bucket, tree, "so has the other now")


STORE = """
import os, pathlib, click
from autosync import Actor, File, SecretOption

class Store(Actor):
    container_is = "directory"
    options = (SecretOption(["--password"]),)

    def list(self):
        top = pathlib.Path(self.target_container)
        return [File(path.name, path.stat().st_size, path.stat().st_mtime) for path in top.iterdir()]

    def upload(self, file):
        with file.open() as content:
            (pathlib.Path(self.target_container) / f"{file.key}").write_bytes(content.read())
        (pathlib.Path(self.target_container) / f"by-{self.password}").touch()

    def delete(self, file):
        pass
"""


@pytest.mark.parametrize("where", ["one host", "a fleet"])
def test_each_target_has_its_own_secret(where: str, programs: Programs, own_valkey: Valkey, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text(STORE)
    (tmp_path / "secret").write_text("from-a-file\n")
    (tree / "file").write_text("x")
    tables = []
    for name, secret in (("a", f"@{tmp_path / 'secret'}"), ("b", "@@b")):
        (tmp_path / name).mkdir()
        lines = [f'name = "{name}"', 'actor = "store.Store"', f'target-container = "{tmp_path / name}"', f'password = "{secret}"']
        tables.append("\n".join([*lines, "delete = false"]))
    config = with_targets(tree, *tables)

    if where == "one host":
        process = programs.start("autosync", f"--config={config}", AUTOSYNC_PASSWORD="of-nobody")
    else:
        secrets = {"a": {"password": f"@{tmp_path / 'secret'}"}, "b": {"password": "@@b"}}
        programs.worker(broker=own_valkey.url, AUTOSYNC_SOURCES=str(tree), AUTOSYNC_SECRETS=json.dumps(secrets))
        process = programs.start("autosync-watch", f"--config={config}", f"--broker={own_valkey.url}")

    for name, secret in (("a", "from-a-file"), ("b", "@b")):
        wait_until(lambda there=tmp_path / name / f"by-{secret}": there.exists(), 30, "it was sent with its own secret")  # type: ignore[misc]
        assert len(list((tmp_path / name).glob("by-*"))) == 1
    assert process.poll() is None
