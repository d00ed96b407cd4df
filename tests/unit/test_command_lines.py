"""Command lines: options from everywhere, bad input, dry runs. The commands run in this process; tests/programs/test_entry_points.py starts
real ones, for each exit code."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.daemon.state_directory import state_directory
from lab.commands import DOORS, Commands
from lab.target_tables import to_directory, with_targets


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "target"
    directory.mkdir()
    return directory


@pytest.fixture
def tree(tree: Path) -> Path:
    """With the example of README's key table."""
    for name, content in {"1": "one", "a/2": "two", "a/b/3": "three", "c/4": "four"}.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tree


def dry(commands: Commands, *options: str, **environ: str) -> list[str]:
    done = commands.run("autosync", "--dry-run", *options, **environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith("\n")


# Where options come from


def test_options_may_be_spelled_with_underscores(commands: Commands, tree: Path, target: Path) -> None:
    lines = dry(commands, "--actor=file", f"--target_container={target}", f"--source_prefix={tree}/", "--target_prefix=x/", str(tree))

    assert lines == ["upload x/1", "upload x/a/2", "upload x/a/b/3", "upload x/c/4"]


def test_options_come_from_the_environment(commands: Commands, tree: Path, target: Path) -> None:
    lines = dry(
        commands, str(tree),
        AUTOSYNC_ACTOR="file", AUTOSYNC_TARGET_CONTAINER=str(target), AUTOSYNC_SOURCE_PREFIX=f"{tree}/", AUTOSYNC_SOURCE_FILTER="^.*/a/.*$",
    )  # fmt: skip

    assert lines == ["upload a/2", "upload a/b/3"]


def test_options_come_from_a_file_and_the_command_line_wins(commands: Commands, tree: Path, target: Path, tmp_path: Path) -> None:
    config = tmp_path / "mirror.toml"
    config.write_text(f'''
        actor = "file"
        target-container = "{target}"
        source_prefix = "{tree}/"
        target-prefix = "from-file/"
        source-exclude = ["^.*/b$", "^.*/c$"]
        paths = ["{tree}"]
    ''')

    assert dry(commands, f"--config={config}") == ["upload from-file/1", "upload from-file/a/2"]
    assert dry(commands, f"--config={config}", "--target-prefix=given/") == ["upload given/1", "upload given/a/2"]
    assert dry(commands, f"--config={config}", AUTOSYNC_TARGET_PREFIX="env/") == ["upload env/1", "upload env/a/2"]


STORE = """
import pathlib
from autosync import Actor, SecretOption

class Store(Actor):
    options = (SecretOption(["--password"]),)

    def list(self):
        pathlib.Path(self.target_container, "password").write_text(self.password)
        return []
"""
PASSWORD = "Opt1on/of the+actor"


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        ([], {"AUTOSYNC_PASSWORD": PASSWORD}),
        (["--password=@secret"], {}),
        ([], {"AUTOSYNC_PASSWORD": "@secret"}),
    ],
    ids=["environment", "file", "file in the environment"],
)
def test_a_secret_is_read_from_where_nobody_sees_it(
    options: list[str], environ: dict[str, str], commands: Commands, tree: Path, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "store.py").write_text(STORE)
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")

    lines = dry(commands, *options, "--actor=store.Store", f"--target-container={target}", f"--source-prefix={tree}/", str(tree), **environ)

    assert lines[0] == "upload 1"
    assert (target / "password").read_text() == PASSWORD


def test_a_dry_run_touches_nothing(commands: Commands, tree: Path, target: Path, tmp_path: Path) -> None:
    (target / "left").write_text("over")

    lines = dry(commands, "--actor=file", f"--target-container={target}", "--accept-existing", f"--source-prefix={tree}/", str(tree))

    assert lines == ["upload 1", "upload a/2", "upload a/b/3", "upload c/4", "delete left"]
    assert [path.name for path in target.iterdir()] == ["left"]
    assert not (tmp_path / "state").exists()


