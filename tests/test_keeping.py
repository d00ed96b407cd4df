"""Keeping a mirror while the broker comes and goes: what one tick could not do, the next does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_feed import Empty

from autosync import run as module
from autosync.errors import BrokerError
from autosync.keys import Source
from autosync.look import Policy
from autosync.mirror import Mirror
from autosync.run import Run, Signals
from autosync.watcher import identity_of
from lab.servers import Valkey


@pytest.fixture
def keeping(tree: Path, tmp_path: Path, broker: str) -> Iterator[module._Keeping]:
    """Keeps a tree, one tick at a time; its threads have not been started."""
    (tree / "f").touch()
    mirror = Mirror("m", "file", (Source(str(tree)),))
    keeping = module._Keeping(Run(mirror, Policy(), Empty(), broker, tmp_path, once=True, settle=0.0, rescan=0.0), Signals(), None)
    keeping._place.take(keeping._signals.stop)
    keeping._register(keeping._mirror)
    yield keeping
    keeping._publisher.close()


def gone(*_: object) -> None:
    raise BrokerError("the broker has gone away")


@pytest.mark.parametrize("call", ["register", "cleared", "holding"])
def test_a_broker_that_lost_its_memory_and_goes_away_again_is_told_everything_once_it_stays(
    keeping: module._Keeping, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    keeping._tick()
    assert keeping._settle.is_idle()

    valkey.client().flushall()
    with monkeypatch.context() as patch:
        patch.setattr(keeping._ledger, call, gone)
        keeping._tick()
    keeping._tick()

    assert keeping._settle.take_look() == ("", False)


@pytest.mark.parametrize("call", ["register", "cleared", "holding"])
def test_another_root_is_the_source_also_if_the_broker_goes_away_while_it_is_told(
    keeping: module._Keeping, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    tree.rename(tmp_path / "old")
    tree.mkdir()
    (tree / "f").touch()
    with monkeypatch.context() as patch:
        patch.setattr(keeping._ledger, call, gone)
        keeping._tick()
    keeping._tick()

    published = keeping._ledger.definition()
    assert published is not None
    assert Mirror.loads(published[0]).identities == {str(tree): identity_of(str(tree))}
    assert keeping._version == published[1]
