"""The lock of a mirror's watcher in PID namespaces: process ids that are reused, or that belong to another namespace or user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect
from autosync.ledger.watcher_lock import WatcherLock
from lab import ROOT
from lab.parts import permitted

LOCK = "autosync:{m}:watcher"
#: Longer than any wait for a lease, in ms.
ENDLESS = 600_000
#: Runs as the first process of a PID namespace; its arguments are a broker, and the id of the process that acquires the lock.
FIRST = f"""
import os, signal, sys, threading
from autosync.ledger import Ledger, connect
from autosync.ledger.watcher_lock import WatcherLock
from autosync.process.process_state import stat_of

broker, pid = sys.argv[1], int(sys.argv[2])

def acquire():
    with connect(broker) as client:
        WatcherLock(Ledger(client, "m").watcher_lock, "m", "boot", 15.0).acquire(threading.Event())
        client.pexpire("{LOCK}", {ENDLESS})

def fork():
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    child = os.fork()
    assert child in (0, pid), "the kernel gave another process id"
    return child
"""
REUSE = (
    FIRST
    + """
if not fork():
    acquire()
    os._exit(0)
before = stat_of(pid).start_time
assert os.waitpid(pid, 0)[1] == 0
while True:  # a clock tick later
    if not fork():
        signal.pause()
    if stat_of(pid).start_time > before:
        break
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print("reused", flush=True)
acquire()
print("acquired", flush=True)
"""
)
HOLD = (
    FIRST
    + """
if not fork():
    acquire()
    print("locked", flush=True)
    sys.stdin.read()
    os._exit(0)
os.waitpid(pid, 0)
"""
)
#: Its arguments are a broker, and the id of a process that another user must not see.
ACQUIRE = """
import os, sys, threading
from autosync.ledger import Ledger, connect
from autosync.ledger.watcher_lock import WatcherLock
lease = Ledger(connect(sys.argv[1]), "m").watcher_lock
lease.heartbeat("")  # loads what the other user may not read
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
assert not os.path.exists(f"/proc/{sys.argv[2]}"), "/proc shows the process"
stop = threading.Event()
stop.set()
print(WatcherLock(lease, "m", "boot", 15.0).acquire(stop))
"""


@pytest.fixture
def ledger(broker: str) -> Ledger:
    return Ledger(connect(broker), "m")


def in_namespace(program: str, broker: str, pid: int) -> list[str]:
    permitted("unshare", "--pid", "--fork", "--mount-proc", "test", "-w", "/proc/sys/kernel/ns_last_pid")
    return ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", program, broker, str(pid)]


def test_the_lock_is_free_if_another_program_has_the_process_id_of_its_holder(broker: str) -> None:
    done = subprocess.run(in_namespace(REUSE, broker, 300), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert "reused" in done.stdout, done.stderr
    assert "acquired" in done.stdout, done.stderr


def test_the_lock_of_a_process_in_another_pid_namespace_is_not_free(broker: str, ledger: Ledger) -> None:
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    unused = next(pid for pid in range(min(most, 4_000_000) - 1, 300, -1) if not os.path.exists(f"/proc/{pid}"))
    first = subprocess.Popen(in_namespace(HOLD, broker, unused), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"locked\n"
        before, _ = ledger.watcher_lock.holder() or ("", 0.0)
        assert json.loads(before)["pid"] == unused
        stop = threading.Event()
        stop.set()

        assert not WatcherLock(ledger.watcher_lock, "m", "boot", 15.0).acquire(stop)
        assert (ledger.watcher_lock.holder() or ("",))[0] == before
    finally:
        first.kill()
        first.communicate()


def test_the_lock_of_a_process_that_proc_does_not_list_is_not_free(broker: str, ledger: Ledger) -> None:
    """With the option hidepid of /proc, users do not see each other's processes."""
    permitted("unshare", "--mount", "mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc")
    WatcherLock(ledger.watcher_lock, "m", "boot", 15.0).acquire(threading.Event())
    before, _ = ledger.watcher_lock.holder() or ("", 0.0)
    connect(broker).pexpire(LOCK, ENDLESS)
    script = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", ACQUIRE, broker, str(os.getpid())],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.stdout == "False\n", done.stderr
    assert (ledger.watcher_lock.holder() or ("",))[0] == before