def test_a_dry_run_that_may_not_delete_all_of_it_is_incomplete(commands: Commands, tree: Path, target: Path) -> None:
    (target / "left").write_text("over")

    done = commands.run(
        "autosync", "--dry-run", "--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", "--max-delete=0", str(tree)
    )

    assert (done.returncode, done.stdout.splitlines()) == (3, ["upload 1", "upload a/2", "upload a/b/3", "upload c/4", "keep left"])


# autosync's own state in the source

def with_state(base: Path) -> Path:
    """A directory with the state of two mirrors; that of the second is about to be made."""
    for name in ("one/lock", "one/broker.log", "one/appendonlydir/appendonly.aof"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("x")
    (base / "two").mkdir()
    return base


@pytest.mark.parametrize("kind", ["variable", "option", "link to the source", "link on the way"])
def test_own_state_in_a_source_is_left_out_and_reported(kind: str, commands: Commands, tree: Path, target: Path, tmp_path: Path) -> None:
    base = with_state(tree / "c/state/autosync")
    options, source, environ = [f"--state-dir={base}"], tree, {}
    if kind == "variable":
        options, environ = [], {"XDG_STATE_HOME": str(tree / "c/state")}
    if kind == "link to the source":
        source = tmp_path / "other"
        source.symlink_to(tree)
    if kind == "link on the way":
        (tree / "state").symlink_to("c/state")
        options = [f"--state-dir={tree}/state/autosync"]

    done = commands.run(
        "autosync", "--dry-run", *options, "--actor=file", f"--target-container={target}", f"--source-prefix={source}/", str(source),
        **environ,
    )  # fmt: skip

    assert (done.returncode, done.stdout.splitlines()) == (0, ["upload 1", "upload a/2", "upload a/b/3", "upload c/4"])
    left_out = [f"{source}/c/state/autosync"] + ([f"{tree}/state/autosync"] if kind == "link on the way" else [])
    reported = [line.partition(" ")[2] for line in done.stderr.splitlines()]
    assert reported == [f"{directory} is left out: autosync keeps its own state there" for directory in left_out]


def test_state_that_is_yet_to_be_made_is_left_out_and_a_dry_run_does_not_make_it(commands: Commands, tree: Path, target: Path) -> None:
    done = commands.run("autosync", "--dry-run", f"--state-dir={tree}/new/state", "--actor=file", f"--target-container={target}", str(tree))

    assert done.returncode == 0
    assert f"{tree}/new/state is left out" in done.stderr
    assert not (tree / "new").exists()


def test_what_was_sent_of_the_own_state_before_is_not_deleted(commands: Commands, tree: Path, target: Path) -> None:
    with_state(tree / "state")
    (target / "state/one").mkdir(parents=True)
    (target / "state/one/gone").touch()

    lines = dry(
        commands, f"--state-dir={tree}/state", "--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", str(tree)
    )

    assert lines == ["upload 1", "upload a/2", "upload a/b/3", "upload c/4"]


def test_the_state_of_others_in_a_source_is_left_out_and_reported(commands: Commands, tree: Path, target: Path) -> None:
    (state_directory(tree / "other", "m") / "broker.log").touch()

    done = commands.run("autosync", "--dry-run", "--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", str(tree))

    skipped = f"skip {tree}/other/m holds the state of an autosync"
    assert done.stdout.splitlines() == ["upload 1", "upload a/2", "upload a/b/3", "upload c/4", skipped]


def test_state_elsewhere_leaves_nothing_out(commands: Commands, tree: Path, target: Path, tmp_path: Path) -> None:
    with_state(tmp_path)  # the source is beside the state of mirrors
    for state in (tmp_path, tmp_path / "source-2"):
        done = commands.run(
            "autosync", "--dry-run", f"--state-dir={state}", "--name=one", "--actor=file", f"--target-container={target}",
            f"--source-prefix={tree}/", str(tree),
        )  # fmt: skip
        assert (done.stderr, done.stdout.splitlines()) == ("", ["upload 1", "upload a/2", "upload a/b/3", "upload c/4"])


OWN_STATE = {
    "the source itself": (["--state-dir={tree}", "--name=m"], "{tree}/m and the source {tree} lie in one another"),
    "the source is the mirror's": (["--state-dir={tree}/..", "--name=source"], "source and the source {tree} lie in one another"),
    "the source lies in the mirror's": (["--state-dir={tree}/../..", "--name={above}"], "and the source {tree} lie in one another"),
    "beside files": (["--state-dir={tree}/a"], "state directory {tree}/a lies in the source and would be left out, but {tree}/a/"),
    "beside a directory": (["--state-dir={tree}/d"], "{tree}/d/letters is no state of autosync's"),
    "a file": (["--state-dir={tree}/1"], "state directory {tree}/1 cannot be read: Not a directory"),
}


@pytest.mark.parametrize("case", OWN_STATE)
@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry run", "live"])
def test_nothing_of_the_users_is_left_out_with_the_own_state(
    case: str, dry: list[str], commands: Commands, tree: Path, target: Path
) -> None:
    with_state(tree / "d")
    (tree / "d/letters").mkdir()
    (tree / "d/letters/one").touch()
    options, message = OWN_STATE[case]
    names = {"tree": tree, "above": tree.parent.name}

    done = commands.run(
        "autosync", *dry, "--actor=file", f"--target-container={target}", *(option.format(**names) for option in options), str(tree)
    )

    assert_one_line(done, 2, message.format(**names))
    assert "--state-dir" in done.stderr
    assert list(target.iterdir()) == []


def test_help_version_and_completion(commands: Commands) -> None:
    for command in ("autosync", "autosync-watch"):
        visible = commands.run(command, "--help")
        assert (visible.returncode, visible.stderr) == (0, "")
        assert "--source-prefix" in visible.stdout
        assert "--endpoint-url" in visible.stdout
    for command in DOORS:
        version = commands.run(command, "--version")
        assert (version.returncode, version.stderr) == (0, "")
        assert version.stdout.startswith(f"{command}, version ")
    assert "--endpoint-url" not in commands.run("autosync", "--actor=file", "--help").stdout
    completion = commands.run("autosync", _AUTOSYNC_COMPLETE="bash_source")
    assert "_autosync_completion" in completion.stdout
    suggested = commands.run("autosync", _AUTOSYNC_COMPLETE="bash_complete", COMP_WORDS="autosync --target-", COMP_CWORD="1").stdout
    assert "--target-container" in suggested


# Bad input

BAD_INPUT = {
    "no path": (["--actor=file", "--target-container={target}"], 2, "PATH is missing"),
    "no such path": (["--actor=file", "--target-container={target}", "/no/such/path"], 2, "PATH /no/such/path does not exist"),
    "neither file nor directory": (["--actor=file", "--target-container={target}", "/dev/null"], 2, "neither a directory nor a file"),
    "filter does not compile": (["--actor=file", "--target-container={target}", "--source-filter=(", "{tree}"], 2, "--source-filter '('"),
    "exclude does not compile": (["--actor=file", "--target-container={target}", "--source-exclude=[", "{tree}"], 2, "--source-exclude"),
    "unknown actor": (["--actor=nope", "{tree}"], 2, "there is no actor 'nope'; known are azure, file, gcs, http, rsync, s3, swift"),
    "unknown module": (["--actor=no.such.Actor", "{tree}"], 2, "there is no actor 'no.such.Actor'"),
    "not an actor": (["--actor=os.path", "{tree}"], 2, "os.path is not a subclass of autosync.Actor"),
    "unknown option": (["--nope", "{tree}"], 2, "No such option"),
    "not a number": (["--threads=many", "{tree}"], 2, "--threads"),
    "no threads": (["--threads=0", "{tree}"], 2, "--threads"),
    "no time": (["--actor=file", "--target-container={target}", "--limit-requests=9", "{tree}"], 2, "--limit-requests '9' cannot be used"),
    "bits": (["--actor=file", "--target-container={target}", "--limit-bandwidth=2Mb/s", "{tree}"], 2, "--limit-bandwidth '2Mb/s'"),
    "less than none": (["--actor=file", "--target-container={target}", "--limit-inflight=-1", "{tree}"], 2, "--limit-inflight '-1'"),
    "too short a lease": (["--actor=file", "--target-container={target}", "--lease=5.9", "{tree}"], 2, "--lease 5.9 cannot be used"),
    "too long a lease": (["--actor=file", "--target-container={target}", "--lease=3601", "{tree}"], 2, "take 6 to 3600 seconds"),
    "no lease": (["--actor=file", "--target-container={target}", "--lease=nan", "{tree}"], 2, "--lease nan cannot be used"),
    "container not named": (["--actor=file", "{tree}"], 2, "--target-container is missing"),
    "bucket not named": (["{tree}"], 2, "--target-container is missing"),
    "container missing": (["--actor=file", "--target-container=/no/such/target", "{tree}"], 1, "/no/such/target is not a directory"),
    "into itself": (["--actor=file", "--target-container={tree}", "{tree}"], 2, "lie in one another"),
    "bad name": (["--actor=file", "--target-container={target}", "--name=a b", "{tree}"], 2, "--name 'a b'"),
    "no such file": (["--config=/no/such/file", "{tree}"], 2, "configuration file /no/such/file"),
    "broker down": (
        ["--actor=file", "--target-container={target}", "--broker=redis://127.0.0.1:1/0", "{tree}"], 1,
        "broker redis://127.0.0.1:1/0 does not respond",
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
def test_bad_input_is_one_clear_line_and_the_documented_exit_code(case: str, commands: Commands, tree: Path, target: Path) -> None:
    options, code, message = BAD_INPUT[case]

    done = commands.run("autosync", *(option.format(tree=tree, target=target) for option in options))

    assert_one_line(done, code, message)
    assert list(target.iterdir()) == []


ACTORS = {
    "file": ["--target-container={target}"],
    "rsync": ["--target-container=127.0.0.1::nothing"],
    "http": ["--url=http://127.0.0.1:1/", "--secret=secret"],
    "s3": ["--target-container=bucket", "--endpoint-url=http://127.0.0.1:1"],
    "azure": ["--target-container=bucket", "--account=account", "--endpoint-url=http://127.0.0.1:1"],
    "gcs": ["--target-container=bucket", "--endpoint-url=http://127.0.0.1:1"],
    "swift": ["--target-container=bucket", "--auth-url=http://127.0.0.1:1/v1.0", "--user=user", "--password=password"],
}
#: The prefixes with which the target has no object, by actor; of PREFIXES, it has all others.
PREFIXES = ("x/", "../x/", "..", "a/../", "./", "/x/", "a//", "x" * 1020 + "/long/")
REFUSED_PREFIXES = {
    "file": ("../x/", "a/../", "./"),
    "rsync": ("../x/", "a/../", "./"),
    "http": ("../x/", "a/../", "./"),
    "s3": (PREFIXES[-1],),
    "azure": ("../x/", "a/../", "./", "/x/", "a//", PREFIXES[-1]),
    "gcs": ("../x/", "a/../", "./", PREFIXES[-1]),
    "swift": ("../x/", "a/../", "./", PREFIXES[-1]),
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("actor", ACTORS)
def test_a_prefix_with_which_the_target_has_no_object_is_one_clear_line(
    actor: str, prefix: str, commands: Commands, tree: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosync.cli.mirror_command._run_mirrors", lambda *_, **__: 0)
    options = [option.format(target=target) for option in ACTORS[actor]]

    done = commands.run("autosync", f"--actor={actor}", *options, f"--target-prefix={prefix}", f"--source-prefix={tree}/", str(tree))

    if prefix in REFUSED_PREFIXES[actor]:
        assert_one_line(done, 2, f"--target-prefix {prefix!r} cannot be used: ")
    else:
        assert (done.returncode, done.stderr) == (0, "")


def test_a_prefix_is_refused_as_it_stands_in_keys(commands: Commands, tree: Path, target: Path) -> None:
    file = ["--dry-run", "--actor=file", f"--target-container={target}", "--target-prefix=.."]

    assert_one_line(commands.run("autosync", *file, str(tree)), 2, "--target-prefix '..' cannot be used")
    assert_one_line(commands.run("autosync", *file, f"--source-prefix={tree}", f"{tree}/1"), 2, "--target-prefix '..' cannot be used")
    done = commands.run("autosync", *file, f"--source-prefix={tree}/", f"{tree}/1")
    assert (done.returncode, done.stdout) == (0, "upload ..1\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("actor = ", "mirror.toml"),
        ("colour = 1", "no option 'colour'"),
        ('threads = "many"', "--threads"),
        ("name = '\udcff'", "mirror.toml"),
    ],
)
def test_a_bad_configuration_file_is_one_clear_line(content: str, message: str, commands: Commands, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "mirror.toml").write_text(content, encoding="utf-8", errors="surrogateescape")

    done = commands.run("autosync", f"--config={tmp_path / 'mirror.toml'}", "--actor=file", f"--target-container={tmp_path}", str(tree))

    assert_one_line(done, 2, message)


@pytest.mark.parametrize("name", ["a:b", "a,b", ".x", "x" * 201])
def test_a_queue_whose_name_celery_would_read_otherwise_is_refused(name: str, commands: Commands, tree: Path) -> None:
    done = commands.run("autosync-watch", "--actor=file", f"--target-container={tree}-copy", f"--queue={name}", str(tree))

    assert_one_line(done, 2, "autosync-watch: --queue")


@pytest.mark.parametrize(("line", "message"), [("pattern = 1", "no list of tables"), ("[[pattern]]\nmatch = '('", "no regular expression")])
def test_a_pattern_of_headers_that_cannot_be_used_is_one_clear_line(line: str, message: str, commands: Commands, tree: Path) -> None:
    config = tree.parent / "mirror.toml"
    config.write_text(f'target-container = "x"\n{line}\n')

    assert_one_line(commands.run("autosync", f"--config={config}", str(tree)), 2, message)


@pytest.mark.parametrize("passed", ["", "short", "@/does/not/exist"])
def test_a_signing_key_that_cannot_be_used_is_one_clear_line(passed: str, commands: Commands, tree: Path) -> None:
    target = ["--actor=file", f"--target-container={tree}-copy"]

    assert_one_line(commands.run("autosync-watch", *target, f"--signing-key={passed}", str(tree)), 2, "signing")
    by_variable = commands.run("autosync-watch", *target, str(tree), AUTOSYNC_SIGNING_KEY=passed)
    assert_one_line(by_variable, 2, "signing" if passed else "AUTOSYNC_SIGNING_KEY is set and empty")
    assert_one_line(commands.prepare_worker(AUTOSYNC_SIGNING_KEY=passed), 1, "signing")


def test_an_empty_variable_does_not_remove_the_key_of_celeryconfig(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text(f"autosync_secrets = {{'signing_key': {'k' * 32!r}}}\n")

    assert commands.prepare_worker().returncode == 0
    assert_one_line(commands.prepare_worker(AUTOSYNC_SIGNING_KEY=""), 1, "the signing key is empty; give it as @FILE, or unset")
    assert_one_line(commands.prepare_worker(AUTOSYNC_SECRETS=""), 1, "AUTOSYNC_SECRETS is set and empty")


@pytest.mark.parametrize("variable", ["{}", '{"m": {"password": "p"}}', '{"password": "p"}'])
def test_the_variable_of_secrets_removes_no_other_secret_of_celeryconfig(commands: Commands, tmp_path: Path, variable: str) -> None:
    (tmp_path / "celeryconfig.py").write_text("autosync_secrets = {'signing-key': 'too short', 'm': {'user': 'u'}}\n")

    assert_one_line(commands.prepare_worker(AUTOSYNC_SECRETS=variable), 1, "the signing key has fewer than 32 bytes")


@pytest.mark.parametrize("value", ["''", "None", "b'" + "k" * 32 + "'"])
def test_a_key_in_celeryconfig_that_is_none_is_one_clear_line(commands: Commands, tmp_path: Path, value: str) -> None:
    (tmp_path / "celeryconfig.py").write_text(f"autosync_secrets = {{'signing_key': {value}}}\n")

    assert_one_line(commands.prepare_worker(), 1, "signing")


@pytest.mark.parametrize("variant", ["an option", "a variable", "a file of options"])
def test_an_empty_secret_is_one_clear_line(commands: Commands, tree: Path, tmp_path: Path, variant: str) -> None:
    (tmp_path / "mirror.toml").write_text("password = ''\n" if variant == "a file of options" else "")
    options = ["--actor=swift", "--auth-url=http://127.0.0.1:1", "--user=u", "--target-container=c", f"--config={tmp_path}/mirror.toml"]
    options += ["--password="] if variant == "an option" else []

    done = commands.run("autosync", *options, str(tree), **({"AUTOSYNC_PASSWORD": ""} if variant == "a variable" else {}))

    assert_one_line(done, 2, "AUTOSYNC_PASSWORD is set and empty" if variant == "a variable" else "--password is empty")


# Several targets


BAD_TABLES = {
    "an option that there is not": (['actor = "file"\nnonsense = 1'], "target 1: there is no option 'nonsense'; see --help"),
    "an option of another actor": (['actor = "file"\nregion = "x"'], "target 1: there is no option 'region'"),
    "what holds for all": (['actor = "file"\nsettle = 1'], "target 1: 'settle' holds for all targets; write it above the tables"),
    "no such actor": (['actor = "nope"'], "target 1: there is no actor 'nope'"),
    "no container": (['name = "a"\nactor = "file"'], "target 1: --target-container is missing; name the directory to copy into"),
    "a wrong value": (['actor = "file"\ntarget-container = "/tmp"\nthreads = "many"'], "target 1: Invalid value for '--threads'"),
    "a wrong flag": (['actor = "file"\ntarget-container = "/tmp"\ndelete = "no"'], "target 1: 'delete' is true or false"),
    "the second": (['actor = "file"\ntarget-container = "/usr"', 'actor = "file"\nx = 1'], "target 2: there is no option 'x'"),
    "twins": (['actor = "file"\ntarget-container = "/usr"'] * 2, "two targets have the name file-usr-"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_one_clear_line(case: str, commands: Commands, tree: Path) -> None:
    tables, message = BAD_TABLES[case]

    assert_one_line(commands.run("autosync", f"--config={with_targets(tree, *tables)}"), 2, message)


def test_a_name_for_all_that_is_no_name_is_one_clear_line(commands: Commands, tree: Path, target: Path) -> None:
    done = commands.run("autosync", f"--config={with_targets(tree, to_directory(target), name='../up')}", "--once")

    assert_one_line(done, 2, "--name '../up' cannot be used")


def test_what_is_no_list_of_tables_is_one_clear_line(commands: Commands, tree: Path) -> None:
    done = commands.run("autosync", f"--config={with_targets(tree, target='x')}")

    assert_one_line(done, 2, "'target' is not a list of tables; write [[target]]")


def test_options_of_the_command_line_hold_for_all_targets_but_not_against_their_tables(
    commands: Commands, tree: Path, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    config = with_targets(tree, to_directory(target), to_directory(tmp_path / "second", 'target-prefix = "own/"', name="second"))

    lines = dry(commands, f"--config={config}", "--target-prefix=given/", "--source-filter=.*/1$")

    assert lines == ["directory:", "upload given/1", "second:", "upload own/1"]


# Settings of workers

BAD_SETTINGS = {
    "broker_url = 1": "broker_url must be a string",
    "1/0": "ZeroDivisionError",
    "x = (": "celeryconfig.py, line 1",
    "import no_such_module": "there is no module 'no_such_module'",
    "autosync_sources = '/srv'": "autosync_sources must be a list",
    "autosync_sources = ['srv']": "'srv' is not an absolute path",
    "autosync_queues = [1]": "autosync_queues must be a list",
    "task_queues = ['a']": "task_queues must be a list of kombu.Queue; autosync_queues takes names",
    "task_queues = {'a': None}": "task_queues: 'a' must be a kombu.Queue, or a dict",
    "task_queues = {'a': []}": "task_queues: 'a' must be a kombu.Queue, or a dict",
    "task_queues = {'a': {'exchange': 3}}": "task_queues: 'a' must be a kombu.Queue, or a dict",
    "task_queues = {'a': {'routing_key': 3}}": "task_queues: 'a' must be a kombu.Queue, or a dict",
    "task_queues = {'a': {3: 'exchange'}}": "task_queues: 'a' must be a kombu.Queue, or a dict",
    "from kombu import Queue; task_queues = [Queue(3)]": "task_queues: 3 must be a kombu.Queue, or a dict",
    "task_queues = {1: 2}": "task_queues must be a list of kombu.Queue; autosync_queues takes names",
    "broker_url = 'redis://127.0.0.1:1/x'": "is not an address of a Redis or Valkey",
    "autosync_secrets = {'m': {'signing-key': 'k' * 32}}": "'signing_key' holds for all mirrors",
    "autosync_secrets = {'signing-key': 'short'}": "the signing key has fewer than 32 bytes",
    "task_queues = 'a'": "task_queues must be a list of kombu.Queue; autosync_queues takes names",
    "autosync_verbosity = 'all'": "autosync_verbosity must be a number",
    "broker_use_ssl = {'ssl_cert_reqs': 'none'}": "write broker_url = 'rediss://",
}


@pytest.mark.parametrize("content", BAD_SETTINGS)
def test_a_broken_celeryconfig_is_one_clear_line(content: str, commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text(content)

    assert_one_line(commands.prepare_worker(), 1, BAD_SETTINGS[content])


@pytest.mark.parametrize("queues", ["[]", "()", "None", "{}", "[kombu.Queue('a')]", "{'a': {'exchange': 'a'}}"])
def test_the_queues_of_celeryconfig_are_celerys_own(queues: str, commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text(f"import kombu\ntask_queues = {queues}\n")

    done = commands.prepare_worker()

    assert (done.returncode, done.stderr) == (0, "")


def test_control_without_a_command_is_its_help(commands: Commands) -> None:
    done = commands.run("autosync-ctl")

    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout == commands.run("autosync-ctl", "--help").stdout
    assert len(done.stdout.splitlines()) > 20


# Commands in the process of a test


def process_state() -> dict[str, object]:
    root, ours = logging.getLogger(), logging.getLogger("autosync")
    return {
        "environment": dict(os.environ),
        "current directory": os.getcwd(),
        "words": sys.argv,
        "search path": sys.path[:],
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "a user's module": "own" in sys.modules,
        "logging": (root.level, root.handlers[:], ours.level, ours.handlers[:], logging.getLogger("boto3").level),
        "signals": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
        "garbage": (gc.isenabled(), gc.get_freeze_count() > 1_000),  # Python 3.12 begins with some hundred
        "open files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "warnings": warnings.filters[:],
        "threads": threading.enumerate(),
    }


@pytest.fixture
def fewer_files() -> Iterator[None]:
    """As in a shell: a command that begins raises this limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("fewer_files")
def test_a_command_in_the_process_of_a_test_leaves_nothing_behind(commands: Commands, tree: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from autosync.actors.file import FileActor\n\nclass Own(FileActor):\n    pass\n")
    options = ["--once", "-v", "--actor=own.Own", f"--target-container={target}", "--broker=redis://127.0.0.1:1/0", str(tree)]
    before = process_state()

    done = commands.run("autosync", *options, AUTOSYNC_LOG_FORMAT="json")

    assert_one_line(done, 1, "does not respond")
    assert process_state() == before
