"""The embedded broker is killed before each call that is made to it, from the first to the last: nothing of that ends the main loop."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autosync.actors.file import FileActor
from autosync.compare.delete_limit import DeleteLimit
from autosync.compare.diff import Compare
from autosync.compare.scan import Policy
from autosync.daemon.main_loop import Signals, run_mirrors
from autosync.daemon.mirror_runner import MirrorRunner, RunSettings
from autosync.daemon.one_host import OneHost, lock, serving
from autosync.daemon.state_directory import state_directory
from autosync.errors import BrokerError, Exit
from autosync.ledger import FleetLimits, Ledger, WatcherLockEntry
from autosync.ledger.claims import Claims
from autosync.ledger.definition import DefinitionStore
from autosync.ledger.failures import Failures
from autosync.ledger.history import History
from autosync.ledger.key_states import KeyStates
from autosync.ledger.operator_requests import OperatorRequests
from autosync.ledger.queues import Queues
from autosync.ledger.stats import Stats
from autosync.ledger.sync_state import SyncState
from autosync.ledger.uploads import OpenUploads
from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from autosync.process.boot_id import boot_id
from autosync.watch.watcher import identity_of
from lab.servers import wait_until

LIMIT = 20.0


def kill(host: OneHost) -> None:
    """The host's broker is dead when this returns."""
    assert host._server is not None
    pid = host._server.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    status = Path(f"/proc/{pid}/stat")
    wait_until(lambda: not status.exists() or ") Z " in status.read_text(), LIMIT, "it is dead", pause=0.0005)


#: All clients of the broker for a mirror.
PARTS = (
    Claims, DefinitionStore, Failures, FleetLimits, History, KeyStates, Ledger, OpenUploads, OperatorRequests, Queues, Stats, SyncState,
    WatcherLockEntry,
)


class Life:
    """One run of the main loop, with an embedded broker and no worker.

    Args:
        directory: for its state, its source and its target.
        once: it ends when source and target are equal; else the first tick is followed by SIGTERM.
        at: the numbers of the calls of the ledger before which the broker is killed.
    """

    def __init__(self, directory: Path, *, once: bool, at: set[int]) -> None:
        self.calls: list[str] = []
        self.signals = Signals()
        self._directory = directory
        self._once = once
        self._at = at

    def run(self, patch: pytest.MonkeyPatch) -> Exit:
        """From the start to the end."""
        source, target = self._directory / "source", self._directory / "target"
        source.mkdir(parents=True)
        target.mkdir()
        settings = {"target_container": str(target)}
        identities = {str(source): identity_of(str(source))}
        mirror = Mirror("m", "file", (Source(str(source)),), identities, queue="q", host=boot_id(), settings=settings)
        state = state_directory(self._directory, "m")
        policy = Policy(True, DeleteLimit(), Compare.TIME)
        with lock(state, "m") as locked:
            host = OneHost("m", [mirror], state, broker=None, workers=0, secrets={}, log_format="text", verbosity=0, lock_file=locked)
            for part, name, method in [(one, *item) for one in PARTS for item in vars(one).items()]:
                if callable(method) and not name.startswith("_"):
                    patch.setattr(part, name, self._counted(name, method, host))
            if not self._once:
                tick = MirrorRunner.tick

                def last(keeping: MirrorRunner) -> None:
                    tick(keeping)
                    self.signals._receive(signal.SIGTERM, None)

                patch.setattr(MirrorRunner, "tick", last)
            with serving(host):
                host.start_waiting()
                run = RunSettings(mirror, policy, FileActor(**settings), host.broker, state, once=self._once, settle=0.0, rescan=0.0)
                return run_mirrors([run], self.signals, host)

    def _counted(self, name: str, method: Callable[..., Any], host: OneHost) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) in self._at:
                kill(host)
            return method(*args, **options)

        return call


@pytest.mark.parametrize(("once", "kills"), [(True, 1), (False, 2)], ids=["--once, one kill", "until SIGTERM, two kills in a row"])
def test_the_main_loop_outlives_the_loss_of_its_broker_at_any_moment(once: bool, kills: int, tmp_path: Path) -> None:
    for first in range(1, 1000):
        life = Life(tmp_path / str(first), once=once, at=set(range(first, first + kills)))
        with pytest.MonkeyPatch.context() as patch:
            ended = life.run(patch)
        assert ended == Exit.DONE, (first, life.calls)
        if len(life.calls) < first + kills - 1:
            break
    assert first > 10
    assert {"heartbeat", "publish", "release"} <= set(life.calls)
    gc.collect()  # a socket that was not closed is an error of this test, and not of a later one


@pytest.mark.parametrize(
    ("once", "number", "code"),
    [(False, signal.SIGTERM, Exit.DONE), (False, signal.SIGINT, Exit.INTERRUPTED), (True, signal.SIGTERM, Exit.INTERRUPTED)],
    ids=["SIGTERM", "SIGINT", "SIGTERM before --once is through"],
)
def test_a_signal_ends_a_start_that_waits_for_its_broker(
    once: bool, number: int, code: Exit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(tmp_path, once=once, at={1})

    def tend(_: OneHost) -> list[int]:
        life.signals._receive(number, None)
        return []

    monkeypatch.setattr(OneHost, "restart_if_dead", tend)

    assert life.run(monkeypatch) == code
    assert life.calls == ["heartbeat", "release", "close"]


def test_a_start_whose_broker_does_not_come_back_ends_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(tmp_path, once=False, at={1})
    monkeypatch.setattr(OneHost, "restart_if_dead", lambda _: [])
    monkeypatch.setattr("autosync.daemon.main_loop._BROKER_PATIENCE", 3.0)

    with pytest.raises(BrokerError, match="Connection refused"):
        life.run(monkeypatch)
    assert life.calls.count("heartbeat") > 1
