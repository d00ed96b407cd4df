"""The HTTP actor against the server in examples/, which checks every signature."""

from __future__ import annotations

import datetime
import io
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from autosync.actor import Actor
from autosync.actors import load
from autosync.errors import ConfigurationError, Draining, FileChanged, PermanentError, SlowDown, TargetError, TargetRefused
from autosync.files import File
from autosync.source.stable_read import StableReader
from autosync.testing import ActorContract, Content, KeyContract, ListingContract, listed
from lab.buckets import on_disk
from lab.faults import Proxy
from lab.locks import Authority
from lab.media import EXAMPLES, SECRET, MediaServer, serving
from lab.ports import free_port
from lab.servers import wait_until


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaServer]:
    with serving(tmp_path_factory.mktemp("media")) as made:
        yield made


@pytest.fixture
def server(shared_server: MediaServer) -> MediaServer:
    """A server that has nothing; a test may end it and start it again."""
    shared_server.empty()
    return shared_server


@pytest.fixture
def actor(server: MediaServer) -> Iterator[Actor]:
    made = load("http")(url=server.url, secret=SECRET)
    yield made
    made.close()


class TestHttp(ActorContract):
    many = 120  # TestPlain has several pages

    @pytest.fixture
    def actor(self, server: MediaServer) -> Iterator[Actor]:
        made = load("http")(url=server.url, secret=SECRET)
        yield made
        made.close()


@pytest.fixture(scope="module")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaServer]:
    with serving(tmp_path_factory.mktemp("plain"), "--plain", "--page=40") as made:
        yield made


class TestPlain(KeyContract, ListingContract):
    """A server that lists neither in order nor with times and digests, forty at a time. Uploads and deletions are the same."""

    many = 200

    @pytest.fixture
    def actor(self, plain_server: MediaServer) -> Iterator[Actor]:
        plain_server.empty()
        made = load("http")(url=plain_server.url, secret=SECRET)
        yield made
        made.close()


# Signatures


@pytest.fixture
def recorded(actor: Actor, content: Content) -> requests.PreparedRequest:
    """A request that the server has carried out: it made the file `a`."""
    with pytest.MonkeyPatch.context() as patch:
        kept = requests_of(patch)
        actor.upload(content.file("a", b"content"))
    assert listed(actor) == {"a": 7}
    return kept[0]


