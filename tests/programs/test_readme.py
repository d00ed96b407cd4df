"""The statements of README.md and docs/settings.md are true: options, keys, the actor of the example, exit codes, settings, compose."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from autosync.actors import short_names
from autosync.broker.celery_settings import DEFAULTS
from autosync.celery import Loader
from autosync.errors import Exit
from lab import ROOT
from lab.commands import Commands
from lab.programs import BIN, Programs

README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
COMMANDS = ("autosync", "autosync-watch")
#: The example under README's "Keys".
MYSTUFF = ("1", "a/2", "a/b/3", "c/4")


def help_of(commands: Commands, *words: str) -> str:
    done = commands.run(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The long options of each command, as its --help lists them for each kind of target."""
    commands, found = Commands(tmp_path_factory.mktemp("help")), {}
    for command in COMMANDS:
        text = "".join(help_of(commands, command, f"--actor={name}") for name in short_names())
        lines = [line for line in text.splitlines() if re.match(r"  (-\w, )?--", line)]
        found[command] = {option for line in lines for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line.split("   ")[0])}
        assert {"--actor", "--once", "--help"} <= found[command]
    return found


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def key_rows() -> list[tuple[str, list[str], bool]]:
    """README's key table: command, keys, and whether they are all of them."""
    rows = re.findall(r"^\| `(autosync [^`]*mystuff)` \| (.*) \|$", README, re.MULTILINE)
    assert len(rows) == 5
    return [(command, re.findall(r"`([^`]+)`", keys), "…" not in keys) for command, keys in rows]


def written_options(text: str) -> Iterator[tuple[str, str]]:
    """Each option that code in `text` gives to one of our commands, or to none that is named."""
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in lines:
        words = shlex.split(line, comments=True) if line.count("'") % 2 == 0 and line.count('"') % 2 == 0 else line.split()
        program = words[0] if words else ""
        if program not in COMMANDS and program != "python" and not program.startswith("-"):
            continue  # celery, pip and others have options of their own
        for word in words:
            if word.startswith("--"):
                yield (program if program in COMMANDS else "autosync"), word.partition("=")[0].replace("_", "-")


def test_each_command_of_the_control_and_its_options_are_on_its_page(commands: Commands) -> None:
    page = (ROOT / "docs" / "control.md").read_text(encoding="utf-8")
    listed = help_of(commands, "autosync-ctl")
    names = re.findall(r"^  ([a-z]+) ", listed.partition("Commands:")[2], re.MULTILINE)
    assert len(names) > 8
    lines = re.findall(r"^\| (`.*)", page.partition("| command |")[2].partition("\n\n")[0], re.MULTILINE)
    rows = {command: line for line in lines for command in re.findall(r"`([a-z]+)[` ]", line.split(" | ")[0])}

    assert sorted(rows) == sorted(names)
    for option in re.findall(r"^  (--[a-z-]+)", listed, re.MULTILINE):
        assert option in ("--version",) or f"`{option} " in page, option
    for name in names:
        for option in re.findall(r"^  (--[a-z-]+)", help_of(commands, "autosync-ctl", name), re.MULTILINE):
            assert option in ("--json", "--all", "--help") or option in rows[name], (name, option)


@pytest.mark.parametrize("text", [README, SETTINGS], ids=["README.md", "docs/settings.md"])
def test_every_option_that_is_named_exists(text: str, helped: dict[str, set[str]]) -> None:
    visible = list(written_options(text))

    assert len(visible) > 10
    assert [(command, option) for command, option in visible if option not in helped[command]] == []


@pytest.mark.parametrize(("command", "keys", "complete"), key_rows(), ids=[row[0] for row in key_rows()])
def test_the_key_table_is_right(command: str, keys: list[str], complete: bool, commands: Commands, tmp_path: Path) -> None:
    here, target = tmp_path / "home" / "adeprince", tmp_path / "target"
    target.mkdir()
    for name in MYSTUFF:
        (here / "mystuff" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "mystuff" / name).write_text(name)
    moved = command.replace("/home/", f"{tmp_path}/home/")
    expected = [key.replace("/home/", f"{tmp_path}/home/", 1) for key in keys]
    script = f'cd "{here}" && printf "%s\\0" "$PWD" {moved}'
    here_as_shown, *words = subprocess.check_output(["sh", "-c", script], text=True).split("\0")[:-1]

    done = commands.run(*words, "--dry-run", "--actor=file", f"--target-container={target}", cwd=here, PWD=here_as_shown)

    assert done.returncode == 0, done.stderr
    got = [line.removeprefix("upload ") for line in done.stdout.splitlines()]
    assert len(got) == len(MYSTUFF)
    assert got[: len(expected)] == expected
    assert not complete or len(expected) == len(got)


