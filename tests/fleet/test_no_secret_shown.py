"""Secrets are taken from where nobody sees them, and shown nowhere: whole runs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis
from test_trust import desk, names_in, request, rule_of_the_runbook  # noqa: F401 - desk is a fixture

from autosync.ledger import Ledger, connect
from lab.buckets import Bucket
from lab.faults import Proxy
from lab.locks import OPERATOR, LockedValkey
from lab.parts import running
from lab.ports import free_port
from lab.programs import BIN, Programs
from lab.servers import Moto, wait_until

SECRETS = {
    "password of the broker": "pass-word-of-the-fleet",
    "secret option of an actor": "Opt1on/of the+actor",
    "secret key": "s3SecretKeyThatIsOneOfAKind",
    "session token": "sessionTokenThatIsOneOfAKind",
    "password of Flower": "flower-pass-word",
}


PASSWORD, OPTION, KEY, TOKEN, FLOWER = SECRETS.values()


#: As they may be written in a URL.
WRITTEN = {*SECRETS.values(), "Opt1on%2Fof%20the%2Bactor", "Opt1on%2Fof+the%2Bactor", "Opt1on/of%20the%2Bactor"}


class CommandMonitor:
    """Records all commands that the server receives, as long as it lives."""

    def __init__(self, server: LockedValkey) -> None:
        self._client = redis.Redis.from_url(server.address_for("default", OPERATOR))  # which may wait for long
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        self.commands: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            while True:
                self.commands.append(self._monitor.next_command()["command"])
        except (redis.exceptions.RedisError, OSError, ValueError):
            pass  # the server is gone

    def close(self) -> None:
        """After the server has ended."""
        self._thread.join(30)
        self._monitor.__exit__(None, None, None)
        self._client.close()
        assert not self._thread.is_alive()


def everything(client: redis.Redis) -> str:
    """All that stands in the server."""
    reading = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1),
    }
    return " ".join(f"{key} {reading[client.type(key)](key)}" for key in client.scan_iter())


def command_lines() -> str:
    """Of all processes."""
    return "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))


def found_in(text: str) -> list[str]:
    return sorted(secret for secret in WRITTEN if secret in text)


STORE = """
import pathlib
from autosync import Actor, SecretOption

class Store(Actor):
    options = (SecretOption(["--password"]),)

    def list(self):
        pathlib.Path(self.target_container, "listed with").write_text(self.password)
        return []

    def upload(self, file):
        file.open().read()
        pathlib.Path(self.target_container, "sent with").write_text(self.password)

    def delete(self, file):
        pass
