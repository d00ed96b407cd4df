"""`autosync-ctl`, used as an operator would, on one host and on a fleet."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from autosync.ledger import UNKNOWN, Action, Ledger, Result, connect, mirror_names
from lab import ROOT
from lab.buckets import Bucket, equal_soon, on_disk
from lab.commands import Commands
from lab.ports import free_port
from lab.programs import Program, Programs
from lab.servers import Valkey, wait_until


class Operator:
    """Runs autosync-ctl: in this process, or, with `Programs`, in one of its own, as one test of each exit code does."""

    def __init__(self, commands: Commands | Programs, *options: str) -> None:
        self._commands = commands
        self._options = options

    def runs(self, *words: str, code: int = 0, **environ: str) -> str:
        """The output of a command; its stderr, if it is to fail."""
        done = self._commands.run("autosync-ctl", *self._options, *words, **environ)
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout if code in (0, 3) else done.stderr

    def status(self) -> dict[str, Any]:
        """The one mirror."""
        (found,) = json.loads(self.runs("status", "--json"))
        return dict(found)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state of autosync"


@pytest.fixture
def one_host(programs: Programs, bucket: Bucket, tree: Path, state: Path) -> Program:
    """An autosync with a broker of its own, in sync."""
    (tree / "first").write_text("first")
    options = [*bucket.options(), f"--source-prefix={tree}/", "--name=desk", f"--state-dir={state}"]
    running = programs.start("autosync", *options, str(tree))
    equal_soon(bucket, tree, "the first scan")
    return running


@pytest.fixture
def operator(commands: Commands, state: Path) -> Operator:
    return Operator(commands, f"--state-dir={state}")


def test_what_an_autosync_with_a_broker_of_its_own_does_is_seen(
    programs: Programs, state: Path, one_host: Program, operator: Operator, bucket: Bucket, tree: Path
) -> None:
    wait_until(lambda: operator.status()["last_in_sync"], 30, "the first scan is through", pause=0.2)

    found = operator.status()
    printed = Operator(programs, f"--state-dir={state}").runs("status")

    assert (found["mirror"], found["files"], found["bytes"], found["dirty"], found["failed"]) == ("desk", 1, 5, 0, 0)
    assert found["watched_by"]["pid"] == one_host.pid
    assert found["sources"] == [str(tree)]
    assert found["target"] == f"s3:{bucket.name}/"
    assert printed.startswith("desk: in sync\n")
    assert f"process {one_host.pid} on " in printed
    (tree / "directory").mkdir()
    wait_until(lambda: operator.status()["watches"] == 2, 30, "both directories are watched", pause=0.2)
    assert "  watches     2 directories; " in operator.runs("status")
    assert operator.runs("mirrors").split()[:2] == ["desk", f"s3:{bucket.name}/"]


def test_a_paused_mirror_sends_nothing_until_it_is_resumed(one_host: Program, operator: Operator, bucket: Bucket, tree: Path) -> None:
    assert "desk is paused" in operator.runs("pause")
    for number in range(20):
        (tree / f"new {number}").write_text("new")
    (tree / "first").unlink()
    wait_until(lambda: operator.status()["dirty"] == 21, 30, "it is all seen", pause=0.2)
    wait_until(lambda: operator.status()["messages"] == 0, 30, "workers have had the messages", pause=0.2)

    assert operator.status()["paused"]
    assert operator.runs("status").startswith("desk: paused\n")
    assert bucket.sizes() == {"first": 5}
    wait_until(lambda: "desk is paused: nothing is sent" in one_host.output(), 30, "the watcher logs it")

    assert "desk goes on" in operator.runs("resume")
    equal_soon(bucket, tree, "what has gathered", 30)


def test_a_change_in_the_target_is_found_by_a_requested_scan(
    one_host: Program, operator: Operator, bucket: Bucket, tree: Path
) -> None:
    (tree / "a").mkdir()
    (tree / "a" / "kept").write_text("kept")
    equal_soon(bucket, tree, "both are there")
    for key in ("first", "a/kept"):
        bucket.client.delete_object(Bucket=bucket.name, Key=key)

    operator.runs("rescan", str(tree / "a"))
    wait_until(lambda: bucket.sizes() == {"a/kept": 4}, 30, "the directory that was scanned is right again")
    operator.runs("rescan")
    equal_soon(bucket, tree, "all of it")

    assert f"{os.sep}elsewhere is not in the source of mirror desk" in operator.runs("rescan", "/elsewhere", code=2)


def test_flush_returns_when_all_that_had_happened_is_in_the_target(
    one_host: Program, operator: Operator, bucket: Bucket, tree: Path
) -> None:
    for attempt in range(2):
        for number in range(100):
            (tree / f"f{number}").write_text(f"{attempt}" * number)
        (tree / "a" / f"{attempt}").mkdir(parents=True)
        (tree / "a" / f"{attempt}" / "deep").write_text("deep")
        (tree / "first").unlink(missing_ok=True)

        assert operator.runs("flush") == "desk is flushed\n"

        assert bucket.sizes() == on_disk(tree)


def test_flush_reports_why_it_does_not_return(one_host: Program, operator: Operator, bucket: Bucket, tree: Path) -> None:
    with bucket.server.frozen():
        (tree / "new").write_text("new")
        message = operator.runs("flush", "--timeout=3", code=1)
    assert "mirror desk: 1 keys still wait after 3 s; see autosync-ctl status" in message

    operator.runs("pause")
    assert "mirror desk is paused; autosync-ctl resume" in operator.runs("flush", code=1)


def test_the_doctor_finds_nothing_where_all_is_well(one_host: Program, operator: Operator, bucket: Bucket, tree: Path) -> None:
    message = operator.runs("doctor")

    assert "wrong" not in message
    source = f"source {tree}: is the directory"
    for good in ("broker: ", "file host: watched by process", "watches: ", source, "workers: ", "target: is there"):
        assert f"  ok     {good}" in message, message


def test_the_doctor_names_what_is_wrong(programs: Programs, own_valkey: Valkey, bucket: Bucket, tree: Path) -> None:
    client = own_valkey.client()
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    (tree / "a").write_text("a")
    options = [f"--broker={own_valkey.url}", *bucket.options(), "--name=ill", str(tree)]
    watcher = programs.start("autosync-watch", *options)
    wait_until(lambda: mirror_names(connect(own_valkey.url)) == ["ill"], 30, "the mirror is known")
    watcher.send_signal(signal.SIGTERM)
    watcher.wait(30)
    tree.rename(tree.with_name("elsewhere"))
    tree.mkdir()
    bucket.client.delete_bucket(Bucket=bucket.name)

    message = Operator(programs, f"--broker={own_valkey.url}").runs("doctor", code=3)

    wrong = [line.split(": ")[0].split(maxsplit=1)[1] for line in message.splitlines() if line.startswith("  wrong")]
    assert wrong == ["broker's memory", "file host", f"source {tree}", "workers", "target"], message
    assert "set maxmemory-policy noeviction" in message
    assert "start celery -A autosync worker, with autosync.ill among its queues" in message


def test_a_target_that_lists_in_another_order_is_not_reported_to_differ(
    programs: Programs, one_host: Program, operator: Operator, bucket: Bucket, tree: Path
) -> None:
    """SeaweedFS lists what is in `a` before what is in `a-b`; in the order of keys, `-` comes before `/`."""
    for name in ("a", "a-b", "a.b"):
        for number in range(3):
            (tree / name / str(number)).parent.mkdir(exist_ok=True)
            (tree / name / str(number)).write_text(name)
    equal_soon(bucket, tree, "all of it")
    assert list(bucket.sizes()) != sorted(bucket.sizes()), "this server does so"

    for option in ((), ("--checksum",)):
        assert operator.runs("verify", *option) == f"s3:{bucket.name}/: 10 files in the source, 0 differences\n"
    dry = programs.run("autosync", "--dry-run", *bucket.options(), f"--source-prefix={tree}/", str(tree))
    assert dry.returncode == 0
    assert "upload" not in dry.stdout


def test_verify_proves_that_the_target_equals_the_source(one_host: Program, operator: Operator, bucket: Bucket, tree: Path) -> None:
    (tree / "other").write_text("other")
    equal_soon(bucket, tree, "both are there")
    assert "2 files in the source, 0 differences" in operator.runs("verify")
    assert "2 files in the source, 0 differences" in operator.runs("verify", "--checksum")

    bucket.client.put_object(Bucket=bucket.name, Key="other", Body=b"OTHER")
    bucket.client.put_object(Bucket=bucket.name, Key="foreign", Body=b"foreign")
    bucket.client.delete_object(Bucket=bucket.name, Key="first")

    message = operator.runs("verify", "--checksum", code=3).splitlines()

    assert message[:-1] == ["missing  first", "differs  other", "extra    foreign"]
    assert message[-1].endswith("2 files in the source, 3 differences")
    assert bucket.sizes() == {"other": 5, "foreign": 7}, "it changes nothing"


def test_why_prints_the_state_and_the_history_of_a_key(one_host: Program, operator: Operator, bucket: Bucket, tree: Path) -> None:
    wait_until(lambda: "state       equal" in operator.runs("why", "first"), 30, "the worker has reported what is in the bucket")
    assert "no path in scope has this key" in operator.runs("why", "/")

    operator.runs("pause")
    (tree / "waits").write_text("waits")
    wait_until(lambda: operator.status()["dirty"] == 1, 30, "it is seen", pause=0.2)
    message = operator.runs("why", "waits")

    assert re.search(rf" by desk-\d@{re.escape(socket.gethostname())}\n", operator.runs("why", "first")), "the worker's name"
    assert f"file        {tree}/waits" in message
    assert "waits in the queue" in message
    assert "seen as     5 B, changed " in message


def test_failed_keys_are_listed_and_tried_again(programs: Programs, commands: Commands, broker: str, bucket: Bucket, tree: Path) -> None:
    (tree / "a").write_text("a")
    (tree / "b").write_text("b")
    operator = Operator(commands, f"--broker={broker}")
    options = [f"--broker={broker}", *bucket.options(), f"--source-prefix={tree}/", "--name=fleet", "--attempts=1", str(tree)]
    worker = programs.worker(broker=broker, AUTOSYNC_SOURCES="[]")
    assert programs.run("autosync-watch", "--once", *options).returncode == 3
    worker.send_signal(signal.SIGTERM)
    worker.wait(20)

    message = operator.runs("failed")
    assert [line.split()[:2] for line in sorted(message.splitlines())] == [["fleet", "a"], ["fleet", "b"]]
    assert "was not given the source" in message
    assert {json.loads(line)["key"] for line in operator.runs("failed", "--json").splitlines()} == {"a", "b"}
    assert "2 failed" in operator.runs("status")
    assert "failed      " in operator.runs("why", "a")
    assert re.search(r"try 1 failed +\d{4}-\d\d-\d\d .* by \S+@\S+\n", operator.runs("why", "a"))
    assert "c is not in the failed list of mirror fleet" in operator.runs("retry", "c", code=1)
    assert "retry takes keys, or --all" in operator.runs("retry", code=2)

    programs.worker(broker=broker, AUTOSYNC_SOURCES=json.dumps([str(tree)]))
    assert operator.runs("retry", "a") == "1 keys are tried again\n"
    wait_until(lambda: bucket.sizes() == {"a": 1}, 30, "the one that was named is sent")
    assert operator.runs("retry", "--all") == "1 keys are tried again\n"
    wait_until(lambda: bucket.sizes() == on_disk(tree), 30, "the other one is sent")
    wait_until(lambda: operator.status()["failed"] == 0, 30, "none is failed", pause=0.2)
    assert re.search(r"sent 1 B +\d{4}.* by \S+\n +try 1 failed ", operator.runs("why", "a"))


def test_limits_are_printed_and_changed(commands: Commands, one_host: Program, state: Path, bucket: Bucket, tree: Path) -> None:
    operator = Operator(commands, f"--state-dir={state}")
    assert operator.runs("limit") == "desk: requests none, bandwidth none, inflight none\n"
    assert "  limits " not in operator.runs("status")

    assert operator.runs("limit", "--requests=6/m", "--bandwidth=2MB/s") == "desk: requests 0.1/s, bandwidth 2MB/s, inflight none\n"
    assert operator.runs("limit", "--inflight=1") == "desk: requests 0.1/s, bandwidth 2MB/s, inflight 1\n"
    assert "  limits      requests 0.1/s, bandwidth 2MB/s, inflight 1\n" in operator.runs("status")
    assert operator.status()["limits"] == {"requests": 0.1, "bandwidth": 2e6, "inflight": 1}
    for number in range(5):
        (tree / str(number)).write_text("x")
    wait_until(lambda: operator.status()["dirty"] > 0 and len(bucket.sizes()) > 1, 30, "the first of them is sent")
    assert len(bucket.sizes()) < 6, "one in ten seconds"
    assert "--limit-requests" in operator.runs("limit", "--requests=fast", code=2)
    assert operator.runs("limit", "--requests=none") == "desk: requests none, bandwidth 2MB/s, inflight 1\n"
    equal_soon(bucket, tree, "nobody waits for the old limit", 10)


def test_several_mirrors_are_distinguished_by_name(programs: Programs, commands: Commands, broker: str, tmp_path: Path) -> None:
    operator = Operator(commands, f"--broker={broker}")
    (tmp_path / "to").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        done = programs.run("autosync-watch", "--once", f"--broker={broker}", "--actor=file", f"--target-container={tmp_path}/to",
                            f"--name={name}", str(tmp_path / name))  # fmt: skip
        assert done.returncode == 0, done.stderr

    assert [found["mirror"] for found in json.loads(operator.runs("status", "--json"))] == ["one", "two"]
    assert "there are 2 mirrors: one, two; name one with --name" in operator.runs("why", "x", code=2)
    assert "no mirror is called 'three'" in operator.runs("--name=three", "status", code=1)
    assert "no watcher runs for mirror two" in operator.runs("--name=two", "rescan", code=1)
    assert "name it: autosync-ctl forget NAME" in operator.runs("forget", code=2)
    assert operator.runs("forget", "one", "--yes").endswith("one is forgotten\n")
    assert [found["mirror"] for found in json.loads(operator.runs("status", "--json", AUTOSYNC_NAME="two"))] == ["two"]


def test_a_mirror_that_is_watched_is_not_forgotten(one_host: Program, operator: Operator) -> None:
    assert "mirror desk is watched by a running autosync" in operator.runs("forget", "desk", "--yes", code=1)


def test_without_a_mirror_it_reports_what_to_do(programs: Programs, commands: Commands, operator: Operator, broker: str) -> None:
    assert "start its autosync, or give its broker with --broker" in operator.runs("status", code=1)
    assert "no mirror was found at" in Operator(commands, f"--broker={broker}").runs("status", code=1)
    assert "no mirror was found below" in operator.runs("accept", code=1), "not: nothing waits"
    gone = Operator(programs, "--broker=redis://:secret@127.0.0.1:1/0").runs("status", code=1)
    assert "broker at 127.0.0.1:1" in gone
    assert "secret" not in gone
    assert "is not an address of a Redis" in Operator(programs, "--broker=nonsense").runs("status", code=2)


def test_with_watch_it_prints_what_workers_do_and_how_fast(programs: Programs, broker: str) -> None:
    ledger = Ledger(connect(broker), "busy")
    ledger.definition.publish("{}", "v")
    ledger.claims.mark([(f"k{number}", UNKNOWN) for number in range(3)])
    claims = ledger.claims.claim("box:7:x", "v", ["k0", "k1"]) or []
    watching = programs.start("autosync-ctl", f"--broker={broker}", "status", "--watch")
    wait_until(lambda: re.search(r"box:7 +2 keys, k[01] is one", watching.output()), 30, "the worker is shown")

    ledger.claims.done("box:7:x", [Result(claim, Action.UPLOADED, 10_000_000) for claim in claims])
    wait_until(lambda: re.search(r"2 files \(19\.1 MiB, [0-9.]+ MiB/s\)", watching.output()), 30, "the speed is shown")

    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 130
    assert "Traceback" not in watching.output()



# For Prometheus

def metrics(url: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The samples that an exporter serves, by name and labels; they are what Prometheus' own parser makes of the text."""
    with urllib.request.urlopen(url, timeout=30) as response:
        text = response.read().decode()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_the_exporter_has_the_status_of_mirrors_and_that_the_broker_is_away(
    programs: Programs, own_valkey: Valkey, bucket: Bucket, tree: Path
) -> None:
    for number in range(50):
        (tree / f"f{number}").write_text("12345")
    (tree / "d").mkdir()
    port = free_port()
    broker = f"--broker={own_valkey.url}"
    programs.worker(broker=own_valkey.url, AUTOSYNC_SOURCES=json.dumps([str(tree)]))
    programs.start("autosync-watch", broker, *bucket.options(), f"--source-prefix={tree}/", "--name=fleet", str(tree))
    exporter = programs.start("autosync-ctl", broker, "export", f"--listen=127.0.0.1:{port}")
    wait_until(lambda: "metrics are at" in exporter.output(), 30, "it serves")
    equal_soon(bucket, tree, "the first scan")
    (tree / "f0").unlink()
    equal_soon(bucket, tree, "the deletion")

    def exported() -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        return metrics(f"http://127.0.0.1:{port}/metrics")

    ours = (("mirror", "fleet"),)
    wait_until(lambda: exported()["autosync_dirty_keys"][ours] == 0, 30, "it is in sync", pause=0.2)
    wait_until(lambda: exported().get("autosync_watches", {}).get(ours) == 2, 30, "the watcher has reported both directories", pause=0.2)
    found = exported()

    expected = {
        "autosync_watcher_up": 1, "autosync_paused": 0, "autosync_lag_seconds": 0, "autosync_failed_keys": 0, "autosync_files_total": 50,
        "autosync_bytes_total": 250, "autosync_deleted_total": 1, "autosync_watches": 2, "autosync_unwatched": 0,
        "autosync_latency_seconds_count": 51,
    }  # fmt: skip
    assert {name: found[name][ours] for name in expected} == expected
    assert found["autosync_up"][()] == 1
    assert found["autosync_latency_seconds_sum"][ours] > 0

    own_valkey.kill()
    assert exported()["autosync_up"][()] == 0
    own_valkey.start()
    wait_until(lambda: exported()["autosync_up"][()] == 1, 30, "it finds the broker again", pause=0.2)

    exporter.send_signal(signal.SIGTERM)
    exporter.wait(20)
    assert "Traceback" not in exporter.output()


