"""Whom a fleet trusts: forged messages, a broker behind passwords, rights and TLS, and what its user may not do."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import redis
from kombu.exceptions import OperationalError

from autosync.broker.celery_settings import UPLOAD
from autosync.celery import make_app, sending_app
from autosync.feed.publisher import Priority, Publisher
from autosync.ledger import UNKNOWN, Ledger, connect
from autosync.ledger.redis_connection import address
from autosync.watch.inotify import Inotify
from lab import ROOT
from lab.commands import Commands
from lab.locks import OPERATOR, Authority, LockedValkey, RedisWithTls, TlsRelay
from lab.parts import running
from lab.ports import free_port
from lab.programs import Program, Programs
from lab.servers import Valkey, wait_until

RUNBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PASSWORD = "pass-word-of-the-fleet"
IN_OPEN = 0x20
DROPPED = "is none of autosync's and is dropped"


# Messages


class Evil:
    """Unpickled, it makes a directory."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._marker),)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def a_message(publisher: Publisher, keys: list[str]) -> dict[str, Any]:
    """A message as autosync sends it."""
    found: dict[str, Any] = json.loads(publisher._message(keys, 0, Priority.EVENT, UPLOAD)[1].text)
    return found


def none_of_ours(valid: dict[str, Any], marker: Path) -> dict[str, bytes]:
    """What a queue may be made to hold, by name."""

    def top(**changes: Any) -> bytes:
        return json.dumps({**valid, **{name.replace("_", "-"): value for name, value in changes.items()}}).encode()

    def headers(**changes: Any) -> bytes:
        return top(headers={**valid["headers"], **changes})

    def body(*parts: Any) -> bytes:
        return top(body=encoded(json.dumps(parts).encode()))

    evil = pickle.dumps(Evil(marker))
    yaml = f"!!python/object/apply:os.mkdir ['{marker}']".encode()
    arguments = ["trust", ["a"]]
    another = {"task": UPLOAD, "args": arguments, "kwargs": {}, "options": {}}
    return {
        "raw pickle": evil,
        "no text": b"\xff\xfe",
        "nothing": b"",
        "null": b"null",
        "a list": b"[]",
        "an empty object": b"{}",
        "brackets without an end": b"[" * 200_000,
        "a time that is none": b'{"__type__": "datetime", "__value__": 5}',
        "pickle": top(content_type="application/x-python-serialize", content_encoding="binary", body=encoded(evil)),
        "pickle that is labelled as JSON": top(body=encoded(evil)),
        "yaml": top(content_type="application/x-yaml", body=encoded(yaml)),
        "bytes": top(content_type="application/data", content_encoding="binary"),
        "no headers": top(headers=None),
        "headers that are a list": top(headers=["task"]),
        "no properties": top(properties=None),
        "no delivery tag": top(properties={**valid["properties"], "delivery_tag": None}),
        "another encoding": top(properties={**valid["properties"], "body_encoding": "rot13"}),
        "a task of Celery's": headers(task="celery.backend_cleanup"),
        "no such task": headers(task="os.system"),
        "a task that is a list": headers(task=[UPLOAD]),
        "no id": headers(id=None),
        "an id that writes into the log": headers(id="x\n12:00:00 all is well"),
        "kept for later": headers(eta="2099-01-01T00:00:00+00:00"),
        "a time limit": headers(timelimit=[1, 1]),
        "tries that are a text": headers(retries="many"),
        "a line that is a list": headers(argsrepr=["x"] * 100),
        "another behind it": body(arguments, {}, {"callbacks": [another], "errbacks": None, "chain": None, "chord": None}),
        "a chain behind it": body(arguments, {}, {"callbacks": None, "errbacks": None, "chain": [another], "chord": None}),
        "arguments by name": body([], {"mirror": "trust", "keys": ["a"]}, {}),
        "too few arguments": body(["trust"], {}, {}),
        "too many arguments": body([*arguments, "a"], {}, {}),
        "a body that is a number": body(1),
        "a body that is no base64": top(body="***"),
        "a time in the body that is none": body(["trust", [{"__type__": "datetime", "__value__": 5}]], {}, {}),
        "a body of 50 MB": top(body="A" * 50_000_000),
    }


