"""Mirrors that can make the same keys: at the start, at scans, and what is left of those that have stopped."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autosync.actors.file import FileActor
from autosync.compare.deletions import Permission
from autosync.compare.scan import Policy, ScanReport
from autosync.daemon.mirror_runner import MirrorRunner, RunSettings
from autosync.errors import StartError
from autosync.ledger import Ledger, connect, mirror_names
from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from autosync.process.boot_id import boot_id
from autosync.state.run_record import RunRecord
from autosync.state.state_file import StateFile
from autosync.state.state_lock import watch_lock
from autosync.watch.scan_requests import ScanRequest
from lab.commands import Commands
from lab.comparing import fill

DAY = 86_400.0


@pytest.fixture
def define(tmp_path: Path) -> Callable[..., Mirror]:
    """Makes definitions of mirrors into the directory `to`, each with a source of its own."""
    (tmp_path / "to").mkdir()

    def make(name: str, **fields: Any) -> Mirror:
        source = tmp_path / f"source-{name}"
        source.mkdir(exist_ok=True)
        options = {"settings": {"target_container": f"{tmp_path}/to"}, "source_prefix": f"{source}/", "host": boot_id(), **fields}
        return Mirror(name, "file", (Source(str(source)),), **options)

    return make


@pytest.fixture
def runner(broker: str, tmp_path: Path) -> Iterator[Callable[[Mirror], MirrorRunner]]:
    """Makes runners, each with a state directory of its own. The test begins them."""
    made: list[MirrorRunner] = []

    def make(mirror: Mirror) -> MirrorRunner:
        state = tmp_path / "states" / mirror.name
        state.mkdir(parents=True, exist_ok=True)
        actor = FileActor(**mirror.settings)
        made.append(MirrorRunner(RunSettings(mirror, Policy(), actor, broker, state, once=False, settle=0.0, rescan=0.0), None))
        return made[-1]

    yield make
    for one in made:
        one._stop.set()
        one.leave()


def begin(one: MirrorRunner) -> None:
    assert one.begin(threading.Event())


def ran(mirror: Mirror, where: str, broker: str, tmp_path: Path, ago: float) -> None:
    """Leave what a run of a mirror leaves that ended so long ago, in one of both places."""
    state = tmp_path / "states" / mirror.name
    state.mkdir(parents=True, exist_ok=True)
    (state / "lock").touch()
    ledger = Ledger(connect(broker), mirror.name)
    ledger.definition.publish(mirror.dumps(), "v", mirror.queue)
    ledger.definition.set_ran_at(time.time() - ago)
    RunRecord(StateFile(state, mirror.name), ledger.definition, "").write(mirror)
    StateFile(state, mirror.name).update(ran_at=time.time() - ago)
    if where == "state directory":
        ledger.delete()
    else:
        StateFile(state, mirror.name).path.unlink()


@pytest.mark.parametrize("where", ["state directory", "broker"])
def test_a_mirror_is_refused_whose_keys_another_can_make_that_ran_within_30_days(
    define: Callable[..., Mirror], runner: Callable[[Mirror], MirrorRunner], broker: str, tmp_path: Path, where: str
) -> None:
    ran(define("old", target_prefix="in/"), where, broker, tmp_path, ago=29 * DAY)

    with pytest.raises(StartError) as caught:
        begin(runner(define("new")))

    day = time.strftime("%Y-%m-%d", time.localtime(time.time() - 29 * DAY))
    for part in ("mirror new", "mirror old", f"ran last on {day}", "--target-exclude", "--overlap old", "autosync-ctl forget old"):
        assert part in str(caught.value)
    assert "new" not in mirror_names(connect(broker)), "it is not registered"
    begin(runner(define("new", target_exclude=("in/",))))


@pytest.mark.parametrize("where", ["state directory", "broker"])
def test_one_that_ran_before_that_is_a_warning(
    define: Callable[..., Mirror], runner: Callable[[Mirror], MirrorRunner], broker: str, tmp_path: Path, where: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    ran(define("old"), where, broker, tmp_path, ago=31 * DAY)

    begin(runner(define("new")))

    assert "as mirror old, which ran last on" in caplog.text
    assert "autosync-ctl forget old" in caplog.text


def test_one_that_is_watched_is_refused_whenever_it_began_and_the_same_mirror_never(
    define: Callable[..., Mirror], runner: Callable[[Mirror], MirrorRunner], broker: str
) -> None:
    first = runner(define("first"))
    begin(first)
    Ledger(connect(broker), "first").definition.set_ran_at(1.0)
    with pytest.raises(StartError, match="mirror first, which is watched now"):
        begin(runner(define("second", target_prefix="x/")))

    first.leave()
    begin(runner(define("first", target_prefix="x/")))


def test_the_record_is_renewed_each_hour_and_at_the_end(
    define: Callable[..., Mirror], runner: Callable[[Mirror], MirrorRunner], broker: str, tmp_path: Path
) -> None:
    one = runner(define("one"))
    file, definition = StateFile(tmp_path / "states/one", "one"), Ledger(connect(broker), "one").definition
    one._run_record.close()
    assert file.read() == {}, "a mirror that was refused has left nothing"
    begin(one)
    for renew in (one.tick, lambda: one.close(0.0, finished=False)):
        file.update(ran_at=1.0)
        definition.set_ran_at(1.0)
        one.tick()
        assert (file.read()["ran_at"], definition.ran_at()) == (1.0, 1.0), "not each second"
        one._run_record._next = 0.0
        renew()
        assert file.read()["ran_at"] > 1.0
        assert (definition.ran_at() or 0.0) > 1.0


def deleted(one: MirrorRunner) -> set[str]:
    """The keys that a scan of everything would delete if the mirror was accepted."""
    one._scanner._prepare()
    found = one._comparison.differences("", ScanReport(), permission=Permission())
    return {difference.key for difference in found if difference.found is None}


def test_where_an_overlap_is_allowed_neither_deletes_what_the_other_could_have_made(
    define: Callable[..., Mirror], runner: Callable[[Mirror], MirrorRunner], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that runs already is not restarted."""
    outer, inner = define("outer"), define("inner", target_prefix="in/", overlap=("outer",), source_filter=r".*\.jpg$")
    fill(tmp_path / "to", "gone", "in/gone.jpg", "in/gone.txt")
    for mirror in (outer, inner):
        fill(Path(mirror.sources[0].path), "stays.jpg")
    first, second = runner(outer), runner(inner)
    begin(first)
    assert deleted(first) == {"gone", "in/gone.jpg", "in/gone.txt"}

    caplog.set_level(logging.INFO)
    begin(second)

    assert "neither deletes by comparison what the other could have made" in caplog.text
    assert deleted(first) == {"gone", "in/gone.txt"}
    assert deleted(second) == set(), "the outer one could have made all of them"
    lines = [(line.levelname, line.message) for line in caplog.records if "scans delete none of these" in line.message]
    found = [(level, message.split(",")[0]) for level, message in lines]
    assert found == [("WARNING", "mirror inner"), ("INFO", "mirror outer")], "once each"
    second.leave()
    Ledger(connect(first._run.broker), "inner").definition.set_ran_at(1.0)
    StateFile(tmp_path / "states/inner", "inner").update(ran_at=1.0)
    assert deleted(first) == {"gone", "in/gone.txt"}, "as long as it is not forgotten"


