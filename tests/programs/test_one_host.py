"""The broker and the workers of one host: workers wait until there is something for them, and cost nothing until then."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autosync.broker.celery_settings import DELETE
from autosync.broker.embedded_valkey import EmbeddedServer
from autosync.celery import _PRELOADED, sending_app
from autosync.daemon.one_host import OneHost
from autosync.feed.publisher import Priority, Publisher
from autosync.ledger import GONE, Ledger, connect
from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from lab.commands import Commands
from lab.mounting import mounts_of_test
from lab.programs import Programs

HOST = """
import pathlib, sys, threading
import autosync.celery
from autosync.model.keys import Source
from autosync.ledger import connect
from autosync.model.mirror import Mirror
from autosync.daemon.one_host import OneHost, lock, serving
from autosync.daemon.state_directory import state_directory
from lab.servers import wait_until

state, more_threads = pathlib.Path(sys.argv[1]), sys.argv[2] == "more threads"
if len(sys.argv) > 3:
    autosync.celery._PRELOADED = tuple(filter(None, sys.argv[3].split(",")))
settings = {"target_container": str(state)}
mirror = Mirror("one", "file", (Source("/nowhere"),), settings=settings, queue="autosync.one")

def words(pid):
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\\0").split(b"\\0")

def served(client):
    return [key for key in client.keys() if b"_kombu.binding.autosync.one" in key]

over = threading.Event()
if more_threads:
    threading.Thread(target=over.wait).start()
directory = state_directory(state, "one")
with lock(directory, "one") as held:
    host = OneHost("one", [mirror], directory, broker=None, workers=2, secrets={}, log_format="text", verbosity=0, lock_file=held)
    with serving(host):
        host.load()
        host.start_waiting()
        host.restart_if_dead()
        waiting = [worker.pid() for worker in host._workers]
        client = connect(host.broker)
        if not more_threads:
            wait_until(lambda: all(b"celery" in words(pid) for pid in waiting), 60, "the workers are there")
        print("forked" if all(waiting) else "none" if not any(waiting) else "some", "busy" if served(client) else "idle")
        host.begin()
        host.begin()
        host.restart_if_dead()
        pids = [worker.pid() for worker in host._workers]
        wait_until(lambda: served(client) and all(b"celery" in words(pid) for pid in pids), 60, "the queue is served")
        host.is_idle = True
over.set()
print("left" if any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids) else "gone")
"""


@pytest.mark.parametrize(("threads", "before"), [("one thread", "forked"), ("more threads", "none")])
def test_workers_wait_as_forks_or_are_not_there_until_there_is_work(threads: str, before: str, tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", HOST, str(tmp_path), threads], capture_output=True, text=True, timeout=100, check=False)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [before, "idle", "gone"]


def test_own_state_is_left_out_of_a_source_that_is_mounted_elsewhere(commands: Commands, tmp_path: Path) -> None:
    home, mounted = tmp_path / "home", tmp_path / "mounted"
    (home / "docs").mkdir(parents=True)
    (home / "docs/a").touch()
    (home / "state/one").mkdir(parents=True)
    (home / "state/one/lock").touch()
    options = ["--actor=file", f"--target-container={tmp_path}/target", f"--state-dir={home}/state", f"--source-prefix={mounted}/"]
    (tmp_path / "target").mkdir()
    with mounts_of_test() as mounts:
        mounts.bind(home, mounted)

        done = commands.run("autosync", "--dry-run", *options, str(mounted))

    assert done.stdout.splitlines() == ["upload docs/a"], done.stderr
    assert f"{mounted}/state is left out" in done.stderr


@pytest.mark.parametrize("preloaded", ["", "celery.worker.no_such_module,no_such_package.inner"], ids=["nothing", "names that are none"])
def test_workers_need_nothing_of_celery_that_was_loaded_before(preloaded: str, tmp_path: Path) -> None:
    words = [str(tmp_path), "one thread", preloaded]
    ended = subprocess.run([sys.executable, "-c", HOST, *words], capture_output=True, text=True, timeout=100, check=False)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["forked", "idle", "gone"]


#: Makes a worker in a fork for each of the modules, with all of them preloaded but this one; prints for which it could.
ONE_LESS = """
import os, warnings
from autosync import celery

warnings.simplefilter("ignore")
for name in celery._PRELOADED:
    child = os.fork()
    if not child:
        celery._PRELOADED = tuple(other for other in celery._PRELOADED if other != name)
        celery.load_worker()
        celery.app.Worker(hostname="one@here", loglevel="WARNING", quiet=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(name)
"""


def test_workers_need_none_of_what_is_loaded_before() -> None:
    """In no order either: a module that is imported before or after another one may meet with a circle."""
    ended = subprocess.run([sys.executable, "-c", ONE_LESS], capture_output=True, text=True, timeout=100, check=False)

    assert ended.stdout.split() == list(_PRELOADED), ended.stderr


def test_what_was_left_to_do_is_done_even_if_nothing_differs(programs: Programs, tree: Path, tmp_path: Path) -> None:
    """The autosync before this one was killed between a transfer and its result, and a message still waits."""
    (tmp_path / "target").mkdir()
    server = EmbeddedServer(tmp_path / "state" / "one")
    (tmp_path / "state" / "one").mkdir(parents=True)
    server.start()
    server.wait()
    publisher = Publisher(sending_app(server.url, "autosync.one"), "one", "autosync.one", Ledger(connect(server.url), "one"))
    publisher.mark([("left", GONE)], size=0, priority=Priority.EVENT, task=DELETE)
    publisher.close()
    server.stop()

    done = programs.run(
        "autosync", "--once", "--actor=file", f"--target-container={tmp_path / 'target'}", "--name=one", f"--source-prefix={tree}/",
        f"--state-dir={tmp_path / 'state'}", "--no-delete", str(tree),
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_a_worker_has_the_same_name_in_the_log_of_its_parent_as_everywhere(tmp_path: Path) -> None:
    mirror = Mirror("desk", "file", (Source("/nowhere"),))
    with open(tmp_path / "lock", "w", encoding="utf-8") as lock_file:
        options: dict[str, Any] = {"broker": "redis://127.0.0.1:1", "workers": 2, "log_format": "json", "verbosity": 0}
        host = OneHost("desk", [mirror], tmp_path, secrets={}, lock_file=lock_file, **options)

    assert [worker.name for worker in host._workers] == [f"worker desk-{number}@{socket.gethostname()}" for number in (1, 2)]
    assert [worker._log_fields for worker in host._workers] == [{"worker": f"desk-{number}@{socket.gethostname()}"} for number in (1, 2)]