def test_the_dashboard_has_only_metrics_that_exist(programs: Programs, broker: str) -> None:
    Ledger(connect(broker), "m").definition.publish("{}", "v")
    port = free_port()
    exporter = programs.start("autosync-ctl", f"--broker={broker}", "export", f"--listen=127.0.0.1:{port}")
    wait_until(lambda: "metrics are at" in exporter.output(), 30, "it serves")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        families = set(re.findall(r"^# TYPE (\w+)", response.read().decode(), re.MULTILINE))
    dashboard = (ROOT / "docker" / "grafana-dashboard.json").read_text(encoding="utf-8")

    visible = {name.removesuffix("_bucket") for name in re.findall(r"\bautosync_\w+", dashboard)}

    assert len(visible) > 10
    assert visible <= families
    page = (ROOT / "docs" / "control.md").read_text(encoding="utf-8")
    assert {name for name in families if f"`{name}`" not in page} == set()


def test_an_exporter_that_cannot_listen_reports_it(commands: Commands, broker: str) -> None:
    operator = Operator(commands, f"--broker={broker}")

    assert "write HOST:PORT" in operator.runs("export", "--listen=here", code=2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        message = operator.runs("export", f"--listen=127.0.0.1:{listener.getsockname()[1]}", code=1)
        assert "Address already in use; give another port" in message