def requests_of(patch: pytest.MonkeyPatch) -> list[requests.PreparedRequest]:
    """All that are sent from now on."""
    kept: list[requests.PreparedRequest] = []
    send = requests.Session.send

    def noted_and_sent(session: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        whole = request.copy()
        if isinstance(whole.body, io.BytesIO):
            whole.body = whole.body.getvalue()  # it is read once only, and the request may be sent again
        kept.append(whole)
        return send(session, request, **more)

    patch.setattr(requests.Session, "send", noted_and_sent)
    return kept


def sent(request: requests.PreparedRequest) -> requests.Response:
    with requests.Session() as session:
        return session.send(request, timeout=30)


def again(request: requests.PreparedRequest, actor: Actor) -> requests.PreparedRequest:
    """The same request, signed anew, as long as nobody changes it."""
    fresh = request.copy()
    for name in ("Signature", "Signature-Input"):
        del fresh.headers[name]
    actor._auth(fresh)  # type: ignore[attr-defined]
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
    from autosync.actors.http.signing import content_digest

    request.body = b"CONTENT"
    request.headers["Content-Digest"] = content_digest([b"CONTENT"])


def shorter_body(request: requests.PreparedRequest) -> None:
    request.body, request.headers["Content-Length"] = b"cont", "4"


def no_digest(request: requests.PreparedRequest) -> None:
    del request.headers["Content-Digest"]


def other_type(request: requests.PreparedRequest) -> None:
    request.headers["Content-Type"] = "text/html"


def later(request: requests.PreparedRequest) -> None:
    message = request.headers["Signature-Input"]
    created = message.partition("created=")[2].partition(";")[0]
    request.headers["Signature-Input"] = message.replace(created, str(int(created) + 1))


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


@pytest.mark.parametrize(("minutes", "is_taken"), [(-7, False), (-5.5, True), (0.5, True), (2, False)])
def test_a_signature_of_another_time_is_refused_unless_the_clocks_may_differ_so_much(
    minutes: float, is_taken: bool, actor: Actor, recorded: requests.PreparedRequest, monkeypatch: pytest.MonkeyPatch
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

    if is_taken:
        assert answer.status_code == 201
    else:
        assert answer.status_code == 401
        assert "here)" in answer.json()["detail"], "the error has the server's time"


def test_a_request_for_another_server_with_the_same_secret_is_refused(server: MediaServer, tmp_path: Path) -> None:
    with serving(tmp_path / "other", "--name=other.example") as other:
        actor = load("http")(url=other.url, secret=SECRET)
        with pytest.raises(TargetRefused, match=rf"for 127\.0\.0\.1:{other.port}; this is other\.example"):
            actor.check()
        actor.close()


def raw(server: MediaServer, request: bytes) -> bytes:
    """What a server answers to these bytes until it closes the connection, which it must."""
    with socket.create_connection(("127.0.0.1", int(server.port)), 20) as line:
        line.sendall(request)
        return b"".join(iter(lambda: line.recv(1 << 16), b""))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Length: -1", 400),
        ("Content-Length: -5", 400),
        ("Content-Length: 1_0", 400),
        ("Content-Length: 1\r\nContent-Length: 2", 400),
        ("Transfer-Encoding: chunked", 411),
    ],
)
def test_where_a_request_ends_is_plain_or_it_is_the_last_of_its_connection(head: str, status: int, server: MediaServer) -> None:
    hidden = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"

    answer = raw(server, f"PUT /a HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n{hidden}".encode())

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1 ") == 1, "what follows is no request"


@pytest.mark.parametrize("query", ["limit=x", "after=%21", "prefix=%FF"])
def test_a_query_that_is_not_understood_is_reported(query: str, actor: Actor, server: MediaServer) -> None:
    request = requests.Request("GET", f"{server.url}?{query}", auth=actor._auth).prepare()  # type: ignore[attr-defined]

    answer = sent(request)

    assert answer.status_code == 400
    assert "query" in answer.json()["detail"]


