"""Which definitions a worker takes from the broker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autosync.errors import PermanentError
from autosync.ledger import Ledger, connect
from autosync.model.definition_signature import SIGNING_KEY, sign
from autosync.model.keys import Source
from autosync.model.mirror import Mirror, version_of
from autosync.tasks.worker_state import WorkerState

KEY, OTHER = "k" * 32, "o" * 32


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(name="m", actor="file", sources=(Source(str(tmp_path), False),), settings={"target_container": str(tmp_path / "copy")})


def publish(broker: str, mirror: Mirror, signature: str) -> None:
    definition = mirror.dumps()
    Ledger(connect(broker), mirror.name).definition.publish(definition, version_of(definition), mirror.queue, signature)


def test_a_worker_with_a_key_accepts_what_was_signed_with_it_and_nothing_else(broker: str, mirror: Mirror, tmp_path: Path) -> None:
    worker = WorkerState(broker, [str(tmp_path)], {SIGNING_KEY: KEY}, "box1@host")
    publish(broker, mirror, sign(KEY, "m", mirror.dumps()))
    assert worker.mirror("m").definition == mirror

    stolen = replace(mirror, settings={"target_container": "/elsewhere"})
    for signature in ("", sign(OTHER, "m", stolen.dumps()), sign(KEY, "m", mirror.dumps())):
        publish(broker, stolen, signature)
        with pytest.raises(PermanentError, match="is not signed with this worker's key"):
            worker.mirror("m", fresh=True)
        assert worker.mirror("m").definition == mirror, "what it knows is what was signed"
    worker.close()


def test_a_worker_without_a_key_accepts_any(broker: str, mirror: Mirror, tmp_path: Path) -> None:
    worker = WorkerState(broker, [str(tmp_path)], {}, "box1@host")
    publish(broker, mirror, sign(OTHER, "m", mirror.dumps()))

    assert worker.mirror("m").definition == mirror
    worker.close()