class Scene(NamedTuple):
    box: Program
    client: redis.Redis
    publisher: Publisher
    ledger: Ledger
    once: list[str]
    target: Path


@pytest.fixture
def scene(programs: Programs, valkey: Valkey, broker: str, tree: Path, tmp_path: Path) -> Iterator[Scene]:
    """An upload box that has sent `a`, and nobody watches."""
    target = tmp_path / "target"
    target.mkdir()
    (tree / "a").write_text("a")
    box = programs.worker(broker=broker, AUTOSYNC_SOURCES=str(tree))
    once = [
        "autosync-watch", "--once", f"--broker={broker}", "--actor=file", f"--target-container={target}", f"--source-prefix={tree}/",
        "--name=trust", str(tree),
    ]  # fmt: skip
    done = programs.run(*once)
    assert done.returncode == 0, done.stderr
    app = sending_app(broker, "autosync", events=False)
    ledger = Ledger(connect(broker), "trust")
    yield Scene(box, valkey.client(), Publisher(app, "trust", "autosync", ledger), ledger, once, target)
    app.close()


def names_in(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_what_is_no_message_of_ours_is_dropped_with_one_line_and_the_worker_lives(
    scene: Scene, programs: Programs, tree: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "was-unpickled"
    bad = none_of_ours(a_message(scene.publisher, ["a"]), marker)
    before = scene.box.output().count("\n")

    for content in bad.values():
        scene.client.lpush("autosync:autosync", content)
    for content in (b"{}", bad["pickle"]):  # and to where remote control listens
        assert scene.client.publish("autosync:/0.celery.pidbox", content) == 1

    wait_until(lambda: scene.box.output().count(DROPPED) >= len(bad) + 2, 30, "all are dropped")
    assert scene.box.output().count("\n") - before == len(bad) + 2, scene.box.output()
    assert "Traceback" not in scene.box.output()
    assert not marker.exists()

    # It has places for messages still: more were dropped than it takes at a time.
    (tree / "after").write_text("after")
    assert programs.run(*scene.once).returncode == 0
    assert names_in(scene.target) == {"a", "after"}


def test_a_message_for_what_is_not_dirty_or_of_any_size_does_nothing(scene: Scene, tree: Path) -> None:
    replayed = a_message(scene.publisher, ["a"])
    huge = [f"key {number}" for number in range(1_000_000)]
    (tree / "unmarked").write_text("nobody has marked this")
    (scene.target / "a").unlink()
    sent = [replayed, replayed]
    for arguments in (
        ["trust", ["unmarked", "../../etc/passwd", "/etc/passwd", "a\0b", "a/", "//", "."]],
        ["trust", ["unmarked"] * 5000],
        ["trust", huge],
        ["nobody", ["a"]],
        ["trust", [""]],
        ["trust", ["\ud800"]],
        ["\ud800", ["a"]],
        ["m" * 1_000_000, ["a"]],
        ["trust", [["a"]]],
        [["trust"], ["a"]],
        [None, None],
    ):
        forged = copy.deepcopy(replayed)
        forged["body"] = encoded(json.dumps([arguments, {}, {}]).encode())
        sent.append(forged)
    before = scene.box.output().count("succeeded in")

    for message in sent:
        scene.client.lpush("autosync:autosync", json.dumps(message))

    wait_until(lambda: scene.box.output().count("succeeded in") == before + len(sent), 30, "all were worked off")
    assert names_in(scene.target) == set(), "what the replayed message is about is right as far as the ledger knows"
    output = scene.box.output()
    assert output.count("was not understood and is dropped") == 8
    assert "Traceback" not in output
    assert max(map(len, output.splitlines())) < 2000
    assert (scene.ledger.key_states.count_dirty(), scene.box.poll()) == (0, None)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the source, with a file that nobody may open; it is seen if somebody does."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_text("must not be read")
    eye = Inotify()
    held = os.open(directory, os.O_PATH)
    eye.add(held, IN_OPEN)
    yield directory
    opened = [event.name for event in eye.read() if event.name]
    with open(directory / "secret"):  # the eye sees
        pass
    assert [event.name for event in eye.read() if event.name] == ["secret"]
    os.close(held)
    eye.close()
    assert opened == []


def test_keys_that_lead_out_read_nothing_and_send_nothing_even_if_the_ledger_is_forged(scene: Scene, tree: Path, outside: Path) -> None:
    (tree / "link").symlink_to(outside / "secret")
    (tree / "way").symlink_to(outside)
    keys = ["../outside/secret", str(outside / "secret"), f"..{outside}/secret", "link", "way/secret", "x/../../outside/secret",
            "a\0b", "nul\0/secret", ".", "..", "/", "d/", "\udcff\udcfe"]  # fmt: skip

    scene.publisher.mark([(key, UNKNOWN) for key in keys], size=0, priority=Priority.EVENT)

    def is_worked_off(key: str) -> bool:
        facts = scene.ledger.key_states.facts(key)
        return facts.dirty is None or facts.dispute is not None  # no watcher runs that could confirm that there is no such file

    wait_until(lambda: all(map(is_worked_off, keys)), 30, "all were worked off")
    assert names_in(scene.target) == {"a"}
    assert "Traceback" not in scene.box.output()
    assert list(scene.ledger.failures.all()) == []


def test_a_link_that_is_swapped_in_between_check_and_open_leads_nowhere(scene: Scene, tree: Path, outside: Path, tmp_path: Path) -> None:
    """`swapped` is a file and a link in turns, and `d` a directory and a link, as fast as it goes, while a worker sends them."""
    aside = tmp_path / "aside"
    aside.mkdir()
    (tree / "d").mkdir()
    (tree / "d/secret").write_text("inside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (aside / "link").symlink_to(outside / "secret")
            (aside / "link").rename(tree / "swapped")
            (tree / "d").rename(aside / "d")
            (tree / "d").symlink_to(outside)
            (aside / "file").write_text("inside")
            (aside / "file").rename(tree / "swapped")
            (tree / "d").unlink()
            (aside / "d").rename(tree / "d")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(150):
            scene.publisher.mark([("swapped", UNKNOWN), ("d/secret", UNKNOWN)], size=0, priority=Priority.EVENT)
            wait_until(lambda: scene.ledger.queues.count_waiting("autosync") == 0, 20, "it is worked on")
            for name in ("swapped", "d/secret"):
                try:
                    content = (scene.target / name).read_text()
                except OSError:
                    continue
                assert content in ("", "inside")
    finally:
        stop.set()
        swapping.join()
    output = scene.box.output()
    assert output.count("uploaded swapped") + output.count("uploaded d/secret") > 0
    assert "leads out" in output or "kept" in output, "the link was met with"
    assert "Traceback" not in output


# The broker's user


def rule_of_the_runbook() -> str:
    """The line of the ACL, with a password."""
    (block,) = re.findall(r"^```acl\n(.*?)\n```$", RUNBOOK, re.MULTILINE | re.DOTALL)
    line = " ".join(block.split())
    assert "CHANGE-ME" in line
    return line.replace("CHANGE-ME", PASSWORD)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedValkey]:
    rules = [rule_of_the_runbook(), rule_of_the_runbook().replace("user autosync ", "user less ").replace("+lpush ", ""),
             rule_of_the_runbook().replace("user autosync ", "user no-pidbox ").replace("&autosync:/0.celery.pidbox ", "")]  # fmt: skip
    yield from running(lambda: LockedValkey(tmp_path_factory.mktemp("locked"), rules))


@pytest.fixture
def locked(server: LockedValkey) -> LockedValkey:
    """An empty broker with the user `autosync` of the runbook, and two that lack something; nothing is refused yet."""
    server.client().flushall()
    server.client().acl_log_reset()
    return server


ACTOR = """
import os

from autosync import Actor, File, SecretOption


class Store(Actor):
    options = (SecretOption(["--password"]),)
    container_is = "directory"

    def list(self):
        for name in os.listdir(self.target_container):
            seen = os.stat(f"{self.target_container}/{name}")
            yield File(key=name, size=seen.st_size, mtime=seen.st_mtime)

    def upload(self, file):
        if file.key == "later" and not os.path.exists(self.target_container + ".open"):
            raise ConnectionError(f"https://user:{self.password}@store/ is closed")
        with file.open() as source, open(f"{self.target_container}/{file.key}", "wb") as target:
            target.write(source.read())

    def delete(self, file):
        os.unlink(f"{self.target_container}/{file.key}")
"""
SECRET = "secret-of-the-actor"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A directory with an actor that fails at first for one key, and has its own secret in its error."""
    directory = tmp_path / "desk"
    directory.mkdir()
    (directory / "store.py").write_text(ACTOR)
    (tmp_path / "target").mkdir()
    return directory


def watching(tree: Path, tmp_path: Path) -> list[str]:
    return ["autosync-watch", "--actor=store.Store", f"--target-container={tmp_path}/target", f"--source-prefix={tree}/", "--name=trust",
            str(tree)]  # fmt: skip


def request(url: str, login: str = "", *, method: str = "GET") -> tuple[int, str]:
    """Status and text of a page; status 0: nobody answers."""
    request = urllib.request.Request(url, method=method)
    if login:
        request.add_header("Authorization", f"Basic {encoded(login.encode())}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""
    except OSError:
        return 0, ""


def test_a_fleet_runs_as_the_user_of_the_runbook_and_is_refused_nothing(
    programs: Programs, locked: LockedValkey, tree: Path, desk: Path, tmp_path: Path
) -> None:
    broker = locked.address_for("autosync", PASSWORD)
    target = tmp_path / "target"
    environ = {"CELERY_BROKER_URL": broker, "AUTOSYNC_SOURCES": str(tree), "AUTOSYNC_PASSWORD": SECRET}
    worker = ("celery", "-A", "autosync", "worker", "-l", "INFO")  # with gossip and mingle, as somebody may start it
    boxes = [programs.start(*worker, "-n", f"box{number}@%h", cwd=desk, **environ) for number in (1, 2)]
    port = free_port()
    flower = programs.start(
        "celery", "-A", "autosync", "flower", f"--port={port}", "--address=127.0.0.1", "--read-only", cwd=desk,
        CELERY_BROKER_URL=broker, FLOWER_BASIC_AUTH="operator:watches",
    )  # fmt: skip
    page = f"http://127.0.0.1:{port}"
    wait_until(lambda: all(" ready." in box.output() or box.poll() is not None for box in boxes), 30, "both boxes are ready")
    wait_until(lambda: request(f"{page}/api/workers?refresh=1", "operator:watches")[1].count("box") >= 2, 40, "Flower sees both", pause=0.2)
    watcher = programs.start(*watching(tree, tmp_path), cwd=desk, AUTOSYNC_BROKER=broker, AUTOSYNC_PASSWORD=SECRET)

    (tree / "a").write_text("a")
    (tree / "later").write_text("later")
    wait_until(lambda: names_in(target) == {"a"}, 20, "what can be sent is sent")
    wait_until(lambda: any("tried again" in box.output() for box in boxes), 20, "the other is tried again")
    Path(f"{target}.open").touch()
    wait_until(lambda: names_in(target) == {"a", "later"}, 40, "a later try succeeds")
    (tree / "a").unlink()
    wait_until(lambda: names_in(target) == {"later"}, 20, "what is gone is deleted")
    pinged = programs.run("celery", "-A", "autosync", "inspect", "ping", cwd=desk, CELERY_BROKER_URL=broker)
    assert pinged.stdout.count("pong") == 2, pinged.stdout + pinged.stderr
    wait_until(lambda: "SUCCESS" in request(f"{page}/api/tasks", "operator:watches")[1], 20, "Flower sees transfers", pause=0.2)

    # Flower, closed
    assert request(page)[0] == request(f"{page}/api/workers")[0] == request(page, "operator:guesses")[0] == 401
    assert request(page, "operator:watches")[0] == request(f"{page}/metrics")[0] == request(f"{page}/healthcheck")[0] == 200
    name = next(iter(json.loads(request(f"{page}/api/workers", "operator:watches")[1])))
    assert request(f"{page}/api/worker/shutdown/{name}", "operator:watches", method="POST")[0] == 403

    assert [program.poll() for program in (watcher, flower, *boxes)] == [None] * 4
    for program in (watcher, *boxes):
        program.send_signal(signal.SIGTERM)
    assert [program.wait(20) for program in (watcher, *boxes)] == [0, 0, 0]
    assert locked.client().acl_log() == []


def test_that_user_may_do_nothing_else(locked: LockedValkey) -> None:
    operator, user = locked.client(), connect(locked.address_for("autosync", PASSWORD))
    operator.set("foreign", "x")
    operator.lpush("foreign:list", "x")
    refused = [
        "GET foreign", "SET foreign y", "DEL foreign", "LPUSH foreign:list y", "BRPOP foreign:list 1", "HSET foreign:hash a b", "KEYS *",
        "SCAN 0", "RANDOMKEY", "FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET save x", "SHUTDOWN NOSAVE", "ACL LIST", "ACL WHOAMI",
        "CLIENT LIST", "CLIENT KILL TYPE normal", "MONITOR", "SAVE", "BGREWRITEAOF", "REPLICAOF 127.0.0.1 1",
        "MODULE LIST",         "SCRIPT FLUSH", "FUNCTION LIST", "EVAL return 0", "MIGRATE 127.0.0.1 1 foreign 0 1", "PUBLISH foreign x",
        "RENAME foreign autosync:x", "COPY foreign autosync:x",
    ]  # fmt: skip

    for command in refused:
        with pytest.raises(redis.exceptions.NoPermissionError):
            user.execute_command(*command.split())
    with user.pubsub() as channel:
        channel.psubscribe("*")
        with pytest.raises(redis.exceptions.NoPermissionError):
            channel.get_message(timeout=5)
    for script in ("return redis.call('GET', 'foreign')", "return redis.call('FLUSHALL')"):
        sha = user.script_load(script)
        with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission"):
            user.evalsha(sha, 0)

    assert operator.get("foreign") == b"x"
    assert operator.llen("foreign:list") == 1


# Doors that stay shut


class Tls(NamedTuple):
    authority: Authority
    #: Before the server of the module: with a certificate for 127.0.0.1, and with one for another host.
    port: int
    another: int


@pytest.fixture(scope="module")
def tls(server: LockedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory, "authority")
    relays = [TlsRelay(directory / host, authority.certificate(host), server.port) for host in ("127.0.0.1", "broker.example.com")]
    for relay in relays:
        relay.start()
    yield Tls(authority, relays[0].port, relays[1].port)
    for relay in relays:
        relay.stop()


#: URL, and the error text. {port}: without TLS; {tls}, {another}: the relays; {ca}: of the authority.
REFUSED = {
    "wrong password": ("redis://autosync:wr-ong@127.0.0.1:{port}/0", "the password of user autosync is wrong; correct user and password"),
    "no password": ("redis://127.0.0.1:{port}/0", "it wants a password; correct user and password"),
    "no such user": ("redis://nobody:{password}@127.0.0.1:{port}/0", "the password of user nobody is wrong"),
    "a right is missing": ("redis://less:{password}@127.0.0.1:{port}/0", "user less lacks a permission"),
    "unknown authority": ("rediss://autosync:{password}@127.0.0.1:{tls}/0", "its certificate does not fit: "),
    "another host": ("rediss://autosync:{password}@127.0.0.1:{another}/0?ssl_ca_certs={ca}", "does not fit: IP address mismatch"),
    "wrong password over TLS": ("rediss://autosync:wr-ong@127.0.0.1:{tls}/0?ssl_ca_certs={ca}", "the password of user autosync is wrong"),
    "no such file": ("rediss://autosync:{password}@127.0.0.1:{tls}/0?ssl_ca_certs=/no/such.pem", "/no/such.pem cannot be read"),
    "no such value": ("rediss://autosync:{password}@127.0.0.1:{tls}/0?ssl_check_hostname=never", "ssl_check_hostname cannot be 'never'"),
}  # fmt: skip


def assert_refused(done: subprocess.CompletedProcess[str], code: int, error_text: str) -> None:
    assert (done.returncode, done.stdout) == (code, "")
    assert error_text in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert PASSWORD not in done.stderr
    assert "wr-ong" not in done.stderr


def watching_refused(tree: Path) -> list[str]:
    target = Path(f"{tree}-target")
    target.mkdir()
    return ["autosync-watch", "--actor=file", f"--target-container={target}", str(tree)]


@pytest.mark.parametrize("case", REFUSED)
def test_a_broker_that_refuses_us_is_one_clear_line(case: str, commands: Commands, locked: LockedValkey, tls: Tls, tree: Path) -> None:
    url, error_text = REFUSED[case]
    directories = {"port": locked.port, "password": PASSWORD, "tls": tls.port, "another": tls.another, "ca": tls.authority.file}
    broker = url.format(**directories)

    code = 2 if case in ("no such file", "no such value") else 1

    assert_refused(commands.run(*watching_refused(tree), AUTOSYNC_BROKER=broker), code, error_text)
    assert_refused(commands.prepare_worker(CELERY_BROKER_URL=broker), 1, error_text)


def test_real_programs_end_where_the_broker_refuses_them(programs: Programs, locked: LockedValkey, tree: Path) -> None:
    broker = locked.address_for("autosync", "wr-ong")

    for command in (watching_refused(tree), ["celery", "-A", "autosync", "worker"]):
        done = programs.run(*command, AUTOSYNC_BROKER=broker, CELERY_BROKER_URL=broker)
        assert_refused(done, 1, "the password of user autosync is wrong")


def test_a_worker_that_may_not_subscribe_is_one_clear_line(commands: Commands, locked: LockedValkey) -> None:
    broker = locked.address_for("no-pidbox", PASSWORD)
    assert_refused(commands.prepare_worker(CELERY_BROKER_URL=broker), 1, "user no-pidbox lacks a permission")


#: The relay before the broker, options of the URL, and the client's error text; None if it connects.
CERTIFICATES = {
    "unknown authority": ("port", "", "self-signed certificate in certificate chain|unable to get local issuer certificate"),
    "all fits": ("port", "?ssl_ca_certs={ca}", None),
    "another host": ("another", "?ssl_ca_certs={ca}", "IP address mismatch"),
    "any host will do": ("another", "?ssl_ca_certs={ca}&ssl_check_hostname=false", None),
    "unknown authority, any host will do": ("another", "?ssl_check_hostname=false", "CERTIFICATE_VERIFY_FAILED"),
    "anything will do": ("another", "?ssl_cert_reqs=none", None),
}


@pytest.mark.smoke  # what the clients do by themselves differs between their versions
@pytest.mark.parametrize("which", ["the ledger", "sends", "of celery -A autosync"])
@pytest.mark.parametrize("case", CERTIFICATES)
def test_each_client_accepts_only_a_certificate_that_fits(
    which: str, case: str, locked: LockedValkey, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, options, refusal = CERTIFICATES[case]
    url = f"rediss://autosync:{PASSWORD}@127.0.0.1:{getattr(tls, relay)}/0{options.format(ca=tls.authority.file)}"
    monkeypatch.setitem(sys.modules, "celeryconfig", ModuleType("celeryconfig"))  # an empty one
    monkeypatch.setenv("CELERY_BROKER_URL", url)

    with pytest.raises((OperationalError, redis.exceptions.ConnectionError), match=refusal) if refusal else nullcontext():
        if which == "the ledger":
            with connect(url) as client:
                client.ping()
            return
        with sending_app(url, "q") if which == "sends" else make_app(set_as_current=False) as app, app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)


def a_box_and_a_watcher(programs: Programs, broker: str, tree: Path, desk: Path, tmp_path: Path) -> tuple[Program, Program]:
    box = programs.worker(broker=broker, cwd=desk, AUTOSYNC_SOURCES=str(tree), AUTOSYNC_PASSWORD=SECRET)
    assert box.poll() is None, box.output()
    watcher = programs.start(*watching(tree, tmp_path), cwd=desk, AUTOSYNC_BROKER=broker, AUTOSYNC_PASSWORD=SECRET)
    wait_until(lambda: "mirroring trust" in watcher.output(), 20, "it watches")
    return box, watcher


def test_a_saved_file_arrives_over_tls(programs: Programs, locked: LockedValkey, tls: Tls, tree: Path, desk: Path, tmp_path: Path) -> None:
    broker = f"rediss://autosync:{PASSWORD}@127.0.0.1:{tls.port}/0?ssl_ca_certs={tls.authority.file}"
    box, watcher = a_box_and_a_watcher(programs, broker, tree, desk, tmp_path)

    for number in range(20):
        (tree / f"{number}").write_text(f"{number}")
        wait_until(lambda: names_in(tmp_path / "target") == names_in(tree), 20, f"file {number} arrives")
    (tree / "0").unlink()
    wait_until(lambda: names_in(tmp_path / "target") == names_in(tree), 20, "a deletion arrives")
    assert "insecure" not in box.output() + watcher.output()


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[RedisWithTls]:
    (tmp_path / "certificates").mkdir()
    authority = Authority(tmp_path / "certificates", "authority")
    rule = rule_of_the_runbook().replace(" +client|setinfo", "")  # as the runbook describes it: Debian has Redis 7.0
    yield from running(lambda: RedisWithTls(tmp_path / "redis", [rule], authority))


def test_a_fleet_on_a_redis_that_speaks_tls_itself_and_wants_certificates_too(
    programs: Programs, strict: RedisWithTls, tree: Path, desk: Path, tmp_path: Path
) -> None:
    """Redis 7, as Debian has it, with the user of the runbook."""
    broker = strict.address_for("autosync", PASSWORD)
    box, watcher = a_box_and_a_watcher(programs, broker, tree, desk, tmp_path)
    for number in range(20):
        (tree / f"{number}").write_text(f"{number}")
    (tree / "0").unlink()
    wait_until(lambda: names_in(tmp_path / "target") == names_in(tree), 20, "all of it arrives")

    strict.kill()
    (tree / "meanwhile").write_text("x")
    strict.start()
    wait_until(lambda: names_in(tmp_path / "target") == names_in(tree), 60, "and what came while it was away")

    refused = programs.run(*watching(tree, tmp_path), cwd=desk, AUTOSYNC_BROKER=strict.address_for("autosync", PASSWORD, certificate=False))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert PASSWORD not in refused.stderr + box.output() + watcher.output()
    assert strict.client().acl_log() == []


def test_an_address_is_printed_without_its_passwords() -> None:
    assert address(f"rediss://autosync:{PASSWORD}@h:1/0?ssl_password={SECRET}&ssl_keyfile=k") == (
        "rediss://autosync:***@h:1/0?ssl_password=***&ssl_keyfile=k"
    )
    assert OPERATOR not in address(f"redis://:{OPERATOR}@h:1/0")
