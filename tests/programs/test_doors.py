"""The commands: options from everywhere, bad input, exit codes. Real processes throughout."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from autosync.ledger import Ledger, connect, queues_of_mirrors
from lab.buckets import Bucket
from lab.programs import Programs
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


def dry(programs: Programs, *options: str, **kwargs: str) -> list[str]:
    done = programs.run("autosync", "--dry-run", *options, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_options_may_be_spelled_with_underscores(programs: Programs, tree: Path, target: Path) -> None:
    fill(tree)

    lines = dry(programs, "--actor=file", f"--target_container={target}", f"--source_prefix={tree}/", "--target_prefix=x/", str(tree))

    assert lines == ["upload x/1", "upload x/a/2", "upload x/a/b/3", "upload x/c/4"]


def test_options_come_from_the_environment(programs: Programs, tree: Path, target: Path) -> None:
    fill(tree)

    lines = dry(
        programs, str(tree),
        AUTOSYNC_ACTOR="file", AUTOSYNC_TARGET_CONTAINER=str(target), AUTOSYNC_SOURCE_PREFIX=f"{tree}/", AUTOSYNC_SOURCE_FILTER="^.*/a/.*$",
    )  # fmt: skip

    assert lines == ["upload a/2", "upload a/b/3"]


def test_options_come_from_a_file_and_the_command_line_wins(programs: Programs, tree: Path, target: Path, tmp_path: Path) -> None:
    fill(tree)
    config = tmp_path / "mirror.toml"
    config.write_text(f'''
        actor = "file"
        target-container = "{target}"
        source_prefix = "{tree}/"
        target-prefix = "from-file/"
        source-exclude = ["^.*/b$", "^.*/c$"]
        paths = ["{tree}"]
    ''')

    assert dry(programs, f"--config={config}") == ["upload from-file/1", "upload from-file/a/2"]
    assert dry(programs, f"--config={config}", "--target-prefix=told/") == ["upload told/1", "upload told/a/2"]
    assert dry(programs, f"--config={config}", AUTOSYNC_TARGET_PREFIX="env/") == ["upload env/1", "upload env/a/2"]


def test_a_dry_run_touches_nothing(programs: Programs, tree: Path, target: Path, tmp_path: Path) -> None:
    fill(tree)
    (target / "left").write_text("over")

    lines = dry(programs, "--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", str(tree))

    assert lines == ["upload 1", "upload a/2", "upload a/b/3", "upload c/4", "delete left"]
    assert [path.name for path in target.iterdir()] == ["left"]
    assert not (tmp_path / "state").exists()


def test_help_version_and_completion(programs: Programs) -> None:
    for command in ("autosync", "autosync-watch"):
        shown = programs.run(command, "--help")
        assert shown.returncode == 0
        assert "--source-prefix" in shown.stdout
        assert "--endpoint-url" in shown.stdout
        assert programs.run(command, "--version").stdout.startswith(command)
    assert "--endpoint-url" not in programs.run("autosync", "--actor=file", "--help").stdout
    completion = programs.run("autosync", _AUTOSYNC_COMPLETE="bash_source")
    assert "_autosync_completion" in completion.stdout
    suggested = programs.run("autosync", _AUTOSYNC_COMPLETE="bash_complete", COMP_WORDS="autosync --target-", COMP_CWORD="1").stdout
    assert "--target-container" in suggested


BAD_INPUT = {
    "no path": (["--actor=file", "--target-container={target}"], 2, "PATH is missing"),
    "no such path": (["--actor=file", "--target-container={target}", "/no/such/path"], 2, "PATH /no/such/path does not exist"),
    "neither file nor directory": (["--actor=file", "--target-container={target}", "/dev/null"], 2, "neither a directory nor a file"),
    "filter does not compile": (["--actor=file", "--target-container={target}", "--source-filter=(", "{tree}"], 2, "--source-filter '('"),
    "exclude does not compile": (["--actor=file", "--target-container={target}", "--source-exclude=[", "{tree}"], 2, "--source-exclude"),
    "unknown actor": (["--actor=nope", "{tree}"], 2, "there is no actor 'nope'; known are azure, file, gcs, http, rsync, s3, swift"),
    "unknown module": (["--actor=no.such.Actor", "{tree}"], 2, "there is no actor 'no.such.Actor'"),
    "not an actor": (["--actor=os.path", "{tree}"], 2, "os.path is not a subclass of autosync.Actor"),
    "unknown option": (["--nope", "{tree}"], 2, "No such option '--nope'"),
    "not a number": (["--threads=many", "{tree}"], 2, "--threads"),
    "no threads": (["--threads=0", "{tree}"], 2, "--threads"),
    "no time": (["--actor=file", "--target-container={target}", "--limit-requests=9", "{tree}"], 2, "--limit-requests '9' cannot be used"),
    "bits": (["--actor=file", "--target-container={target}", "--limit-bandwidth=2Mb/s", "{tree}"], 2, "--limit-bandwidth '2Mb/s'"),
    "less than none": (["--actor=file", "--target-container={target}", "--limit-inflight=-1", "{tree}"], 2, "--limit-inflight '-1'"),
    "container not named": (["--actor=file", "{tree}"], 2, "--target-container is missing"),
    "bucket not named": (["{tree}"], 2, "--target-container is missing"),
    "container missing": (["--actor=file", "--target-container=/no/such/target", "{tree}"], 1, "/no/such/target is not a directory"),
    "into itself": (["--actor=file", "--target-container={tree}", "{tree}"], 2, "lie in one another"),
    "bad name": (["--actor=file", "--target-container={target}", "--name=a b", "{tree}"], 2, "--name 'a b'"),
    "no such file": (["--config=/no/such/file", "{tree}"], 2, "configuration file /no/such/file"),
    "broker down": (
        ["--actor=file", "--target-container={target}", "--broker=redis://127.0.0.1:1/0", "{tree}"], 1,
        "broker redis://127.0.0.1:1/0 does not answer",
    ),
    "broker is none": (["--actor=file", "--target-container={target}", "--broker=http://x/", "{tree}"], 2, "broker http://x/"),
    "state directory not writable": (
        ["--actor=file", "--target-container={target}", "--state-dir=/proc/nowhere", "{tree}"], 1, "state directory /proc/nowhere",
    ),
    "prefix without a slash inside": (
        ["--actor=file", "--target-container={target}", "--source-prefix={tree}/a", "{tree}"], 2, "ends inside",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_clear_line_and_the_documented_exit_code(case: str, programs: Programs, tree: Path, target: Path) -> None:
    fill(tree)
    options, code, said = BAD_INPUT[case]

    done = programs.run("autosync", *(option.format(tree=tree, target=target) for option in options))

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("actor = ", "mirror.toml"),
        ("colour = 1", "no option 'colour'"),
        ('threads = "many"', "--threads"),
        ("name = '\udcff'", "mirror.toml"),
    ],
)
def test_a_bad_configuration_file_is_one_clear_line(content: str, said: str, programs: Programs, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "mirror.toml").write_text(content, encoding="utf-8", errors="surrogateescape")

    done = programs.run("autosync", f"--config={tmp_path / 'mirror.toml'}", "--actor=file", f"--target-container={tmp_path}", str(tree))

    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": ["--target-container=no-such-bucket"]}, "there is no such bucket"),
        ({"environ": {"AWS_SECRET_ACCESS_KEY": "wrong"}}, "access is denied"),
        ({"environ": {"AWS_ACCESS_KEY_ID": "nobody"}}, "access is denied"),
        (
            {"environ": {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}},
            "no credentials were found",
        ),
        ({"options": ["--endpoint-url=http://127.0.0.1:1"]}, "Could not connect"),
        ({"options": ["--endpoint-url=nonsense"]}, "S3 cannot be set up"),
        ({"options": ["--profile=nobody"]}, "profile (nobody) could not be found"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_one_clear_line(change: dict, said: str, programs: Programs, bucket: Bucket, tree: Path) -> None:
    fill(tree)

    done = programs.run("autosync", "--once", *bucket.options(), *change.get("options", []), str(tree), **change.get("environ", {}))

    assert done.returncode == 1
    assert said in done.stderr
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
    assert f"is already kept by another autosync (process {first.pid})" in second.stderr
    assert second.stderr.count("\n") == 1
    assert first.poll() is None


def test_a_second_watcher_on_the_same_mirror_is_refused_and_a_dead_one_is_replaced(
    programs: Programs, broker: str, tree: Path, target: Path
) -> None:
    fill(tree)
    options = ["--actor=file", f"--target-container={target}", f"--broker={broker}", "--name=one", str(tree)]
    first = programs.start("autosync-watch", *options)
    wait_until(lambda: "keeping one" in first.said(), what="the first is at work")

    second = programs.run("autosync-watch", *options)

    assert second.returncode == 1
    assert f"mirror one is already kept by process {first.pid}" in second.stderr

    first.kill()
    first.wait()
    third = programs.start("autosync-watch", *options)
    wait_until(lambda: "keeping one" in third.said(), 5, "the third takes the place of the dead one")


def test_a_broken_celeryconfig_is_one_clear_line(programs: Programs, tmp_path: Path) -> None:
    cases = {
        "broker_url = 1": "broker_url must be a string",
        "1/0": "ZeroDivisionError",
        "x = (": "celeryconfig.py, line 1",
        "import no_such_module": "there is no module 'no_such_module'",
        "autosync_sources = '/srv'": "autosync_sources must be a list",
        "autosync_sources = ['srv']": "'srv' is not an absolute path",
        "autosync_queues = [1]": "autosync_queues must be a list",
    }
    for content, said in cases.items():
        directory = tmp_path / str(abs(hash(content)))
        directory.mkdir()
        (directory / "celeryconfig.py").write_text(content)
        done = programs.run("celery", "-A", "autosync", "worker", cwd=directory)
        assert done.returncode == 1, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


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
    wait_until(lambda: Ledger(connect(broker), "any").waiting(queue) > 0, what="messages wait for an upload box")
    assert watcher.poll() is None


def test_a_relative_target_is_the_same_directory_for_every_process(programs: Programs, tree: Path, target: Path, tmp_path: Path) -> None:
    fill(tree)

    options = ["--actor=file", "--target-container=target", f"--source-prefix={tree}/"]
    done = programs.run("autosync", "--once", *options, "source", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert (target / "a/b/3").read_text() == "three"
