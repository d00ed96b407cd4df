"""The HTTP actor against the server in examples/, which checks every signature."""

from __future__ import annotations

import datetime
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from conftest import BIN, Program, Programs, on_disk

from autosync.actor import Actor
from autosync.actors import load
from autosync.errors import ConfigurationError, PermanentError, SlowDown, TargetError, TargetRefused
from autosync.files import File
from autosync.testing import ActorContract, Content, listed
from lab.servers import Valkey, wait_until

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SECRET = "secret-of-the-station-that-is-long"


class MediaServer:
    """The reference server, as a process."""

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "secret").write_text(SECRET + "\n")
        self.directory = directory
        self._options = options
        self.port = "0"
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(EXAMPLES / "media_server.py"), "--port", self.port, "--directory", str(self.directory)]
        self.process = subprocess.Popen(
            [*command, "--secret", f"@{self.directory}/secret", *self._options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = self.url.split(":")[2].partition("/")[0]

    def stop(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def content(self) -> list[str]:
        return [path.name for path in (self.directory / "content").iterdir()]


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[MediaServer]:
    server = MediaServer(directory, *options)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MediaServer]:
    with serving(tmp_path / "media") as made:
        yield made


@pytest.fixture
def actor(server: MediaServer) -> Iterator[Actor]:
    made = load("http")(url=server.url, secret=SECRET)
    yield made
    made.close()


class TestHttp(ActorContract):
    @pytest.fixture
    def actor(self, server: MediaServer) -> Iterator[Actor]:
        made = load("http")(url=server.url, secret=SECRET)
        yield made
        made.close()


class TestPlain(ActorContract):
    """A server that lists neither in order nor with times and digests, forty at a time."""

    many = 200

    @pytest.fixture
    def actor(self, tmp_path: Path) -> Iterator[Actor]:
        with serving(tmp_path / "media", "--plain", "--page=40") as server:
            made = load("http")(url=server.url, secret=SECRET)
            yield made
            made.close()


# Signatures


@pytest.fixture
def recorded(actor: Actor, content: Content) -> requests.PreparedRequest:
    """A request that the server has carried out: it made the file `a`."""
    kept: list[requests.PreparedRequest] = []
    session = actor._session()  # type: ignore[attr-defined]
    send = session.send
    session.send = lambda request, **more: kept.append(request) or send(request, **more)  # type: ignore[func-returns-value]
    actor.upload(content.file("a", b"content"))
    session.send = send
    assert listed(actor) == {"a": 7}
    return kept[0]


def sent(request: requests.PreparedRequest) -> requests.Response:
    with requests.Session() as session:
        return session.send(request, timeout=30)


def again(request: requests.PreparedRequest, actor: Actor) -> requests.PreparedRequest:
    """The same request, signed anew, as long as nobody changes it."""
    fresh = request.copy()
    for name in ("Signature", "Signature-Input"):
        del fresh.headers[name]
    actor._signed(fresh)  # type: ignore[attr-defined]
    return fresh


def test_a_request_is_carried_out_once(actor: Actor, server: MediaServer, recorded: requests.PreparedRequest) -> None:
    actor.delete(File("a"))

    answer = sent(recorded)

    assert (answer.status_code, answer.json()["detail"]) == (401, "this request was here before")
    assert listed(actor) == {}
    server.stop()
    server.start()
    assert sent(recorded).status_code == 401, "nor after a restart"
    assert listed(actor) == {}


def other_path(request: requests.PreparedRequest) -> None:
    request.url = str(request.url) + "b"


def other_query(request: requests.PreparedRequest) -> None:
    request.url = str(request.url) + "?x=y"


def other_method(request: requests.PreparedRequest) -> None:
    request.method = "DELETE"


def other_host(request: requests.PreparedRequest) -> None:
    request.headers["Host"] = "elsewhere"


def other_body(request: requests.PreparedRequest) -> None:
    request.body = b"CONTENT"


def other_body_and_digest(request: requests.PreparedRequest) -> None:
    from autosync.actors.http.signing import digest_of

    request.body = b"CONTENT"
    request.headers["Content-Digest"] = digest_of([b"CONTENT"])


def shorter_body(request: requests.PreparedRequest) -> None:
    request.body, request.headers["Content-Length"] = b"cont", "4"


def no_digest(request: requests.PreparedRequest) -> None:
    del request.headers["Content-Digest"]


def other_type(request: requests.PreparedRequest) -> None:
    request.headers["Content-Type"] = "text/html"


def later(request: requests.PreparedRequest) -> None:
    said = request.headers["Signature-Input"]
    created = said.partition("created=")[2].partition(";")[0]
    request.headers["Signature-Input"] = said.replace(created, str(int(created) + 1))


def no_signature(request: requests.PreparedRequest) -> None:
    del request.headers["Signature"]


TAMPERED = [
    other_path, other_query, other_method, other_host, other_body, other_body_and_digest, shorter_body, no_digest, other_type, later,
    no_signature,
]  # fmt: skip


@pytest.mark.parametrize("change", TAMPERED)
def test_what_was_changed_after_it_was_signed_is_refused(
    change: Callable[[requests.PreparedRequest], None], actor: Actor, recorded: requests.PreparedRequest, server: MediaServer
) -> None:
    before = list(actor.list())
    request = again(recorded, actor)
    change(request)

    answer = sent(request)

    assert answer.status_code == (400 if change is other_body else 401), answer.text
    assert list(actor.list()) == before
    assert len(server.content()) == 1
    assert sent(again(recorded, actor)).status_code == 201, "unchanged it is taken"


@pytest.mark.parametrize("missing", ["@method", "@authority", "@path", "@query", "content-digest", "content-length", "content-type"])
def test_a_signature_that_does_not_cover_everything_is_refused(
    missing: str, actor: Actor, recorded: requests.PreparedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autosync.actors.http import signing

    for name in ("COVERED", "COVERED_CONTENT"):
        monkeypatch.setattr(signing, name, tuple(one for one in getattr(signing, name) if one != missing))

    assert sent(again(recorded, actor)).status_code == 401


@pytest.mark.parametrize("minutes", [-6, 10])
def test_a_signature_of_another_time_is_refused(
    minutes: int, actor: Actor, recorded: requests.PreparedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autosync.actors.http import signing

    class Clock(signing.datetime.datetime):  # type: ignore[name-defined, misc]
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return super().now(zone) + signing.datetime.timedelta(minutes=minutes)

    monkeypatch.setattr(signing.datetime, "datetime", Clock)
    request = again(recorded, actor)
    monkeypatch.undo()

    answer = sent(request)

    assert answer.status_code == 401
    assert "here)" in answer.json()["detail"], "it says what time it is"


def test_a_wrong_secret_is_refused_in_one_line(server: MediaServer) -> None:
    actor = load("http")(url=server.url, secret="another")
    with pytest.raises(TargetRefused, match=r"401 .*check --secret") as caught:
        actor.check()
    assert "another" not in str(caught.value)
    actor.close()


def test_the_example_in_the_docs_is_signed_as_it_says() -> None:
    from http_message_signatures import HTTPMessageVerifier, algorithms

    from autosync.actors.http.signing import COVERED, COVERED_CONTENT, TAG, OneKey, digest_of

    page = (EXAMPLES.parent / "docs" / "targets.md").read_text()
    first, *rows = page.partition("```\nPUT ")[2].partition("\n```")[0].splitlines()
    headers = dict(row.split(": ", 1) for row in rows)
    message = SimpleNamespace(method="PUT", url=f"https://{headers['Host']}{first.split()[0]}", headers=headers)
    verifier = HTTPMessageVerifier(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=OneKey("example secret"))

    class Then(datetime.datetime):
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return cls.fromtimestamp(1764144001, zone)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("http_message_signatures.signatures.datetime.datetime", Then)
        (found,) = verifier.verify(message, expect_tag=TAG, require_components=COVERED + COVERED_CONTENT)
    assert found.parameters["nonce"] == "mZk0Q2lFy0yFq1cT5sV2bA"
    assert headers["Content-Digest"] == digest_of([b"content"])


# Files


def test_a_large_file_takes_no_more_memory_than_a_small_one(server: MediaServer, tmp_path: Path) -> None:
    size = 200 << 20
    with open(tmp_path / "large", "wb") as file:
        file.truncate(size)
    program = f"""
import os, resource, sys
sys.path.insert(0, {str(EXAMPLES.parent)!r})
from autosync.actors import load
from autosync.reading import SourceFile
actor = load("http")(url={server.url!r}, secret={SECRET!r})
actor.check()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
actor.upload(SourceFile("large", os.open({str(tmp_path / "large")!r}, os.O_RDONLY)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, [file.size for file in actor.list()])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)

    grown, _, sizes = done.stdout.partition(" ")
    assert sizes.strip() == f"[{size}]"
    assert int(grown) < 20_000, "in KiB"


def test_a_server_that_is_killed_in_the_middle_keeps_what_was_there(actor: Actor, server: MediaServer, content: Content) -> None:
    actor.upload(content.file("a", b"old"))
    read = [0]

    def kill(count: int) -> None:
        read[0] += count
        if read[0] > 12 << 20 and server.process.poll() is None:
            server.process.kill()
            server.process.wait()

    with pytest.raises(TargetError):
        actor.upload(content.file("a", bytes(30 << 20), kill))

    assert server.process.poll() is not None, "it was killed"
    assert len(server.content()) == 2, "it had begun to write"
    server.stop()
    server.start()
    assert listed(actor) == {"a": 3}
    assert len(server.content()) == 1


def test_the_clock_of_the_server_is_told(actor: Actor) -> None:
    assert -2 < actor.clock_ahead() < 2


# What answers mean

MEANT = {
    200: None, 204: None, 301: TargetRefused, 400: PermanentError, 401: TargetRefused, 403: TargetRefused, 404: TargetRefused,
    408: TargetError, 409: PermanentError, 413: PermanentError, 415: PermanentError, 429: SlowDown, 500: TargetError, 502: TargetError,
    503: SlowDown, 507: TargetError,
}  # fmt: skip


@pytest.fixture
def canned() -> Iterator[tuple[str, list[Any]]]:
    """A server that answers as it is told: a status, headers and a body."""
    answer: list[Any] = [200, {}, b""]

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(answer[0])
            for name, value in {"Content-Length": str(len(answer[2])), **answer[1]}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer[2])

        do_GET = do_PUT = do_DELETE = answer  # noqa: N815 - as http.server calls them

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}/api", answer
        made.shutdown()
        thread.join()


@pytest.mark.parametrize("status", MEANT)
def test_a_status_means_what_the_table_says(status: int, canned: tuple[str, list[Any]], content: Content) -> None:
    url, answer = canned
    answer[0], answer[1] = status, {"Location": "http://elsewhere/api"} if status == 301 else {}
    actor = load("http")(url=url, secret=SECRET)
    kind = MEANT[status]
    if kind is None:
        actor.upload(content.file("a", b"x"))
    else:
        with pytest.raises(kind, match=str(status)) as caught:
            actor.upload(content.file("a", b"x"))
        assert type(caught.value) is kind
        assert SECRET not in str(caught.value)
    if status in (200, 204, 404):
        actor.delete(File("a"))
    else:
        with pytest.raises(TargetError):
            actor.delete(File("a"))
    actor.close()


NO_LISTINGS = [b"", b"no JSON", b"[]", b"{}", b'{"files": 1}', b'{"files": [1]}', b'{"files": [{"key": 1, "size": 1}]}']


@pytest.mark.parametrize("body", [*NO_LISTINGS, b'{"files": [{"key": "a"}]}'])
def test_a_listing_that_is_not_understood_is_no_short_listing(body: bytes, canned: tuple[str, list[Any]]) -> None:
    url, answer = canned
    answer[2] = body
    actor = load("http")(url=url, secret=SECRET)
    with pytest.raises(TargetError):
        list(actor.list())
    actor.close()


def test_a_server_that_is_not_there_is_tried_again() -> None:
    actor = load("http")(url="http://127.0.0.1:9/api", secret=SECRET)
    with pytest.raises(TargetError, match="refused") as caught:
        actor.check()
    assert not isinstance(caught.value, PermanentError)
    actor.close()


@pytest.mark.parametrize("url", [None, "", "ftp://x/", "x", "http://", "http://h/?a=b", "http://user:pass@h/"])
def test_a_url_that_cannot_be_used_is_refused(url: str | None) -> None:
    with pytest.raises(ConfigurationError, match="--url"):
        load("http")(url=url, secret=SECRET)


def test_without_a_secret_nothing_is_sent() -> None:
    with pytest.raises(ConfigurationError, match="--secret is missing"):
        load("http")(url="http://h/api")


@pytest.mark.slow
def test_a_target_that_tells_neither_order_nor_times_nor_digests_is_not_sent_everything_at_each_look(
    programs: Programs, tree: Path, tmp_path: Path
) -> None:
    for number in range(30):
        (tree / f"{number}.mp3").write_text(str(number))
    with serving(tmp_path / "media", "--plain", "--page=7") as server:
        options = ["--actor=http", f"--url={server.url}", f"--secret=@{server.directory}/secret", f"--source-prefix={tree}/", str(tree)]

        def uploaded() -> int:
            done = programs.run("autosync", "--once", f"--state-dir={tmp_path}/state", *options)
            assert done.returncode == 0, done.stderr
            return int(re.search(r"uploaded (\d+) files", done.stderr)[1])  # type: ignore[index]

        assert uploaded() == 30
        # What changed within the last seconds before a look is sent once more.
        wait_until(lambda: uploaded() == 0, 60, "it knows what it has sent")
        (tree / "7.mp3").write_text("X")  # as large as before
        assert uploaded() == 1
        actor = load("http")(url=server.url, secret=SECRET)
        assert listed(actor) == on_disk(tree)
        actor.close()


# The example of the mission


def station(tree: Path) -> dict[str, int]:
    for name in ("jazz.mp3", "show/NEWS.MP3", "show/notes.txt", "été.Mp3"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(name)
    return {key: size for key, size in on_disk(tree).items() if key.lower().endswith("mp3")}


@pytest.mark.slow
def test_the_example_of_the_mission_runs_on_one_host(server: MediaServer, programs: Programs, tree: Path, tmp_path: Path) -> None:
    wanted = station(tree)
    (tmp_path / "media_file_actor.py").write_text((EXAMPLES / "media_file_actor.py").read_text())
    command = [
        "python", "media_file_actor.py", f"--url={server.url}", f"--secret={SECRET}", f"--source_prefix={tree}/", "--threads=1",
        "--source_filter=^.*[mM][pP]3$", f"{tree}/",
    ]  # fmt: skip
    process = programs.start(*command, cwd=tmp_path)
    actor = load("http")(url=server.url, secret=SECRET)
    wait_until(lambda: listed(actor) == wanted, 30, "all is there")

    (tree / "more.mp3").write_text("more")
    (tree / "jazz.mp3").unlink()
    (tree / "more.txt").write_text("no")
    wanted = {**{key: size for key, size in wanted.items() if key != "jazz.mp3"}, "more.mp3": 4}
    wait_until(lambda: listed(actor) == wanted, 30, "it is kept so")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    actor.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["media_file_actor.MediaFileActor", "http"])
def test_it_runs_by_name_on_a_fleet(
    name: str, server: MediaServer, programs: Programs, own_valkey: Valkey, tree: Path, tmp_path: Path
) -> None:
    wanted = station(tree)
    (tmp_path / "media_file_actor.py").write_text((EXAMPLES / "media_file_actor.py").read_text())
    (tmp_path / "secret").write_text(SECRET)
    secret = {"AUTOSYNC_SECRET": f"@{tmp_path}/secret"}
    programs.worker(broker=own_valkey.url, cwd=tmp_path, AUTOSYNC_SOURCES=str(tree), **secret)
    watcher: Program = programs.start(
        "autosync-watch", f"--actor={name}", f"--broker={own_valkey.url}", f"--url={server.url}", f"--source-prefix={tree}/", "--threads=1",
        "--source-filter=^.*[mM][pP]3$", str(tree), cwd=tmp_path, **secret,
    )  # fmt: skip
    actor = load("http")(url=server.url, secret=SECRET)

    wait_until(lambda: listed(actor) == wanted, 40, "all is there")

    assert watcher.poll() is None
    actor.close()


def test_what_is_not_installed_is_said_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "http_message_signatures.py").write_text("raise ModuleNotFoundError('no', name='http_message_signatures')")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}

    command = [str(BIN / "autosync"), "--actor=http", "/tmp"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 2
    assert done.stderr == (
        "autosync: actor 'http' needs the module 'http_message_signatures'; install it with: pip install 'autosync[http]'\n"
    )