def test_two_servers_do_not_share_a_directory(server: MediaServer) -> None:
    command = [sys.executable, str(EXAMPLES / "media_server.py"), "--port=0", f"--directory={server.directory}", "--secret=x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "BlockingIOError" in done.stderr) == (1, True)


def test_what_netrc_has_for_the_server_is_not_sent(
    actor: Actor, content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password of-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert requests.utils.get_netrc_auth(actor.url) == ("somebody", "of-netrc")  # type: ignore[attr-defined]
    kept = requests_of(monkeypatch)

    actor.upload(content.file("a", b"content"))

    assert "Authorization" not in kept[0].headers


def test_the_secret_is_in_no_line_that_any_library_logs(server: MediaServer, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    program = f"""
import http.client, logging, os, sys
sys.path.insert(0, {str(EXAMPLES.parent)!r})
logging.basicConfig(level=1)
http.client.HTTPConnection.debuglevel = 1
from autosync.actors import load
from autosync.files import File
from autosync.source.source_file import SourceFile
for url in ({server.url!r}, {server.url + "/none"!r}, "http://127.0.0.1:9/"):
    actor = load("http")(url=url, secret=sys.stdin.readline().strip())
    for act in (actor.check, lambda: actor.upload(SourceFile("a", os.open({str(tmp_path / "a")!r}, os.O_RDONLY)))):
        try:
            act()
        except Exception:
            logging.exception("failed")
"""
    command = [sys.executable, "-X", "dev", "-W", "ignore", "-c", program]
    done = subprocess.run(command, input=f"{SECRET}\n" * 3, capture_output=True, text=True, check=True, timeout=60)

    message = done.stdout + done.stderr
    for what in ("send: b'PUT ", "DEBUG:urllib3", "Signature-Input", "Connection refused", " 404 "):
        assert what in message
    assert SECRET not in message


def test_a_wrong_secret_is_refused_in_one_line(server: MediaServer) -> None:
    actor = load("http")(url=server.url, secret="another")
    with pytest.raises(TargetRefused, match=r"401 .*check --secret") as caught:
        actor.check()
    assert "another" not in str(caught.value)
    actor.close()


def test_the_signature_of_the_example_in_the_docs_is_valid() -> None:
    from http_message_signatures import HTTPMessageVerifier, algorithms

    from autosync.actors.http.signing import COVERED, COVERED_CONTENT, TAG, SharedKeyResolver, content_digest

    page = (EXAMPLES.parent / "docs" / "targets" / "http.md").read_text()
    example = page.partition("```\nPUT ")[2].partition("\n```")[0]
    first, *rows = re.sub(r"\\\n +", "", example).splitlines()  # RFC 8792
    headers = dict(row.split(": ", 1) for row in rows)
    message = SimpleNamespace(method="PUT", url=f"https://{headers['Host']}{first.split()[0]}", headers=headers)
    verifier = HTTPMessageVerifier(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=SharedKeyResolver("example secret"))

    class Then(datetime.datetime):
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return cls.fromtimestamp(1764144001, zone)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("http_message_signatures.signatures.datetime.datetime", Then)
        (found,) = verifier.verify(message, expect_tag=TAG, require_components=COVERED + COVERED_CONTENT)
    assert found.parameters["nonce"] == "mZk0Q2lFy0yFq1cT5sV2bA"
    assert headers["Content-Digest"] == content_digest([b"content"])


# Files


def test_a_slow_line_has_time_for_each_block_and_not_for_the_whole(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosync.actors.http._TIMEOUT", (1, 60))
    port = free_port()
    with (
        Proxy(f"http://127.0.0.1:{port}") as proxy,
        serving(tmp_path / "media", "--port", str(port), "--name", proxy.url.removeprefix("http://")) as server,
    ):
        actor = load("http")(url=server.url.replace(f":{port}", proxy.url[proxy.url.rindex(":") :]), secret=SECRET)
        proxy.speed = 4 << 20  # the kernel takes 2.7 MiB at once, and the rest 1.3 s
        actor.upload(content.file("a", bytes(8 << 20)))

        (put,) = [one for one in proxy.requests if one.method == "PUT"]
        assert put.ended - put.began > 1.5, "it took longer than a connection may"
        assert listed(actor) == {"a": 8 << 20}
        actor.close()


def test_a_large_file_needs_no_more_memory_than_a_small_one(server: MediaServer, tmp_path: Path) -> None:
    size = 80 << 20
    with open(tmp_path / "large", "wb") as file:
        file.truncate(size)
    program = f"""
import os, resource, sys
sys.path.insert(0, {str(EXAMPLES.parent)!r})
from autosync.actors import load
from autosync.source.source_file import SourceFile
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


def test_a_large_file_that_changes_between_its_readings_without_its_times_is_torn(
    actor: Actor, content: Content, server: MediaServer
) -> None:
    """Such as one that is mapped: only its content shows the change, and the server would refuse the digest."""
    actor.upload(content.file("a", b"old"))
    sent_of_it: list[int] = []

    def passing(count: int) -> None:
        if count and not sent_of_it:
            with open(content.path(file), "r+b") as other:
                other.seek(-1, os.SEEK_END)
                other.write(b"!")
        sent_of_it.extend([count] * bool(count))

    file = content.file("a", bytes(20 << 20), passing)
    with pytest.raises(FileChanged):
        actor.upload(StableReader(file))

    assert sum(sent_of_it) == 20 << 20, "it was read to the end"
    assert listed(actor) == {"a": 3}
    wait_until(lambda: len(server.content()) == 1, 20, "the server has dropped what came")


def test_the_first_reading_of_a_large_file_can_be_stopped(actor: Actor, content: Content) -> None:
    requested: list[int] = []

    def stop(count: int) -> None:
        requested.append(count)
        if len(requested) == 3:
            raise Draining("a: the worker is being stopped")

    with pytest.raises(Draining):
        actor.upload(content.file("a", bytes(20 << 20), stop))

    assert requested == [0, 0, 0], "nothing was sent"


def test_connections_are_no_more_than_are_used_at_once(actor: Actor, content: Content) -> None:
    for number in range(10):
        thread = threading.Thread(target=actor.upload, args=(content.file(f"{number}", b"x"),))
        thread.start()
        thread.join()

    assert len(listed(actor)) == 10
    assert len(actor._idle) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["data:text/x\r\nX-Header: 1,b", "data:日/本,x", "http://h/a.mp3", "a;b.mp3"])
def test_a_name_that_resembles_a_url_is_none(key: str, actor: Actor, content: Content) -> None:
    actor.upload(content.file(key, b"x"))
    assert listed(actor) == {key: 1}


@pytest.mark.smoke  # requests before 2.34 takes one of the slashes away
def test_a_server_without_a_path_stores_keys_with_a_leading_slash(tmp_path: Path, content: Content) -> None:
    with serving(tmp_path / "media", "--base=/") as server:
        actor = load("http")(url=server.url, secret=SECRET)
        keys = ["/lead", "//two", "a//b"]
        for key in keys:
            actor.upload(content.file(key, b"x"))
        assert listed(actor) == dict.fromkeys(keys, 1)
        for key in keys:
            actor.delete(File(key))
        assert listed(actor) == {}
        actor.close()


def test_what_cannot_be_there_is_deleted_without_a_request(canned: tuple[str, list[Any]]) -> None:
    url, answer = canned
    answer[0] = 500
    actor = load("http")(url=url, secret=SECRET)
    actor.delete(File("not-utf8-\udcff"))
    assert list(actor.list("not-utf8-\udcff")) == []
    actor.close()


@pytest.mark.parametrize(
    ("digest", "can"),
    [
        ("sha-256=:7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M=:", True),
        ("sha-256=:7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M=:, md5=:AAAA:", False),
        ("sha-256=:short:", False),
        ("W/1234", False),
        (None, False),
    ],
)
def test_only_a_digest_that_can_be_computed_is_compared(digest: str | None, can: bool, actor: Actor) -> None:
    assert actor.can_match(File("a", 7, etag=digest)) is can


def test_the_clock_of_the_server_is_measured(actor: Actor) -> None:
    assert -2 < actor.clock_ahead() < 2


# What answers mean

MEANT = {
    200: None, 204: None, 301: TargetRefused, 400: PermanentError, 401: TargetRefused, 403: TargetRefused, 404: TargetRefused,
    408: TargetError, 409: PermanentError, 413: PermanentError, 415: PermanentError, 429: SlowDown, 500: TargetError, 502: TargetError,
    503: SlowDown, 507: TargetError,
}  # fmt: skip


@pytest.fixture
def canned() -> Iterator[tuple[str, list[Any]]]:
    """A server that sends the response that the test sets: a status, headers and a body."""
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
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}/api", answer
        made.shutdown()
        thread.join()


@pytest.mark.parametrize("status", MEANT)
def test_a_status_has_the_meaning_of_the_table(status: int, canned: tuple[str, list[Any]], content: Content) -> None:
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


NO_LISTINGS = [
    b"", b"no JSON", b"[]", b"{}", b'{"files": 1}', b'{"files": [1]}', b'{"files": [{"key": 1, "size": 1}]}', b'{"files": [{"key": "a"}]}',
    b'{"files": [], "next": true}', b'{"files": [{"key": "\xe9t\xe9.mp3", "size": 1}]}', b'{"files": [{"key": "\\ud800", "size": 1}]}',
    b'{"files": [{"key": "a", "size": -1}]}', b'{"files": [{"key": "a", "size": 1.5}]}', b'{"files": [{"key": "a", "size": "1"}]}',
    b'{"files": [{"key": "a", "size": 1, "mtime": NaN}]}', b'{"files": [{"key": "a", "size": 1, "mtime": "today"}]}',
    b'{"files": [{"key": "a", "size": 1, "digest": 1}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", NO_LISTINGS)
def test_a_listing_that_is_not_understood_is_no_short_listing(body: bytes, canned: tuple[str, list[Any]]) -> None:
    url, answer = canned
    answer[2] = body
    actor = load("http")(url=url, secret=SECRET)
    with pytest.raises(TargetError):
        list(actor.list())
    actor.close()


def test_a_listing_that_is_cut_off_is_no_short_listing(canned: tuple[str, list[Any]]) -> None:
    url, answer = canned
    answer[1:] = {"Content-Length": "100", "Connection": "close"}, b'{"files": [], "next": null}'
    actor = load("http")(url=url, secret=SECRET)
    with pytest.raises(TargetError, match="27 bytes read, 73 more expected"):
        list(actor.list())
    actor.close()


def test_a_listing_that_does_not_go_on_comes_to_an_end(canned: tuple[str, list[Any]]) -> None:
    url, answer = canned
    answer[2] = b'{"files": [{"key": "a", "size": 1}], "next": "the same"}'
    actor = load("http")(url=url, secret=SECRET)
    with pytest.raises(TargetError, match="does not go on"):
        list(actor.list())
    actor.close()


def test_the_target_of_a_redirect_is_reported_without_secrets(canned: tuple[str, list[Any]]) -> None:
    url, answer = canned
    answer[:2] = 307, {"Location": "https://user:pass@login.example/in?token=abc"}
    actor = load("http")(url=url, secret=SECRET)
    with pytest.raises(TargetRefused, match=r"'https://login\.example/in'") as caught:
        actor.check()
    assert "pass" not in str(caught.value)
    assert "token" not in str(caught.value)
    actor.close()


def test_a_certificate_that_is_not_trusted_is_reported_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path, "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate("127.0.0.1"))

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as made:
        made.socket = context.wrap_socket(made.socket, server_side=True)
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        actor = load("http")(url=f"https://127.0.0.1:{made.server_port}/api", secret=SECRET)
        with pytest.raises(TargetError, match=r"CERTIFICATE_VERIFY_FAILED.*; .*REQUESTS_CA_BUNDLE"):
            actor.check()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        with pytest.raises(TargetError, match="501 Unsupported method"):  # so it was reached
            actor.check()
        actor.close()
        made.shutdown()
        thread.join()


def test_certificates_that_cannot_be_read_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none"))
    actor = load("http")(url="https://127.0.0.1:9/api", secret=SECRET)
    with pytest.raises(TargetError, match="TLS CA certificate bundle"):
        actor.check()
    actor.close()


@pytest.mark.parametrize("key_id", ["ü", "a\nb"])
def test_a_key_id_that_cannot_be_signed_is_refused(key_id: str) -> None:
    with pytest.raises(ConfigurationError, match="--key-id"):
        load("http")(url="http://h/api", secret=SECRET, key_id=key_id)


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


# The example of the mission


def station(tree: Path) -> dict[str, int]:
    for name in ("jazz.mp3", "show/NEWS.MP3", "show/notes.txt", "été.Mp3"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(name)
    return {key: size for key, size in on_disk(tree).items() if key.lower().endswith("mp3")}


def test_a_missing_package_is_reported_with_the_command() -> None:
    program = "import sys, autosync\nsys.modules['http_message_signatures'] = None\nautosync.main(['--actor=http', '/usr/share'])"

    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 2
    assert done.stderr == (
        "autosync: actor 'http' needs the module 'http_message_signatures'; install it with: pip install 'autosync[http]'\n"
    )
