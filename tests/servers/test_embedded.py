"""The broker of one host, as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from autosync.broker.embedded_valkey import EmbeddedServer
from autosync.daemon import one_host
from autosync.errors import StartError
from autosync.ledger import connect
from lab.servers import wait_until

LIMIT = 20.0


def test_a_broker_that_is_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    killed: list[int] = []

    def kill() -> None:
        killed.append(wait_until(lambda: server.pid, LIMIT, "it is being started", pause=0.0001) or 0)
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        server.start()
        server.wait()
        killer.join(LIMIT)
        assert server.pid != killed[0]
        with connect(server.url) as client:
            assert client.ping()
    finally:
        server.stop()


HOST = """
import pathlib, sys, time
from autosync.daemon.one_host import lock
from autosync.broker.embedded_valkey import EmbeddedServer

directory = pathlib.Path(sys.argv[1])
with lock(directory, "m") as held:
    server = EmbeddedServer(directory, held.fileno())
    server.start()
    server.wait()
    print(server.pid, flush=True)
    time.sleep(600)
"""


def is_running(pid: int) -> bool:
    """Whether there is such a process; a zombie does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "does not end"])
def test_the_next_autosync_waits_for_the_broker_of_one_that_was_killed(ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would find its socket removed by that broker's end, and two would write to one file."""
    first = subprocess.Popen([sys.executable, "-c", HOST, str(tmp_path)], stdout=subprocess.PIPE)
    assert first.stdout is not None
    old = int(first.stdout.readline())
    os.kill(old, signal.SIGSTOP)
    first.kill()
    first.communicate()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3 and ends:
            os.kill(old, signal.SIGCONT)
        threading.Event().wait(seconds)

    monkeypatch.setattr(one_host, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    try:
        if not ends:
            monkeypatch.setattr(one_host, "_ORPHANS", 0.1)
            with pytest.raises(StartError, match=f"already watched by another autosync .process {first.pid}."):
                one_host.lock(tmp_path, "m")
            return
        with one_host.lock(tmp_path, "m") as locked:
            assert len(pauses) >= 3
            assert not is_running(old)
            server = EmbeddedServer(tmp_path, locked.fileno())
            server.start()
            try:
                server.wait()
                with connect(server.url) as client:
                    assert client.info("server")["process_id"] == server.pid
            finally:
                server.stop()
    finally:
        with suppress(ProcessLookupError):
            os.kill(old, signal.SIGKILL)