"""


#: Runs a command at a terminal of its own. A process with one thread does that, as only such a process may fork.
AT_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def at_a_prompt(command: list[str], cwd: Path, typed: str) -> str:
    """Run a command at a terminal of its own, and type something when it asks. Returns what the terminal has shown."""
    words = [sys.executable, "-I", "-S", "-c", AT_A_TERMINAL, *command]
    with subprocess.Popen(words, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as terminal:
        assert terminal.stdin is not None
        assert terminal.stdout is not None
        visible = b""
        while b"assword" not in visible:
            chunk = terminal.stdout.read(1000)
            assert chunk, visible
            visible += chunk
        terminal.stdin.write(f"{typed}\n".encode())
        while chunk := terminal.stdout.read(1000):
            visible += chunk
    assert terminal.returncode == 0, visible
    return visible.decode(errors="replace")


@pytest.fixture
def storing(tree: Path, tmp_path: Path) -> list[str]:
    """Options to mirror a file through the actor above, whose secret is to be found in files of this directory."""
    (tmp_path / "store.py").write_text(STORE)
    (tmp_path / "secret").write_text(OPTION + "\n")
    (tree / "file").write_text("x")
    return ["--actor=store.Store", f"--target-container={tmp_path}", "--no-delete", str(tree)]


def test_a_secret_is_read_from_a_prompt(programs: Programs, storing: list[str], tmp_path: Path) -> None:
    visible = at_a_prompt([str(BIN / "autosync"), "--password", "--dry-run", *storing], tmp_path, OPTION)

    assert OPTION not in visible
    assert (tmp_path / "listed with").read_text() == OPTION


def test_workers_have_a_secret_and_no_command_line_contains_it(programs: Programs, storing: list[str], tmp_path: Path) -> None:
    process = programs.start("autosync", f"--password=@{tmp_path}/secret", "--once", "--workers=1", *storing, cwd=tmp_path)
    own, all_lines = "", ""
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            own += "".join(" ".join(child.cmdline()) for child in psutil.Process(process.pid).children(recursive=True))
        all_lines += command_lines()
        time.sleep(0.02)

    assert "celery" in own, "its worker was seen"
    assert OPTION not in own + all_lines
    assert process.returncode == 0, process.output()
    assert (tmp_path / "sent with").read_text() == OPTION


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[LockedValkey]:
    yield from running(lambda: LockedValkey(tmp_path / "valkey", [rule_of_the_runbook()]))


def test_no_secret_is_printed_anywhere(
    programs: Programs, locked: LockedValkey, moto: Moto, tree: Path, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    for name, value in {
        **moto.environment(), "AWS_SECRET_ACCESS_KEY": KEY, "AWS_SESSION_TOKEN": TOKEN, "AUTOSYNC_PASSWORD": OPTION,
        "AUTOSYNC_BROKER": locked.address_for("autosync", PASSWORD), "CELERY_BROKER_URL": locked.address_for("autosync", PASSWORD),
        "AUTOSYNC_SOURCES": str(tree), "FLOWER_BASIC_AUTH": f"operator:{FLOWER}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    broker = os.environ["CELERY_BROKER_URL"]
    bucket = Bucket(moto)
    monitor, reported = CommandMonitor(locked), []
    target = tmp_path / "target"
    with Proxy(moto.url) as proxy:
        boxes = [
            programs.worker("-n", "celery@%h", "-l", "DEBUG", broker=broker, cwd=desk),
            programs.worker("-n", "json@%h", broker=broker, cwd=desk, AUTOSYNC_LOG_FORMAT="json", AUTOSYNC_VERBOSITY="2"),
        ]
        port = free_port()
        page, login = f"http://127.0.0.1:{port}", f"operator:{FLOWER}"
        flower = programs.start("celery", "-A", "autosync", "flower", f"--port={port}", "--address=127.0.0.1", cwd=desk)
        to_s3 = [f"--endpoint-url={proxy.url}", f"--source-prefix={tree}/", "-vv", str(tree)]
        watchers = [
            programs.start("autosync-watch", f"--target-container={bucket.name}", "--name=s3", *to_s3, cwd=desk),
            programs.start(
                "autosync-watch", "--actor=store.Store", f"--target-container={target}", f"--source-prefix={tree}/", "--name=store",
                "--attempts=2", "-vv", "--log-format=json", str(tree), cwd=desk,
            ),
        ]  # fmt: skip
        wait_until(lambda: request(f"{page}/api/workers?refresh=1", login)[1].count("@") >= 2, 40, "Flower sees both boxes", pause=0.2)

        # Parts that are cut, and requests that are answered with an error.
        proxy.cut_parts, proxy.errors = 3, 0.2
        (tree / "small").write_text("small")
        (tree / "large").write_bytes(os.urandom(1 << 20) * 20)
        # An actor that has its secret in its error.
        (tree / "later").write_text("later")
        wait_until(lambda: proxy.counts["cut part"] > 0 and set(bucket.sizes()) == {"small", "large", "later"}, 60, "S3 has all", pause=0.1)
        proxy.errors = 0.0
        ledger = Ledger(connect(broker), "store")
        wait_until(lambda: [failure.key for failure in ledger.failures.all()] == ["later"], 40, "a key has failed", pause=0.1)
        (reason,) = [failure.reason for failure in ledger.failures.all()]
        assert "https://user:***@store/ is closed" in reason
        assert names_in(target) >= {"small", "large"}

        # A bucket that there is not; a user whom the broker does not know; a broker that goes away and comes back.
        wrong = programs.run("autosync-watch", "--target-container=no-such-bucket", "--name=wrong", *to_s3, cwd=desk)
        assert wrong.returncode == 1
        stranger = programs.run("autosync-watch", f"--target-container={bucket.name}", *to_s3, cwd=desk,
                                AUTOSYNC_BROKER=locked.address_for("stranger", PASSWORD))  # fmt: skip
        assert stranger.returncode == 1
        reported += [wrong.stderr, wrong.stdout, stranger.stderr, stranger.stdout, command_lines(), everything(locked.client())]
        assert "autosync-watch" in command_lines()
        assert "later" in reported[-1]
        pages = ["/", "/tasks", "/broker", "/api/tasks", "/api/workers?refresh=1", "/api/task/types", "/metrics"]
        pages += [f"/worker/{name}@{os.uname().nodename}" for name in ("celery", "json")]
        responses = [request(page + path, login) for path in pages]
        assert [status for status, _ in responses] == [200] * len(pages), dict(zip(pages, responses, strict=True))
        assert "small" in responses[3][1]
        reported += [text for _, text in responses]
        locked.kill()
        monitor.close()
        (tree / "more").write_text("more")
        wait_until(lambda: all("what happens meanwhile is kept" in one.output() for one in watchers), 40, "the watchers miss it")
        wait_until(lambda: all("Connection" in one.output() for one in boxes), 30, "the boxes miss it too")
        locked.start()
        wait_until(lambda: "more" in bucket.sizes(), 60, "all goes on", pause=0.1)
        reported += [command_lines(), everything(locked.client())]
    assert [program.poll() for program in (*boxes, *watchers, flower)] == [None] * 5
    programs.stop()
    message = [program.output() for program in (*boxes, *watchers, flower)]
    assert all(message[:4])
    assert "debug" in message[1]
    assert "DEBUG" in message[0]

    assert any("EVALSHA" in command for command in monitor.commands)
    for text in (*reported, *message, *monitor.commands):
        assert found_in(text) == [], text[:2000]
