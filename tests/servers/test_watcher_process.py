"""The lock of a mirror's watcher and the process that holds it: a zombie, or another program with its process id, does not hold it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from autosync.daemon import one_host
from autosync.errors import StartError
from autosync.ledger import Ledger, connect
from autosync.ledger.watcher_lock import WatcherLock
from autosync.process.process_state import stat_of

#: Acquires the lock of the mirror m at a broker, and holds it until its input ends.
HOLDER = """
import sys, threading
from autosync.ledger import Ledger, connect
from autosync.ledger.watcher_lock import WatcherLock
WatcherLock(Ledger(connect(sys.argv[1]), "m").watcher_lock, "m", "boot", 15.0).acquire(threading.Event())
print("locked", flush=True)
sys.stdin.read()
"""
#: Locks a state directory, and forks a child that shares the lock and ends with the input.
OWNER = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from autosync.daemon.one_host import lock
with lock(Path(sys.argv[1]), "m"):
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
    print("locked", flush=True)
    signal.pause()
"""
#: Longer than any wait for a lease, in ms.
ENDLESS = 600_000


@pytest.fixture
def ledger(broker: str) -> Ledger:
    return Ledger(connect(broker), "m")


@pytest.fixture
def holder(broker: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock, with a lease that does not end within a test."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, broker], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    connect(broker).pexpire("autosync:{m}:watcher", ENDLESS)
    yield process
    process.kill()
    process.communicate()


def write_holder(broker: str, ledger: Ledger, **fields: object) -> None:
    """Change fields of the holder that the ledger has; None removes one."""
    found = json.loads((ledger.watcher_lock.holder() or ("",))[0]) | fields
    holder = json.dumps({name: value for name, value in found.items() if value is not None})
    connect(broker).set("autosync:{m}:watcher", holder, px=ENDLESS)


def acquire(ledger: Ledger, stop: threading.Event | None = None, **options: bool) -> bool:
    return WatcherLock(ledger.watcher_lock, "m", "boot", 3.0, **options).acquire(stop or threading.Event())


@pytest.mark.parametrize("version", ["this", "older"])
def test_the_lock_of_a_running_process_is_not_free_and_that_of_a_zombie_is(
    ledger: Ledger, broker: str, holder: subprocess.Popen[bytes], version: str
) -> None:
    if version == "older":
        write_holder(broker, ledger, start_time=None, namespaces=None)
    with pytest.raises(StartError, match=f"already watched by process {holder.pid} on "):
        acquire(ledger)

    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # does not reap it
    assert os.path.exists(f"/proc/{holder.pid}")

    assert acquire(ledger)


def test_a_watcher_goes_on_if_a_zombie_has_the_lock_again(ledger: Ledger, broker: str, holder: subprocess.Popen[bytes]) -> None:
    """A broker that is killed may come back with the memory of seconds ago."""
    before, _ = ledger.watcher_lock.holder() or ("", 0.0)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    lock = WatcherLock(ledger.watcher_lock, "m", "boot", 3.0)
    assert lock.acquire(threading.Event())
    connect(broker).set("autosync:{m}:watcher", before, px=ENDLESS)

    assert lock.renew().holder != before


def test_the_lock_of_a_process_whose_id_another_program_has_now_is_free(
    ledger: Ledger, broker: str, holder: subprocess.Popen[bytes]
) -> None:
    other = subprocess.Popen(["sleep", "600"])
    try:
        seen = stat_of(other.pid)
        assert seen is not None
        write_holder(broker, ledger, pid=other.pid, start_time=seen.start_time)
        with pytest.raises(StartError, match="already watched"):
            acquire(ledger)
        write_holder(broker, ledger, start_time=seen.start_time - 1)
        assert acquire(ledger)
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("owner", [json.dumps({"host": "before", "pid": 1, "boot": "before"}), "no JSON"])
def test_a_broker_of_one_process_alone_has_no_other_watcher(ledger: Ledger, broker: str, owner: str) -> None:
    """A container that was killed comes back with its state directory, and in another PID namespace."""
    connect(broker).set("autosync:{m}:watcher", owner, px=ENDLESS)

    assert acquire(ledger, has_broker_alone=True)


@pytest.mark.parametrize("fields", [{"namespaces": "pid:[1]"}, {"boot": "another"}, {"pid": "1"}, {"pid": -1}, {"pid": True}])
def test_the_lease_decides_where_a_process_id_means_nothing_here(
    ledger: Ledger, broker: str, holder: subprocess.Popen[bytes], fields: dict[str, object]
) -> None:
    holder.kill()
    holder.communicate()
    write_holder(broker, ledger, **fields)
    stop = threading.Event()
    stop.set()

    assert not acquire(ledger, stop), "it waits"
    connect(broker).pexpire("autosync:{m}:watcher", 1)
    assert acquire(ledger)


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_a_state_directory_is_free_when_the_children_of_a_killed_autosync_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reaped: bool
) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdin is not None
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"locked\n"
    owner.kill()
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        owner.wait()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            owner.stdin.close()  # type: ignore[union-attr]
        threading.Event().wait(seconds)

    monkeypatch.setattr(one_host, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    try:
        with one_host.lock(tmp_path, "m"):
            assert len(pauses) >= 3
    finally:
        owner.stdin.close()
        owner.stdout.close()
        owner.wait()