def test_an_empty_source_is_no_unmounted_one_if_all_keys_can_be_those_of_another_mirror(
    define: Callable[..., Mirror], runner: Callable[[Mirror], MirrorRunner], tmp_path: Path
) -> None:
    fill(tmp_path / "to", "in/a")
    other = runner(define("inner", target_prefix="in/"))
    begin(other)
    one = runner(define("outer", overlap=("inner",)))
    begin(one)

    assert deleted(one) == set()


def test_what_a_forgotten_mirror_has_left_is_withheld_until_it_is_accepted(
    define: Callable[..., Mirror], runner: Callable[[Mirror], MirrorRunner], tmp_path: Path, command: Callable[..., Any], broker: str
) -> None:
    other = runner(define("inner", target_prefix="in/"))
    begin(other)
    fill(tmp_path / "to", "in/a")
    one = runner(define("outer", overlap=("inner",)))
    fill(tmp_path / "source-outer", "x")
    fill(tmp_path / "to", "x")
    begin(one)
    assert one._scanner.scan(ScanRequest("")).deletes == 0
    assert one._scanner.state.accepted, "there was nothing to delete"

    other.leave()
    assert command("autosync-ctl", f"--broker={broker}", "forget", "inner", "--yes").returncode == 0
    for _ in range(2):
        report = one._scanner.scan(ScanRequest(""))
        assert (report.deletes, report.withheld.count) == (0, 1)
    assert not one._scanner.state.accepted
    assert not one._deletion_state.is_accepted(one._registration.mirror)


