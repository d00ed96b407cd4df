"""The commands as real processes: each exit code of each command, signals, and what is the same for all processes of a run.

Other options and bad input: tests/unit/test_command_lines.py and tests/servers/test_refusals.py, in one process."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect, queues_of_mirrors
from lab.buckets import Bucket
from lab.programs import BIN, Programs
from lab.servers import wait_until


def fill(directory: Path) -> None:
    """The example of the key table."""
    for name, content in {"1": "one", "a/2": "two", "a/b/3": "three", "c/4": "four"}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "target"
    directory.mkdir()
    return directory


COMMANDS = ("autosync", "autosync-watch", "autosync-ctl")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_question_is_answered_with_exit_code_0(command: str, programs: Programs) -> None:
    done = programs.run(command, "--version")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{command}, version ")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_command_line_is_one_clear_line_with_exit_code_2(command: str, programs: Programs) -> None:
    done = programs.run(command, "--nope")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{command}: No such option '--nope'")
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_broker_that_is_down_is_one_clear_line_with_exit_code_1(command: str, programs: Programs, tree: Path, target: Path) -> None:
    fill(tree)
    words = ["status"] if command == "autosync-ctl" else ["--actor=file", f"--target-container={target}", str(tree)]

    done = programs.run(command, "--broker=redis://127.0.0.1:1/0", *words)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{command}: broker ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert list(target.iterdir()) == []


def test_a_bucket_that_there_is_not_is_one_clear_line_with_exit_code_1(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path
) -> None:
    fill(tree)

    done = programs.run(*once, "--target-container=no-such-bucket")

    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no such bucket" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert bucket.sizes() == {}


def test_credentials_come_from_dot_boto(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tree)
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".boto").write_text(f"[Credentials]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")

    done = programs.run(*once)

    assert done.returncode == 0, done.stderr
    assert sorted(bucket.sizes()) == ["1", "a/2", "a/b/3", "c/4"]


def test_a_second_autosync_on_the_same_mirror_is_refused(programs: Programs, tree: Path, target: Path) -> None:
    fill(tree)
    options = ["--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", str(tree)]
    first = programs.start("autosync", *options)
    wait_until(lambda: (target / "c/4").exists(), what="the first is at work")

    second = programs.run("autosync", *options)

    assert second.returncode == 1
    assert f"is already watched by another autosync (process {first.pid})" in second.stderr
    assert second.stderr.count("\n") == 1
    assert first.poll() is None


def test_a_second_watcher_on_the_same_mirror_is_refused_and_a_dead_one_is_replaced(
    programs: Programs, broker: str, tree: Path, target: Path
) -> None:
    fill(tree)
    options = ["--actor=file", f"--target-container={target}", f"--broker={broker}", "--name=one", str(tree)]
    first = programs.start("autosync-watch", *options)
    wait_until(lambda: "mirroring one" in first.output(), what="the first is at work")

    second = programs.run("autosync-watch", *options)

    assert second.returncode == 1
    assert f"mirror one is already watched by process {first.pid}" in second.stderr

    first.kill()
    first.wait()
    third = programs.start("autosync-watch", *options)
    wait_until(lambda: "mirroring one" in third.output(), 60, "the third takes the place of the dead one")


def test_a_broken_celeryconfig_is_one_clear_line(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text("1/0")

    done = programs.run("celery", "-A", "autosync", "worker")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "autosync: celeryconfig: ZeroDivisionError: division by zero\n"


def test_a_queue_that_does_not_exist_is_an_error_and_not_an_empty_queue(programs: Programs, broker: str, tmp_path: Path) -> None:
    done = programs.run("celery", "-A", "autosync", "worker", "-Q", "typo", CELERY_BROKER_URL=broker)

    assert done.returncode != 0
    assert "typo" in done.stderr + done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_in_order(number: int, code: int, programs: Programs, tree: Path, target: Path) -> None:
    fill(tree)
    process = programs.start("autosync", "--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", str(tree))
    wait_until(lambda: (target / "c/4").exists(), what="it is at work")
    (tree / "last").write_text("moment")

    process.send_signal(number)

    assert process.wait(60) == code
    assert (target / "last").read_text() == "moment"


def test_json_lines_are_json(programs: Programs, tree: Path, target: Path) -> None:
    fill(tree)

    done = programs.run(
        "autosync", "--once", "-v", "--log-format=json", "--actor=file", f"--target-container={target}", f"--source-prefix={tree}/",
        str(tree),
    )  # fmt: skip

    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    sent = {line["key"]: line for line in lines if "key" in line}
    assert sorted(sent) == ["1", "a/2", "a/b/3", "c/4"]
    assert sent["a/b/3"]["bytes"] == 5
    assert {"mirror", "seconds", "worker", "attempt"} <= set(sent["1"])


def test_keys_that_cannot_be_sent_end_in_the_failed_list_with_exit_code_3(
    programs: Programs, once: list[str], bucket: Bucket, tree: Path
) -> None:
    fill(tree)
    (tree / ("d" * 200)).mkdir()
    long = Path("d" * 200)
    for _ in range(5):
        long /= "e" * 200
    (tree / long).mkdir(parents=True)
    (tree / long / "file").write_text("too long a key")

    done = programs.run(*once)

    assert done.returncode == 3
    assert "S3 allows 1024" in done.stderr
    assert sorted(bucket.sizes()) == ["1", "a/2", "a/b/3", "c/4"]


def test_a_directory_watch_reads_no_celeryconfig_and_the_queue_is_the_brokers(
    programs: Programs, broker: str, tree: Path, target: Path, tmp_path: Path
) -> None:
    fill(tree)
    (tmp_path / "celeryconfig.py").write_text("1/0")

    watcher = programs.start(
        "autosync-watch", "--actor=file", f"--target-container={target}", f"--broker={broker}", str(tree), cwd=tmp_path
    )

    (queue,) = wait_until(lambda: queues_of_mirrors(connect(broker)), what="the mirror is registered")
    wait_until(lambda: Ledger(connect(broker), "any").queues.count_waiting(queue) > 0, what="messages wait for an upload box")
    assert watcher.poll() is None


def test_a_relative_target_is_the_same_directory_for_every_process(programs: Programs, tree: Path, target: Path, tmp_path: Path) -> None:
    fill(tree)

    options = ["--actor=file", "--target-container=target", f"--source-prefix={tree}/"]
    done = programs.run("autosync", "--once", *options, "source", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert (target / "a/b/3").read_text() == "three"


# Streams that are closed


CLOSED = ["2>&-", ">&- 2>&-", "<&- 2>&-", "<&- >&- 2>&-"]


def _closed(streams: str, command: str, *words: str) -> list[str]:
    """A shell that becomes the command without these streams."""
    return ["/bin/sh", "-c", f'exec "$0" "$@" {streams}', str(BIN / command), *words]


@pytest.mark.parametrize("closed", [CLOSED[0], CLOSED[-1]])
def test_closed_streams_stop_nothing(closed: str, programs: Programs, broker: str, tree: Path, target: Path, tmp_path: Path) -> None:
    fill(tree)
    options = ["--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", f"--state-dir={tmp_path}/state", str(tree)]
    once = programs.run(*_closed(closed, "autosync", "--once", "-vv", *options))
    assert once.returncode == 0
    assert (target / "a/2").read_text() == "two"
    assert not [path for path in (tmp_path / "state").rglob("lock") if not path.read_text().isdecimal()], "nothing went into another file"

    (tree / "late").write_text("late")
    worker = programs.start(*_closed(closed, "celery", "-A", "autosync", "worker"), CELERY_BROKER_URL=broker, AUTOSYNC_SOURCES=str(tree))
    fleet = programs.run(*_closed(closed, "autosync-watch", "--once", f"--broker={broker}", *options))
    assert (fleet.returncode, (target / "late").read_text(), worker.poll()) == (0, "late", None)
    assert programs.run(*_closed(closed, "autosync-ctl", f"--broker={broker}", "status")).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("closed", [*CLOSED, "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_an_error_that_nobody_reads_has_its_exit_code(command: str, closed: str, programs: Programs) -> None:
    assert programs.run(*_closed(closed, command, "--nope")).returncode == 2
