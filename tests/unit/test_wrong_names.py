"""Names of variables, settings and keys that mean nothing, at the entry points of all programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lab.commands import Commands

STORE = """
import click
from autosync import Actor, SecretOption

class Store(Actor):
    options = (SecretOption(["--passwd"]), click.Option(["--table"]))

    def list(self):
        return []
"""
INJECTED = {"AUTOSYNC_SERVICE_HOST": "10.0.0.1", "AUTOSYNC_PORT": "tcp://10.0.0.1:6379", "AUTOSYNC_PORT_6379_TCP": "tcp://10.0.0.1:6379"}
WARNING = "unknown names, which autosync does not read: AUTOSYNC_PORT, AUTOSYNC_PORT_6379_TCP, AUTOSYNC_SERVICE_HOST"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "target"
    directory.mkdir()
    (directory / "foreign").write_text("there before")
    return directory


def options(tree: Path, target: Path) -> list[str]:
    (tree / "a").write_text("a")
    return ["--dry-run", "--accept-existing", "--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", str(tree)]


def assert_refused(done: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


# The commands


@pytest.mark.parametrize("command", ["autosync", "autosync-watch"])
def test_a_wrong_variable_is_an_error_with_the_right_name(command: str, commands: Commands, tree: Path, target: Path) -> None:
    done = commands.run(command, *options(tree, target), AUTOSYNC_TARGET_PREFX="photos/")

    assert_refused(
        done, 2, f"{command}: there is no variable AUTOSYNC_TARGET_PREFX; write AUTOSYNC_TARGET_PREFIX, or unset it\n"
    )
    assert [path.name for path in target.iterdir()] == ["foreign"]


def test_a_wrong_variable_is_named_before_the_value_that_is_missing(commands: Commands, tree: Path, target: Path) -> None:
    for name in ("AUTOSYNC_TARGET_CONTAINR", "AUTOSYNC_TARGETCONTAINER"):
        done = commands.run("autosync", "--actor=file", str(tree), **{name: str(target)})
        assert_refused(done, 2, f"{name}; write AUTOSYNC_TARGET_CONTAINER, or unset it")
    actor = commands.run("autosync", f"--target-container={target}", str(tree), AUTOSYNC_THREADS="many", AUTOSYNC_ACTRO="file")
    assert_refused(actor, 2, "AUTOSYNC_ACTRO; write AUTOSYNC_ACTOR")


def test_a_variable_for_no_deletions_is_none(commands: Commands, tree: Path, target: Path) -> None:
    """--no-delete is an option, but its variable is that of --delete."""
    done = commands.run("autosync", *options(tree, target), AUTOSYNC_NO_DELETE="1")

    assert_refused(done, 2, "there is no variable AUTOSYNC_NO_DELETE; write AUTOSYNC_DELETE=0, or unset it")
    right = commands.run("autosync", *options(tree, target), AUTOSYNC_DELETE="0")
    assert (right.returncode, right.stdout, right.stderr) == (0, "upload a\n", "")


def test_a_variable_of_another_actor_is_valid(commands: Commands, tree: Path, target: Path) -> None:
    done = commands.run("autosync", *options(tree, target), AUTOSYNC_REGION="eu", AUTOSYNC_PASSWORD="p", AUTOSYNC_SOURCES="/srv")

    assert done.stderr == ""
    assert done.stdout == "upload a\ndelete foreign\n"


def test_what_orchestrators_inject_is_one_warning(commands: Commands, tree: Path, target: Path) -> None:
    done = commands.run("autosync", *options(tree, target), **INJECTED)

    assert done.returncode == 0
    assert done.stdout == "upload a\ndelete foreign\n"
    assert done.stderr.endswith(f" warning: {WARNING}\n")
    assert done.stderr.count("\n") == 1


def test_help_and_completion_need_no_right_names(commands: Commands) -> None:
    for command in (["autosync"], ["autosync-watch"], ["autosync-ctl"], ["autosync-ctl", "status"]):
        visible = commands.run(*command, "--help", AUTOSYNC_TARGET_PREFX="photos/", **INJECTED)
        assert (visible.returncode, visible.stderr) == (0, "")
        assert "Usage: " in visible.stdout
    words = {"COMP_WORDS": "autosync --target-", "COMP_CWORD": "1"}
    suggested = commands.run("autosync", _AUTOSYNC_COMPLETE="bash_complete", AUTOSYNC_TARGET_PREFX="photos/", **words)
    assert "--target-container" in suggested.stdout
    assert suggested.stderr == ""


@pytest.mark.parametrize("where", ["an option", "a table"])
def test_the_options_of_the_users_own_actor_count(where: str, commands: Commands, tree: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text(STORE)
    (tree / "a").write_text("a")
    (tmp_path / "mirror.toml").write_text(
        f'[[target]]\nactor = "file"\ntarget-container = "{target}"\n[[target]]\nname = "own"\nactor = "store.Store"\n'
    )
    chosen = [f"--config={tmp_path / 'mirror.toml'}"] if where == "a table" else ["--actor=store.Store"]
    command = ["autosync", "--dry-run", "--accept-existing", *chosen, f"--source-prefix={tree}/", str(tree)]

    done = commands.run(*command, AUTOSYNC_PASSWD="p", AUTOSYNC_TABLE="t")
    wrong = commands.run(*command, AUTOSYNC_TABEL="t")

    assert done.stderr == ""
    assert "upload a\n" in done.stdout
    assert_refused(wrong, 2, "there is no variable AUTOSYNC_TABEL; write AUTOSYNC_TABLE, or unset it")


def test_control_does_nothing_under_a_wrong_name(commands: Commands) -> None:
    """`pause` for all mirrors in place of one."""
    done = commands.run("autosync-ctl", "pause", AUTOSYNC_NAM="photos")

    assert_refused(done, 2, "autosync-ctl: there is no variable AUTOSYNC_NAM; write AUTOSYNC_NAME, or unset it")


def test_control_accepts_the_options_of_an_actor_that_is_named(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store.py").write_text(STORE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # in front, autosync would keep it in mind for the next test

    unnamed = commands.run("autosync-ctl", "status", AUTOSYNC_PASSWD="p")
    named = commands.run("autosync-ctl", "status", AUTOSYNC_PASSWD="p", AUTOSYNC_ACTOR="store.Store")
    injected = commands.run("autosync-ctl", "status", **INJECTED)

    assert_refused(unnamed, 2, "if an actor of your own has that option, name the actor in AUTOSYNC_ACTOR")
    assert "AUTOSYNC_" not in named.stderr
    assert f"autosync-ctl: {WARNING}\n" in injected.stderr


# The configuration file


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("target-prefx = 'x'", "there is no option 'target_prefx'; write target-prefix"),
        ("no-delete = true", "there is no option 'no_delete'; write delete = false"),
        ("path = ['/srv']", "there is no option 'path'; write paths"),
        ("[[targets]]", "there is no option 'targets'; write target"),
        ("[[target]]\nactor = 'file'\nmax-delet = 1", "target 1: there is no option 'max_delet'; write max-delete"),
        ("[[target]]\nactor = 'file'\nno_delete = true", "target 1: there is no option 'no_delete'; write delete = false"),
        ("colour = 1", "there is no option 'colour'; see --help"),
    ],
)
def test_a_wrong_key_of_the_file_is_an_error_with_the_right_name(
    line: str, message: str, commands: Commands, tree: Path, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "mirror.toml").write_text(line)

    done = commands.run("autosync", f"--config={tmp_path / 'mirror.toml'}", *options(tree, target))

    assert_refused(done, 2, message)


# Workers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("autosync_source = ['/srv']", "celeryconfig: there is no setting 'autosync_source'; write autosync_sources, or remove it"),
        ("autosync_secerts = {}", "there is no setting 'autosync_secerts'; write autosync_secrets"),
        ("AUTOSYNC_SECRETS = {}", "there is no setting 'AUTOSYNC_SECRETS'; write autosync_secrets"),
        ("autosync_secrets = {'signing-kye': 'k'}", "autosync_secrets: there is no secret 'signing-kye'; write signing_key"),
        ("autosync_secrets = {'m': {'signingkey': 'k'}}", "autosync_secrets: there is no secret 'signingkey'; write signing_key"),
    ],
)
def test_a_wrong_setting_of_a_worker_is_an_error_with_the_right_name(
    content: str, message: str, commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "celeryconfig.py").write_text(content)

    assert_refused(commands.prepare_worker(), 1, message)


def test_a_setting_may_be_made_from_a_constant_of_its_name(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text("AUTOSYNC_SOURCES = ['/srv']\nautosync_sources = AUTOSYNC_SOURCES\nautosync_limit = 1\n")

    done = commands.prepare_worker()

    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_variable_of_a_worker_is_an_error_with_the_right_name(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text(STORE)

    assert_refused(commands.prepare_worker(AUTOSYNC_SOURCE="/srv"), 1, "AUTOSYNC_SOURCE; write AUTOSYNC_SOURCES, or unset it")
    assert_refused(commands.prepare_worker(AUTOSYNC_SIGNINGKEY="x" * 32), 1, "write AUTOSYNC_SIGNING_KEY, or unset it")
    assert_refused(commands.prepare_worker(AUTOSYNC_PASSWD="p"), 1, "name the actor in AUTOSYNC_ACTOR")
    own = commands.prepare_worker(AUTOSYNC_PASSWD="p", AUTOSYNC_ACTOR="store.Store")
    assert (own.returncode, own.stderr) == (0, "")
    assert commands.prepare_worker(**INJECTED).returncode == 0