@pytest.fixture
def command(commands: Commands, define: Callable[..., Mirror], tmp_path: Path) -> Callable[..., Any]:
    """Runs a command with the state directories of this test. Of `autosync`, the source is that of the mirror `new`."""
    source = Path(define("new").sources[0].path)
    options = ["--actor=file", f"--target-container={tmp_path}/to", "--name=new", f"--source-prefix={source}/", str(source)]

    def run(*words: str) -> Any:
        state = f"--state-dir={tmp_path}/states"
        arguments = [state, *words[1:]] if words[0] == "autosync-ctl" else [*words[1:], state, *options]
        return commands.run(words[0], *arguments)

    return run


def test_a_command_that_is_refused_ends_with_1_and_leaves_nothing(
    command: Callable[..., Any], define: Callable[..., Mirror], broker: str, tmp_path: Path
) -> None:
    ran(define("old"), "state directory", broker, tmp_path, ago=DAY)

    for refused in (command("autosync", "--once"), command("autosync-watch", "--once", f"--broker={broker}")):
        assert refused.returncode == 1
        assert "as mirror old, which ran last on" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert mirror_names(connect(broker)) == []

    dry = command("autosync", "--dry-run")
    assert dry.returncode == 0
    assert "as mirror old, which ran last on" in dry.stderr
    wrong = command("autosync", "--once", "--target-exclude=")
    assert (wrong.returncode, "leaves out everything" in wrong.stderr) == (2, True)


def test_two_targets_of_one_file_are_compared_as_they_are_now(
    command: Callable[..., Any], define: Callable[..., Mirror], broker: str, tmp_path: Path
) -> None:
    """What a table said at an earlier start does not count."""
    ran(define("b"), "state directory", broker, tmp_path, ago=DAY)
    file = tmp_path / "targets.toml"
    tables = '[[target]]\nname = "a"\n{}\n[[target]]\nname = "b"\ntarget-prefix = "b/"\n'

    file.write_text(tables.format('target-prefix = ""'))
    assert "can make the same keys" in command("autosync", "--dry-run", f"--config={file}").stderr
    refused = command("autosync", "--once", f"--config={file}")
    assert (refused.returncode, "mirror b, which is of the same configuration file" in refused.stderr) == (1, True)
    for parted in ('target-exclude = ["b/"]', 'target-prefix = "a/"'):
        file.write_text(tables.format(parted))
        assert "can make the same keys" not in command("autosync", "--dry-run", f"--config={file}").stderr


