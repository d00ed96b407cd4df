"""Two versions of autosync side by side, as on the day on which a fleet is updated."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

import autosync
from lab.buckets import Bucket, equal_soon, on_disk
from lab.programs import Programs
from lab.servers import wait_until

#: The package before definitions had a format.
EARLIER = Path(__file__).parent / "versions/autosync-1f83b76.tar.xz"
#: What a later version adds to `model/mirror.py`: a field that a worker must know.
LATER = {
    "    lease: float = _later(LEASE)\n": '    lease: float = _later(LEASE)\n    trash: str = "trash/"\n',
    '_LATER = {one.name: one.default for': '_LATER = {"trash": ""} | {one.name: one.default for',
}
FILES = 600


@pytest.fixture
def options(bucket: Bucket, tree: Path) -> list[str]:
    for number in range(FILES):
        (tree / str(number)).write_text(str(number))
    return [*bucket.options(), f"--source-prefix={tree}/", "--name=fleet", str(tree)]


@pytest.fixture
def earlier(tmp_path: Path) -> str:
    """For PYTHONPATH: the earlier version."""
    with tarfile.open(EARLIER) as archive:
        archive.extractall(tmp_path / "earlier", filter="data")
    return str(tmp_path / "earlier")


@pytest.fixture
def later(tmp_path: Path) -> str:
    """For PYTHONPATH: a version whose definitions have a field that is not known here."""
    shutil.copytree(Path(autosync.__file__).parent, tmp_path / "later/autosync", ignore=shutil.ignore_patterns("__pycache__"))
    module = tmp_path / "later/autosync/model/mirror.py"
    text = module.read_text()
    for before, after in LATER.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    module.write_text(text)
    return str(tmp_path / "later")


def watch(*options: str) -> list[str]:
    """The command `autosync-watch` of whatever version PYTHONPATH names; each version has entry points of its own."""
    return ["python", "-P", "-c", "from autosync.cli import watch; watch()", *options]


def runs_version_of(programs: Programs, path: str) -> bool:
    done = programs.run("python", "-P", "-c", "import autosync; print(autosync.__file__)", PYTHONPATH=path)
    return done.stdout.startswith(path)


@pytest.mark.parametrize("watcher", ["earlier", "this"])
def test_workers_of_two_versions_share_the_work_of_a_watcher_of_either(
    programs: Programs, broker: str, bucket: Bucket, tree: Path, options: list[str], earlier: str, watcher: str
) -> None:
    assert runs_version_of(programs, earlier)
    environ = {"AUTOSYNC_SOURCES": json.dumps([str(tree)])}
    workers = [
        programs.worker("-n", "earlier@%h", broker=broker, PYTHONPATH=earlier, **environ),
        programs.worker("-n", "this@%h", broker=broker, **environ),
    ]

    done = programs.run(*watch("--once", f"--broker={broker}", *options), **({"PYTHONPATH": earlier} if watcher == "earlier" else {}))

    assert done.returncode == 0, done.stderr
    assert bucket.sizes() == on_disk(tree)
    shares = [worker.output().count("uploaded ") for worker in workers]
    assert sum(shares) == FILES
    assert min(shares) > 0, shares


def test_a_worker_leaves_the_keys_of_a_definition_that_needs_a_later_version_to_workers_of_that(
    programs: Programs, broker: str, bucket: Bucket, tree: Path, options: list[str], later: str
) -> None:
    assert runs_version_of(programs, later)
    environ = {"AUTOSYNC_SOURCES": json.dumps([str(tree)])}
    worker = programs.worker("-n", "this@%h", broker=broker, **environ)
    watcher = programs.start(*watch(f"--broker={broker}", *options), PYTHONPATH=later)

    def control(*words: str) -> str:
        command = "from autosync.cli import control; control()"
        done = programs.run("python", "-P", "-c", command, f"--broker={broker}", *words, PYTHONPATH=later)
        assert done.stdout, done.stderr
        return done.stdout

    def status() -> dict[str, Any]:
        (found,) = json.loads(control("status", "--json"))
        return dict(found)

    wait_until(lambda: "cannot be read here" in worker.output(), 30, "the worker has met the definition")
    wait_until(lambda: status()["messages"] == 0 and status()["dirty"] == FILES, 30, "the worker has taken all messages", pause=0.2)
    wait_until(lambda: status()["unreadable_by"], 30, "the worker has reported it", pause=0.2)
    assert (bucket.sizes(), status()["failed"], watcher.poll()) == ({}, 0, None)
    ((name, reason),) = status()["unreadable_by"].items()
    assert reason == "this version does not know trash; install the same version of autosync on all hosts"
    assert f"worker {name} cannot read the definition: {reason}" in control("status")
    assert f"{name} cannot read the definition" in control("doctor")
    assert worker.output().count("cannot be read here") == 1, "one line a minute"

    programs.worker("-n", "later@%h", broker=broker, PYTHONPATH=later, **environ)
    equal_soon(bucket, tree, "a worker of the later version sends all", 90)
    wait_until(lambda: status()["dirty"] == 0, 30, "nothing is left", pause=0.2)
    assert status()["failed"] == 0
    assert "Traceback" not in worker.output() + watcher.output()
