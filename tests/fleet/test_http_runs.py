"""The HTTP actor in whole runs: on one host, by name on a fleet, and with a server that answers as little as it may."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.actor import Actor
from autosync.actors import load
from autosync.testing import listed
from lab.buckets import on_disk
from lab.media import EXAMPLES, SECRET, MediaServer, serving
from lab.programs import Program, Programs
from lab.servers import Valkey, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MediaServer]:
    with serving(tmp_path / "media") as made:
        yield made


@pytest.fixture
def actor(server: MediaServer) -> Iterator[Actor]:
    made = load("http")(url=server.url, secret=SECRET)
    yield made
    made.close()


def test_a_target_without_order_times_and_digests_does_not_get_everything_with_each_scan(
    programs: Programs, tree: Path, tmp_path: Path
) -> None:
    for number in range(30):
        (tree / f"{number}.mp3").write_text(str(number))
    with serving(tmp_path / "media", "--plain", "--page=7") as server:
        options = ["--actor=http", f"--url={server.url}", f"--secret=@{server.directory}/secret", f"--source-prefix={tree}/", str(tree)]

        def uploaded() -> int:
            done = programs.run("autosync", "--once", f"--state-dir={tmp_path}/state", *options)
            assert done.returncode == 0, done.stderr
            return int(re.search(r"uploaded (\d+) files", done.stderr)[1])  # type: ignore[index]

        assert uploaded() == 30
        # What changed within the last seconds before a scan is sent once more.
        wait_until(lambda: uploaded() == 0, 60, "it knows what it has sent")
        (tree / "7.mp3").write_text("X")  # as large as before
        assert uploaded() == 1
        actor = load("http")(url=server.url, secret=SECRET)
        assert listed(actor) == on_disk(tree)
        actor.close()


def station(tree: Path) -> dict[str, int]:
    for name in ("jazz.mp3", "show/NEWS.MP3", "show/notes.txt", "été.Mp3"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(name)
    return {key: size for key, size in on_disk(tree).items() if key.lower().endswith("mp3")}


def test_the_example_of_the_mission_runs_on_one_host(server: MediaServer, programs: Programs, tree: Path, tmp_path: Path) -> None:
    wanted = station(tree)
    (tmp_path / "media_file_actor.py").write_text((EXAMPLES / "media_file_actor.py").read_text())
    command = [
        "python", "media_file_actor.py", f"--url={server.url}", f"--secret={SECRET}", f"--source_prefix={tree}/", "--threads=1",
        "--source_filter=^.*[mM][pP]3$", f"{tree}/",
    ]  # fmt: skip
    process = programs.start(*command, cwd=tmp_path)
    actor = load("http")(url=server.url, secret=SECRET)
    wait_until(lambda: listed(actor) == wanted, 30, "all is there")

    (tree / "more.mp3").write_text("more")
    (tree / "jazz.mp3").unlink()
    (tree / "more.txt").write_text("no")
    wanted = {**{key: size for key, size in wanted.items() if key != "jazz.mp3"}, "more.mp3": 4}
    wait_until(lambda: listed(actor) == wanted, 30, "it is kept so")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    actor.close()


def test_it_runs_by_name_on_a_fleet(server: MediaServer, programs: Programs, own_valkey: Valkey, tree: Path, tmp_path: Path) -> None:
    wanted = station(tree)
    (tmp_path / "media_file_actor.py").write_text((EXAMPLES / "media_file_actor.py").read_text())
    (tmp_path / "secret").write_text(SECRET)
    secret = {"AUTOSYNC_SECRET": f"@{tmp_path}/secret"}
    programs.worker(broker=own_valkey.url, cwd=tmp_path, AUTOSYNC_SOURCES=str(tree), **secret)
    watcher: Program = programs.start(
        "autosync-watch", "--actor=media_file_actor.MediaFileActor", f"--broker={own_valkey.url}", f"--url={server.url}",
        f"--source-prefix={tree}/", "--threads=1", "--source-filter=^.*[mM][pP]3$", str(tree), cwd=tmp_path, **secret,
    )  # fmt: skip
    actor = load("http")(url=server.url, secret=SECRET)

    wait_until(lambda: listed(actor) == wanted, 40, "all is there")

    assert watcher.poll() is None
    actor.close()
