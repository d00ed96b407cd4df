"""Names of files are UTF-8, whatever the locale is. Else a file has another key on each host, and a box deletes what is there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from lab.parts import lacking
from lab.programs import Programs
from lab.servers import wait_until

#: UTF-8, Latin-1, and no text at all; and one whose bytes in Latin-1 are another's in UTF-8.
NAMES = [b"\xc3\xbc.txt", b"\xfc.txt", b"d\xff/\xe2\x82\xac", b"\xc3\x83\xc2\xbc.txt", b"plain"]
#: Locales with UTF-8 mode forbidden, and locales in which Python may choose it.
FORBIDDEN = ["ASCII", "Latin-1, and UTF-8 mode forbidden"]
LOCALES = [*FORBIDDEN, "Latin-1 by LANG", "Latin-1 by LC_ALL"]


@pytest.fixture(scope="session")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of locales with an en_US as it was before UTF-8."""
    directory = tmp_path_factory.mktemp("locales")
    with suppress(FileNotFoundError):
        subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(directory / "en_US")], check=False, capture_output=True)
    if not (directory / "en_US/LC_CTYPE").exists():
        lacking("Debian's package locales")
    return directory


@pytest.fixture(params=FORBIDDEN)
def environ(request: pytest.FixtureRequest, latin1: Path) -> dict[str, str]:
    """The variables of a process in such a locale."""
    found = {"LOCPATH": str(latin1), "LANG": "", "LC_ALL": "", "PYTHONUTF8": ""}
    return found | {
        "Latin-1 by LANG": {"LANG": "en_US"},
        "Latin-1 by LC_ALL": {"LC_ALL": "en_US", "LANG": "C.UTF-8"},
        "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0"},
        "Latin-1, and UTF-8 mode forbidden": {"LANG": "en_US", "PYTHONUTF8": "0"},
    }[request.param]


@pytest.fixture
def named(tree: Path) -> list[bytes]:
    """Makes files of all these names."""
    for name in NAMES:
        path = os.path.join(os.fsencode(tree), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(name)
    return sorted(NAMES)


@pytest.fixture
def options(tree: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "target").mkdir()
    return ["--actor=file", f"--target-container={tmp_path}/target", f"--source-prefix={tree}/", f"--state-dir={tmp_path}/state", str(tree)]


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[], list[bytes]]:
    top = os.fsencode(tmp_path / "target")
    return lambda: sorted(os.path.relpath(os.path.join(at, name), top) for at, _, names in os.walk(top) for name in names)


@pytest.mark.parametrize("environ", LOCALES, indirect=True)
def test_the_locale_is_another(environ: dict[str, str], programs: Programs) -> None:
    """Or the other tests here show nothing."""
    done = programs.run("python", "-c", "import sys; print(sys.getfilesystemencoding())", **environ)

    assert done.stdout.strip() in ("iso8859-1", "ascii")


@pytest.mark.parametrize("environ", LOCALES, indirect=True)
def test_on_one_host_names_are_what_they_are(
    programs: Programs, environ: dict[str, str], named: list[bytes], options: list[str], copied: Callable[[], list[bytes]]
) -> None:
    process = programs.start("autosync", "--workers=1", *options, **environ)
    wait_until(lambda: copied() == named, 60, "all files are sent")
    (worker,) = process.children("celery")
    worker.kill()
    wait_until(lambda: "is started again" in process.output(), 60, "its death was seen")
    with open(os.path.join(os.fsencode(options[-1]), b"late\xc3\xbc\xfc"), "wb"):
        pass

    wait_until(lambda: copied() == sorted([*named, b"late\xc3\xbc\xfc"]), 60, "the next worker has sent it under its name")


def test_a_box_deletes_nothing_that_is_there(
    programs: Programs, environ: dict[str, str], named: list[bytes], options: list[str], copied: Callable[[], list[bytes]], broker: str
) -> None:
    worker = programs.worker(broker=broker, AUTOSYNC_SOURCES=options[-1], **environ)

    done = programs.run("autosync-watch", "--once", f"--broker={broker}", *options)

    assert done.returncode == 0, done.stderr + worker.output()
    assert copied() == named


def test_a_file_host_reports_nothing_as_gone_that_is_there(
    programs: Programs, environ: dict[str, str], named: list[bytes], options: list[str], copied: Callable[[], list[bytes]], broker: str
) -> None:
    worker = programs.worker(broker=broker, AUTOSYNC_SOURCES=options[-1])
    for again in range(2):
        done = programs.run("autosync-watch", "--once", f"--broker={broker}", *options, **(environ if again else {}))
        assert done.returncode == 0, done.stderr + worker.output()

    assert copied() == named


def test_operators_name_keys_as_they_are(programs: Programs, environ: dict[str, str], named: list[bytes], options: list[str]) -> None:
    process = programs.start("autosync", *options)
    wait_until(lambda: "compared" in process.output(), 60, "it runs")

    done = programs.run("autosync-ctl", options[-2], "why", "ü.txt", **environ)

    assert done.returncode == 0, done.stderr
    assert f"{options[-1]}/ü.txt" in done.stdout


def test_an_actor_of_the_users_own_starts_again_with_its_program(
    programs: Programs, environ: dict[str, str], named: list[bytes], options: list[str], copied: Callable[[], list[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "from autosync import main\nfrom autosync.actors.file import FileActor\n\nclass Own(FileActor):\n    pass\n\n"
        "if __name__ == '__main__':\n    main(actor=Own)\n"
    )

    done = programs.run("python", "own.py", "--once", *options[1:], cwd=tmp_path, **environ)

    assert done.returncode == 0, done.stderr
    assert copied() == named


def test_what_is_a_part_of_another_program_is_refused(programs: Programs, environ: dict[str, str], options: list[str]) -> None:
    command = programs.run("python", "-c", f"from autosync import main\nmain({['--once', *options]!r})", **environ)
    app = programs.run("python", "-c", "from autosync.celery import app\nprint(app.conf.autosync_sources)", **environ)

    assert (command.returncode, app.returncode) == (2, 1)
    for done in (command, app):
        assert done.stderr.startswith("autosync: names of files are read as "), done.stderr
        assert done.stderr.endswith("set PYTHONUTF8=1, without -X utf8=0\n")
        assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
