"""Secrets are taken from where nobody sees them, and shown nowhere: whole runs."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from test_trust import ask, desk, names_in, rule_of_the_runbook  # noqa: F401 - desk is a fixture

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


class Ear:
    """Hears all that the server is told, as long as it lives."""

    def __init__(self, server: LockedValkey) -> None:
        self._client = redis.Redis.from_url(server.address_for("default", OPERATOR))  # which may wait for long
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        self.heard: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            while True:
                self.heard.append(self._monitor.next_command()["command"])
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
        return []

    def upload(self, file):
        file.open().read()
        pathlib.Path(self.target_container, "by").write_text(self.password)

    def delete(self, file):
        pass
"""


def at_a_prompt(command: list[str], cwd: Path, environ: dict[str, str], typed: str) -> str:
    """Run a command at a terminal of its own, and type something when it asks. Returns what the terminal has shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execve(command[0], command, environ)
    shown = b""
    try:
        while b"assword" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, f"{typed}\n".encode())
        while piece := os.read(terminal, 1000):
            shown += piece
    except OSError:  # the terminal ends with who uses it
        pass
    finally:
        os.close(terminal)
        assert os.waitpid(pid, 0)[1] == 0, shown
    return shown.decode(errors="replace")


@pytest.mark.parametrize("way", ["environment", "a file", "a file in the environment", "a prompt"])
def test_a_secret_is_taken_from_where_nobody_sees_it(way: str, programs: Programs, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text(STORE)
    (tmp_path / "secret").write_text(OPTION + "\n")
    (tree / "file").write_text("x")
    target = tmp_path / "target"
    target.mkdir()
    options = ["--actor=store.Store", f"--target-container={target}", "--once", "--no-delete", str(tree)]
    environ = {"environment": {"AUTOSYNC_PASSWORD": OPTION}, "a file in the environment": {"AUTOSYNC_PASSWORD": f"@{tmp_path}/secret"}}
    if way == "a prompt":
        shown = at_a_prompt(
            [str(BIN / "autosync"), "--password", *options], tmp_path, {**os.environ, "AUTOSYNC_STATE_DIR": str(tmp_path / "state")}, OPTION
        )
        assert OPTION not in shown
    else:
        given = [f"--password=@{tmp_path}/secret"] if way == "a file" else []
        process = programs.start("autosync", *given, *options, cwd=tmp_path, **environ.get(way, {}))
        told = ""
        while process.poll() is None:
            told += command_lines()
        assert "celery" in told, "its workers were seen"
        assert OPTION not in told
        assert process.returncode == 0, process.said()

    assert (target / "by").read_text() == OPTION


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[LockedValkey]:
    yield from running(lambda: LockedValkey(tmp_path / "valkey", [rule_of_the_runbook()]))


def test_no_secret_is_told_anywhere(
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
    ear, told = Ear(locked), []
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
        wait_until(lambda: ask(f"{page}/api/workers?refresh=1", login)[1].count("@") >= 2, 40, "Flower sees both boxes", pause=0.2)

        # Parts that are cut, and requests that are answered with an error.
        proxy.cut_parts, proxy.errors = 3, 0.2
        (tree / "small").write_text("small")
        (tree / "large").write_bytes(os.urandom(1 << 20) * 20)
        # An actor that has its secret in what it says.
        (tree / "later").write_text("later")
        wait_until(lambda: proxy.counts["cut part"] > 0 and set(bucket.sizes()) == {"small", "large", "later"}, 60, "S3 has all", pause=0.1)
        proxy.errors = 0.0
        ledger = Ledger(connect(broker), "store")
        wait_until(lambda: [failure.key for failure in ledger.failures()] == ["later"], 40, "a key has failed", pause=0.1)
        (reason,) = [failure.reason for failure in ledger.failures()]
        assert "https://user:***@store/ is closed" in reason
        assert names_in(target) >= {"small", "large"}

        # A bucket that there is not; a user whom the broker does not know; a broker that goes away and comes back.
        wrong = programs.run("autosync-watch", "--target-container=no-such-bucket", "--name=wrong", *to_s3, cwd=desk)
        assert wrong.returncode == 1
        stranger = programs.run("autosync-watch", f"--target-container={bucket.name}", *to_s3, cwd=desk,
                                AUTOSYNC_BROKER=locked.address_for("stranger", PASSWORD))  # fmt: skip
        assert stranger.returncode == 1
        told += [wrong.stderr, wrong.stdout, stranger.stderr, stranger.stdout, command_lines(), everything(locked.client())]
        assert "autosync-watch" in command_lines()
        assert "later" in told[-1]
        pages = ["/", "/tasks", "/broker", "/api/tasks", "/api/workers?refresh=1", "/api/task/types", "/metrics"]
        pages += [f"/worker/{name}@{os.uname().nodename}" for name in ("celery", "json")]
        answers = [ask(page + path, login) for path in pages]
        assert [status for status, _ in answers] == [200] * len(pages), dict(zip(pages, answers, strict=True))
        assert "small" in answers[3][1]
        told += [text for _, text in answers]
        locked.kill()
        ear.close()
        (tree / "more").write_text("more")
        wait_until(lambda: all("what happens meanwhile is kept" in one.said() for one in watchers), 40, "the watchers miss it")
        wait_until(lambda: all("Connection" in one.said() for one in boxes), 30, "the boxes miss it too")
        locked.start()
        wait_until(lambda: "more" in bucket.sizes(), 60, "all goes on", pause=0.1)
        told += [command_lines(), everything(locked.client())]
    assert [program.poll() for program in (*boxes, *watchers, flower)] == [None] * 5
    programs.stop()
    said = [program.said() for program in (*boxes, *watchers, flower)]
    assert all(said[:4])
    assert "debug" in said[1]
    assert "DEBUG" in said[0]

    assert any("EVALSHA" in command for command in ear.heard)
    for text in (*told, *said, *ear.heard):
        assert found_in(text) == [], text[:2000]