def test_the_first_screen_explains_how_to_begin() -> None:
    first = README.splitlines()[:45]

    for wanted in ("make demo", "make test", "pip install .", "autosync-watch --broker redis://", "autosync --target-container"):
        assert any(wanted in line for line in first), wanted
    assert "celery -A autosync worker" in README
    assert "celery -A autosync flower" in README


def test_what_the_table_of_places_names_is_there() -> None:
    directories = re.findall(r"`((?:autosync|lab)/[\w./]*|celeryconfig\.py|docker/|docs/settings\.md)`", README)

    assert len(directories) > 10
    assert [directory for directory in directories if not (ROOT / directory).exists()] == []


class WebServer(ThreadingHTTPServer):
    """Takes PUT and DELETE and lists itself: what the actor of the example sends to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.held: dict[str, bytes] = {}


class _Answer(BaseHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        listed = [(key, len(content), time.time() + 10) for key, content in self.server.held.items()]
        self._answer(json.dumps(listed).encode())

    def do_PUT(self) -> None:
        self.server.held[unquote(self.path[1:])] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def do_DELETE(self) -> None:
        self.server.held.pop(unquote(self.path[1:]), None)
        self._answer()

    def _answer(self, content: bytes = b"") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def example() -> str:
    return next(block for block in blocks(README, "python") if "(Actor)" in block)


def test_the_example_of_an_actor_is_one_of_ours_once_imported(tmp_path: Path) -> None:
    (tmp_path / "web.py").write_text(example())
    script = "import web; from autosync import Actor; assert issubclass(web.Web, Actor)"

    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=tmp_path, check=True, timeout=60)


def test_the_example_of_an_actor_mirrors(web: WebServer, programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "web.py").write_text(example())
    photos = tmp_path / "photos"
    (photos / "may").mkdir(parents=True)
    (photos / "may" / "größe 100%.txt").write_text("one")
    (photos / "empty").write_text("")
    web.held["gone"] = b"x"
    options = ["--target-container", f"http://127.0.0.1:{web.server_port}/", "--source-prefix", f"{photos}/", "--workers=1", "--once"]
    options.append("--accept-existing")

    done = programs.run("python", "web.py", *options, str(photos))

    assert done.returncode == 0, done.stderr
    assert web.held == {"may/größe 100%.txt": b"one", "empty": b""}


def test_the_actor_of_the_docs_mirrors_and_is_held_to_the_contract(programs: Programs, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "actors.md").read_text(encoding="utf-8")
    actor, contract = blocks(page, "python")
    (tmp_path / "database_actor.py").write_text(actor)
    (tmp_path / "test_database_actor.py").write_text(contract)
    # A database gives all keys in one page.
    (tmp_path / "conftest.py").write_text("from autosync.testing import ActorContract\n\nActorContract.many = 120\n")
    photos = tmp_path / "photos"
    (photos / "may").mkdir(parents=True)
    (photos / "may" / "größe 100%.txt").write_text("one")

    command = ["database_actor.py", f"--source-prefix={photos}/", "--target-container=copy.sqlite", "--table=kept", "--once", str(photos)]
    done = programs.run("python", *command)
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as database:
        assert database.execute("SELECT key, content FROM kept").fetchall() == [("may/größe 100%.txt".encode(), b"one")]

    # SQLite calls fsync for each key that is sent, which takes no time in memory.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as memory:
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={memory}/tests", "test_database_actor.py"]
        held = programs.run("python", *command, timeout=110)
    assert held.returncode == 0, held.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", held.stdout)[1]) > 20  # type: ignore[index]


def test_the_toml_example_is_accepted(commands: Commands, tmp_path: Path) -> None:
    for block in [*blocks(README, "toml"), *blocks(SETTINGS, "toml")]:
        (tmp_path / "mirror.toml").write_text(block.replace("/srv/photos", str(tmp_path)))
        (tmp_path / "my-bucket").mkdir(exist_ok=True)
        paths = [] if "paths" in block else [str(tmp_path)]

        is_s3 = "[[pattern]]" in block
        passed = ["--endpoint-url=http://127.0.0.1:9"] if is_s3 else ["--actor=file"]

        done = commands.run("autosync", "--config", "mirror.toml", *passed, "--dry-run", *paths)

        # Each is printed after all options were read and understood.
        assert ("bucket my-bucket at http://127.0.0.1:9" if is_s3 else "lie in one another") in done.stderr, done.stderr


@pytest.mark.parametrize("page", [README, SETTINGS], ids=["README.md", "docs/settings.md"])
def test_every_exit_code_is_listed(page: str) -> None:
    for code in Exit:
        assert re.search(rf"^\| {int(code)} \|", page, re.MULTILINE), code


def test_the_settings_page_names_every_option_with_its_variable(helped: dict[str, set[str]]) -> None:
    for option in helped["autosync"] | helped["autosync-watch"]:
        assert re.search(rf"^\|.*`{option}[ `]", SETTINGS, re.MULTILINE), option
        if option not in ("--version", "--help", "--no-delete", "--no-accept-existing", "--no-one-file-system"):
            variable = "AUTOSYNC_" + option[2:].upper().replace("-", "_")
            row = re.search(rf"^\|.*`{option}[ `].*$", SETTINGS, re.MULTILINE)
            assert row is not None
            assert f"`{variable}`" in row[0]
            assert option == "--config" or f"| `{option[2:]}` |" in row[0]


def test_the_settings_page_names_every_setting_with_its_default() -> None:
    for name, default in DEFAULTS.items():
        row = re.search(rf"^\| `{name}` \| `([^`]*)` \|", SETTINGS, re.MULTILINE)
        assert row is not None, name
        assert row[1] == (default if name == "broker_url" else json.dumps(default) if default not in (True, False, None) else str(default))


def test_the_settings_page_names_the_variables_of_a_worker() -> None:
    doors = ("celery.py", "broker/operator_settings.py")
    code = "".join((ROOT / "autosync" / name).read_text(encoding="utf-8") for name in doors)

    variables = set(re.findall(r'"((?:AUTOSYNC|CELERY)_[A-Z_]+)"', code))

    assert {"AUTOSYNC_SOURCES", "AUTOSYNC_QUEUES", "AUTOSYNC_LOG_FORMAT"} <= variables
    assert [name for name in variables | {"CELERY_BROKER_URL"} if f"| `{name}` |" not in SETTINGS] == []


def test_the_lines_for_shell_completion_work(programs: Programs, tmp_path: Path) -> None:
    lines = [block for block in blocks(SETTINGS, "sh") if "bash_source" in block]
    script = f'PATH="{BIN}:$PATH"\n{lines[0]}\ncomplete -p autosync autosync-watch'

    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_the_repositorys_celeryconfig_loads_and_repeats_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))

    settings = Loader(app=None).read_configuration()
    settings["autosync_secrets"] = settings["autosync_secrets"].by_name()

    assert {name: settings[name] for name in DEFAULTS} == DEFAULTS
    assert set(settings) - set(DEFAULTS) == {"task_queues", "task_default_queue"}


def test_the_compose_file_is_a_fleet(commands: Commands) -> None:
    fleet = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text(encoding="utf-8"))
    services = fleet["services"]

    assert set(services) == {"valkey", "s3", "bucket", "watch", "worker", "flower"}
    assert services["worker"]["deploy"]["replicas"] == 2
    assert services["watch"]["volumes"] == services["worker"]["volumes"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert all(name in services for name in service.get("depends_on", ()))
        mounted = [volume.partition(":")[0] for volume in service.get("volumes", ())]
        assert all(name in fleet["volumes"] or name.startswith("$") for name in mounted)
    watch = services["watch"]["entrypoint"] + services["watch"]["command"]
    environ = services["watch"]["environment"] | {
        "AUTOSYNC_ENDPOINT_URL": "http://127.0.0.1:9", "AUTOSYNC_BROKER": "redis://127.0.0.1:9/0",
    }  # fmt: skip
    done = commands.run(*watch[:-1], "--dry-run", str(ROOT / "docs"), **environ)
    # All options are understood; then the S3 server does not answer.
    assert (done.returncode, "at http://127.0.0.1:9" in done.stderr) == (Exit.FAILED, True), done.stderr
    compile(services["bucket"]["command"][0], "bucket", "exec")