def test_mirrors_that_have_stopped_are_listed_and_removed(
    command: Callable[..., Any], define: Callable[..., Mirror], broker: str, tmp_path: Path
) -> None:
    ran(define("old"), "state directory", broker, tmp_path, ago=40 * DAY)
    ran(define("far"), "broker", broker, tmp_path, ago=DAY)
    at = f"--broker={broker}"

    listed = json.loads(command("autosync-ctl", at, "mirrors", "--stopped", "--json").stdout)
    assert [(one["mirror"], one["target"]) for one in listed] == [(name, f"file:{tmp_path}/to/") for name in ("far", "old")]
    text = command("autosync-ctl", at, "mirrors", "--stopped").stdout
    assert time.strftime("%Y-%m-%d", time.localtime(time.time() - 40 * DAY)) in text
    assert [one["mirror"] for one in json.loads(command("autosync-ctl", "mirrors", "--stopped", "--json").stdout)] == ["far", "old"]

    unasked = command("autosync-ctl", at, "forget", "old")
    assert (unasked.returncode, str(tmp_path / "states/old") in unasked.stdout) == (2, True)
    assert (tmp_path / "states/old").exists()
    assert command("autosync-ctl", "forget", "old", "--yes").stdout.endswith("old is forgotten\n")
    assert not (tmp_path / "states/old").exists()
    assert command("autosync-ctl", at, "forget", "far", "--yes").returncode == 0
    assert mirror_names(connect(broker)) == []
    assert not (tmp_path / "states/far").exists()
    assert "no mirror has stopped" in command("autosync-ctl", at, "mirrors", "--stopped").stdout
    assert command("autosync-ctl", at, "forget", "far").returncode == 1


def test_a_mirror_that_is_watched_is_not_removed(
    command: Callable[..., Any], define: Callable[..., Mirror], runner: Callable[[Mirror], MirrorRunner], broker: str, tmp_path: Path
) -> None:
    begin(runner(define("one")))
    refused = command("autosync-ctl", f"--broker={broker}", "forget", "one", "--yes")
    assert (refused.returncode, "mirror one is watched by a running autosync" in refused.stderr) == (1, True)

    with watch_lock(tmp_path / "states/one"):  # its broker is not reached
        assert command("autosync-ctl", "forget", "one", "--yes").returncode == 1
        assert "one" not in command("autosync-ctl", "mirrors", "--stopped").stdout
    assert (tmp_path / "states/one/one.mirror.json").exists()


def test_of_a_state_directory_with_several_mirrors_only_the_files_of_one_go(
    command: Callable[..., Any], define: Callable[..., Mirror], broker: str, tmp_path: Path
) -> None:
    ran(define("old"), "state directory", broker, tmp_path, ago=DAY)
    StateFile(tmp_path / "states/old", "other").update(ran_at=1.0)

    assert command("autosync-ctl", "forget", "old", "--yes").returncode == 0

    assert sorted(path.name for path in (tmp_path / "states/old").iterdir()) == ["lock", "other.mirror.json"]


def test_what_autosync_has_not_made_stays_in_the_state_directory_and_is_listed(
    command: Callable[..., Any], define: Callable[..., Mirror], broker: str, tmp_path: Path
) -> None:
    ran(define("old"), "state directory", broker, tmp_path, ago=DAY)
    state = tmp_path / "states/old"
    fill(state, "appendonlydir/appendonly.aof.1.incr.aof", "broker.log", ".autosync-state", "old.mirror.json.x1y2", "watch.lock")
    fill(state, "letter", "appendonlydir/letter", "photos/broker.log", "mylock")
    (state / "broker.sock").symlink_to(tmp_path / "to")

    done = command("autosync-ctl", "forget", "old", "--yes")

    assert done.returncode == 0
    left = ["appendonlydir/letter", "broker.sock", "letter", "mylock", "photos"]
    assert f"{state}, which stays, since autosync has not made {', '.join(left)}" in done.stdout
    assert sorted(str(path.relative_to(state)) for path in state.rglob("*")) == sorted(["appendonlydir", "photos/broker.log", *left])
    assert (tmp_path / "to").is_dir()
    assert command("autosync-ctl", "mirrors", "--stopped").stdout == "no mirror has stopped\n"
