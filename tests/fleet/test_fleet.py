"""A file host, a broker, upload boxes: separate processes that share nothing but Redis and the mount."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from pathlib import Path

import pytest

from autosync.feed.publisher import batch_line
from autosync.ledger import Ledger, connect
from lab.buckets import Bucket, equal_soon, on_disk
from lab.ports import free_port
from lab.programs import Programs
from lab.servers import Valkey, wait_until


def sources(*roots: Path) -> str:
    return json.dumps([str(root) for root in roots])


@pytest.fixture
def options(bucket: Bucket, tree: Path) -> list[str]:
    return [*bucket.options(), f"--source-prefix={tree}/", "--name=fleet", str(tree)]


@pytest.mark.smoke
def test_two_workers_share_the_work_and_once_waits_for_them(
    programs: Programs, broker: str, bucket: Bucket, tree: Path, options: list[str]
) -> None:
    for number in range(600):
        (tree / str(number)).write_text(str(number))
    boxes = [programs.worker("-n", f"box{number}@%h", broker=broker, AUTOSYNC_SOURCES=sources(tree)) for number in (1, 2)]

    done = programs.run("autosync-watch", "--once", f"--broker={broker}", *options)

    assert done.returncode == 0, done.stderr
    assert bucket.sizes() == on_disk(tree)
    shares = [worker.output().count("uploaded ") for worker in boxes]
    assert sum(shares) == 600
    assert min(shares) > 0, shares


def test_a_box_sees_the_share_at_another_path_and_reads_its_settings_from_celeryconfig(
    programs: Programs, broker: str, bucket: Bucket, tree: Path, options: list[str], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "mnt"
    elsewhere.symlink_to(tree)
    desk = tmp_path / "desk"
    desk.mkdir()
    (desk / "celeryconfig.py").write_text(
        f"broker_url = {broker!r}\nautosync_sources = {{{str(tree)!r}: {str(elsewhere)!r}}}\nworker_concurrency = 2\n"
    )
    (tree / "a").write_text("a")
    worker = programs.start("celery", "-A", "autosync", "worker", "-l", "INFO", cwd=desk)
    watcher = programs.start("autosync-watch", f"--broker={broker}", *options)

    equal_soon(bucket, tree, "through celeryconfig.py")
    (tree / "b").write_text("b")
    equal_soon(bucket, tree, "live")

    assert "concurrency: 2 (thread)" in worker.output()
    assert watcher.poll() is None


def test_a_box_that_may_not_read_the_source_refuses_and_the_keys_are_listed_as_failed(
    programs: Programs, broker: str, bucket: Bucket, tree: Path, options: list[str], tmp_path: Path
) -> None:
    (tree / "a").write_text("a")
    (tree / "b").write_text("b")
    worker = programs.worker(broker=broker, AUTOSYNC_SOURCES=sources(tmp_path / "other"))

    done = programs.run("autosync-watch", "--once", f"--broker={broker}", *options)

    message = f"was not given the source {tree}; add it to autosync_sources in its celeryconfig.py"
    assert done.returncode == 3
    assert message in done.stderr
    assert message in worker.output()
    assert "Traceback" not in worker.output()
    assert {failure.key for failure in Ledger(connect(broker), "fleet").failures.all()} == {"a", "b"}
    assert bucket.sizes() == {}

    worker.send_signal(signal.SIGTERM)
    worker.wait(20)
    programs.worker(broker=broker, AUTOSYNC_SOURCES=sources(tree))
    again = programs.run("autosync-watch", "--once", f"--broker={broker}", *options)
    assert (again.returncode, bucket.sizes()) == (0, {"a": 1, "b": 1}), again.stderr
    assert list(Ledger(connect(broker), "fleet").failures.all()) == []


def test_a_broker_that_lost_its_memory_is_noticed(
    programs: Programs, own_valkey: Valkey, bucket: Bucket, tree: Path, options: list[str]
) -> None:
    broker = own_valkey.url
    (tree / "first").write_text("first")
    watcher = programs.start("autosync-watch", f"--broker={broker}", *options)
    wait_until(lambda: own_valkey.client().llen("autosync:autosync.fleet:9") > 0, what="a message waits for a worker")

    own_valkey.client().flushall()
    programs.worker(broker=broker, AUTOSYNC_SOURCES=sources(tree))

    equal_soon(bucket, tree, "everything is compared again")
    assert "has lost its memory" in watcher.output()


def test_flower_lists_both_workers_and_readable_transfers(
    programs: Programs, broker: str, bucket: Bucket, tree: Path, options: list[str]
) -> None:
    for number in range(1000):
        (tree / f"photo {number}.jpg").write_text("x" * 100)
    (tree / "film.mov").write_bytes(os.urandom(1 << 20) * 300)
    for number in (1, 2):
        programs.worker("-n", f"box{number}@%h", broker=broker, AUTOSYNC_SOURCES=sources(tree))
    port = free_port()
    flower = programs.start(
        "celery", "-A", "autosync", "flower", f"--port={port}", "--address=127.0.0.1",
        CELERY_BROKER_URL=broker, FLOWER_UNAUTHENTICATED_API="1",
    )  # fmt: skip

    def fetch(path: str) -> dict:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=30) as response:
                found: dict = json.load(response)
                return found
        except OSError:
            assert flower.poll() is None, flower.output()
            return {}

    wait_until(lambda: len(fetch("workers?refresh=1")) == 2, 40, "Flower knows both workers", pause=0.3)
    assert {name.partition("@")[0] for name in fetch("workers")} == {"box1", "box2"}
    programs.start("autosync-watch", f"--broker={broker}", *options)
    seen_progress: list[str] = []

    def through() -> bool:
        seen_progress.extend(str(task["result"]) for task in fetch("tasks").values() if "% " in str(task.get("result")))
        return bucket.sizes() == on_disk(tree)

    wait_until(through, 60, "everything is sent", pause=0.1)

    def finished() -> list[dict]:
        return [task for task in fetch("tasks").values() if task["state"] == "SUCCESS"]

    tasks = wait_until(lambda: len(finished()) >= 11 and finished(), 20, "Flower has seen the batches end")
    film = next(task for task in tasks if "film.mov" in task["args"])
    assert film["name"] == "autosync.upload"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/tasks", timeout=30) as response:
        columns = re.findall(r"<th[^>]*>\s*([\w ]+?)\s*</th>", response.read().decode())
    assert [column.lower() for column in columns] == ["name", "args", "state", "result", "received", "runtime", "worker"]
    assert film["args"].startswith("fleet: film.mov")
    assert "1 file, 300.0 MiB" in film["result"] or "files, 300." in film["result"]
    assert {task["worker"].partition("@")[0] for task in tasks} == {"box1", "box2"}
    assert seen_progress, "a large file reported its progress"
    assert "of 300.0 MiB" in seen_progress[-1]


def test_a_line_for_people_describes_a_batch() -> None:
    assert batch_line("m", ["a/b"], 5) == "m: a/b (5 B)"
    assert batch_line("m", ["a", "b", "c"], 5 << 30) == "m: a +2 (5.0 GiB)"
    assert batch_line("m", ["new\nline\udcff"], 0) == "m: new\\nline\\udcff (0 B)"


def test_an_actor_of_the_users_own_by_name_on_a_fleet_and_on_one_host(programs: Programs, broker: str, tree: Path, tmp_path: Path) -> None:
    desk = tmp_path / "desk"
    desk.mkdir()
    store = tmp_path / "store"
    store.mkdir()
    (desk / "my_actor.py").write_text(MY_ACTOR)
    for number in range(20):
        (tree / f"{number}.mp3").write_text(str(number))
    (tree / "text.txt").write_text("not wanted")
    options = [f"--store={store}", "--password=hunter2", f"--source-prefix={tree}/", "--source-filter=^.*[mM][pP]3$", str(tree)]

    alone = programs.run("python", "my_actor.py", "--once", *options, cwd=desk)

    assert alone.returncode == 0, alone.stderr
    assert sorted(path.name for path in store.iterdir()) == sorted(f"{number}.mp3" for number in range(20))
    assert (store / "3.mp3").read_text() == "hunter2:3"

    (tree / "3.mp3").unlink()
    (tree / "new.mp3").write_text("new")
    (desk / "celeryconfig.py").write_text(f"autosync_sources = [{str(tree)!r}]\nautosync_secrets = {{'password': 'from-the-file'}}\n")
    worker = programs.worker(broker=broker, cwd=desk, AUTOSYNC_PASSWORD="from-the-box")
    # The fleet's broker does not know what the one host's knew.
    command = ["autosync-watch", "--once", f"--broker={broker}", "--actor=my_actor.MyActor", "--accept-existing"]
    fleet = programs.run(*command, *options, cwd=desk)

    assert fleet.returncode == 0, fleet.stderr + worker.output()
    assert not (store / "3.mp3").exists()
    assert (store / "new.mp3").read_text() == "from-the-box:new"
    stored = b"".join(str(value).encode() for value in _everything(broker))
    assert b"hunter2" not in stored
    assert b"my_actor.MyActor" in stored


def _everything(broker: str) -> list[object]:
    client = connect(broker)
    return [client.hgetall(key) for key in client.scan_iter() if client.type(key) == b"hash"]


MY_ACTOR = """
import os

import click

from autosync import Actor, File, SecretOption, main


class MyActor(Actor):
    options = (click.Option(["--store"], required=True), SecretOption(["--password"]))

    def list(self):
        for name in os.listdir(self.store):
            seen = os.stat(f"{self.store}/{name}")
            yield File(key=name, size=seen.st_size - len("hunter2:"), mtime=seen.st_mtime)

    def upload(self, file):
        with file.open() as source, open(f"{self.store}/{file.key}", "wb") as target:
            target.write(self.password.encode() + b":" + source.read())

    def delete(self, file):
        os.unlink(f"{self.store}/{file.key}")


if __name__ == "__main__":
    main(actor=MyActor)
"""
