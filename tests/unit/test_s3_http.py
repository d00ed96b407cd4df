"""Small objects over connections of our own: signed as boto3 signs, and right about whatever a server may answer."""

from __future__ import annotations

import datetime
import http.client
import io
import ipaddress
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from autosync.actors._responses import BODY_BYTES, ResponseError
from autosync.actors.s3.headers import ObjectHeaders
from autosync.actors.s3.own_client.http import HttpConnectionPool
from autosync.actors.s3.own_client.requests import ObjectRequests
from autosync.actors.s3.own_client.responses import Response
from autosync.actors.s3.own_client.sigv4 import RequestSigner
from autosync.errors import SlowDown, TargetError, TargetRefused

TIMES = {"cert_path": None, "connect_seconds": 5, "read_seconds": 20}
OK = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n'
LIMIT = 20.0

Script = Callable[[socket.socket, int], None]


class Server:
    """Runs its script for each connection, with the number of the connection, and counts them."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._script = script
        self._context = context
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(line, self.connections)))
            self._threads[-1].start()

    def _serve(self, line: socket.socket, number: int) -> None:
        try:
            line.settimeout(LIMIT)
            if self._context is not None:
                line = self._context.wrap_socket(line, server_side=True)
            self._script(line, number)
        except OSError:
            pass
        finally:
            line.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(LIMIT)
        for thread in self._threads:
            thread.join(LIMIT)


Serve = Callable[..., tuple[Server, HttpConnectionPool]]


def request(line: socket.socket) -> bytes:
    """One request, with its content; b"" if the client is gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = line.recv(65536)
        if not more:
            return b""
        data += more
    head, _, content = data.partition(b"\r\n\r\n")
    length = int(next(row.partition(b":")[2] for row in head.lower().split(b"\r\n") if row.startswith(b"content-length:")))
    while len(content) < length:
        content += line.recv(65536)
    return head + b"\r\n\r\n" + content


def always(answer: bytes) -> Script:
    """Answer each request so."""

    def script(line: socket.socket, _: int) -> None:
        while request(line):
            line.sendall(answer)

    return script


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[tuple[Server, HttpConnectionPool]] = []

    def start(script: Script, **more: Any) -> tuple[Server, HttpConnectionPool]:
        server = Server(script, more.pop("context", None))
        scheme = more.pop("scheme", "http")
        pool = HttpConnectionPool(f"{scheme}://127.0.0.1:{server.port}", **{**TIMES, **more})
        made.append((server, pool))
        return made[-1]

    yield start
    for server, pool in made:
        pool.close()
        server.close()


TEXT = ObjectHeaders("text/plain", ())


def objects_on(pool: HttpConnectionPool, token: str | None = None) -> ObjectRequests:
    signer = RequestSigner("http://h:9/bucket", "us-east-1", lambda: Credentials("access", "secret", token), "the server")
    return ObjectRequests(pool, signer, "the server")


def put(pool: HttpConnectionPool, content: bytes = b"content") -> Response:
    return pool.read_response(pool.send(b"PUT /a HTTP/1.1\r\nhost:h\r\ncontent-length:%d\r\n\r\n" % len(content), content))


# The signature


@settings(deadline=None, max_examples=200)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["http://127.0.0.1:9000/bucket", "https://bucket.s3.eu-west-1.amazonaws.com", "https://h/some/way/bucket"]),
    st.sampled_from([None, "a/token+="]),
    st.sampled_from([("PUT", ""), ("DELETE", ""), ("POST", "delete="), ("POST", "uploads=")]),
    st.sets(st.sampled_from(["cache-control:no", "x-amz-acl:private", "x-amz-meta-a:one two", "x-amz-meta-a-b:", "x-amz-tagging:a=b"])),
)
def test_a_request_is_signed_as_boto3_signs_it(
    key: str, content: bytes, base: str, token: str | None, asked: tuple[str, str], more: set[str]
) -> None:
    who = Credentials("access", "secret/+", token)
    signer = RequestSigner(base, "eu-west-1", lambda: who, "h")
    moment = datetime.datetime(2026, 11, 24, 9, 8, 7, tzinfo=datetime.UTC)

    method, query = asked
    content_type = "" if method == "DELETE" else "text/plain"
    head = signer.signed_head(method, key if not query else "", content, content_type, moment.timestamp(), query=query, headers=[*more])

    first, *rows = head.decode().removesuffix("\r\n\r\n").split("\r\n")
    fields = dict(row.split(":", 1) for row in rows)
    verb, path, _ = first.split(" ")
    assert verb == method
    theirs = AWSRequest(method, f"{base.partition('://')[0]}://{fields['host']}{path}", data=content)
    assert more <= set(rows)
    signed = fields["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {row.partition(":")[0] for row in more} <= set(signed)
    for name in signed:
        theirs.headers[name] = fields[name]
    theirs.context["timestamp"] = fields["x-amz-date"]
    signer = S3SigV4Auth(who, "s3", "eu-west-1")
    canonical = signer.canonical_request(theirs)
    assert fields["authorization"].endswith(f"Signature={signer.signature(signer.string_to_sign(theirs, canonical), theirs)}")
    assert int(fields["content-length"]) == len(content)


@settings(deadline=None, max_examples=200)
@given(prefix=st.text(st.characters(exclude_categories=["Cs"]), max_size=20), token=st.text(st.characters(codec="utf-8"), max_size=20))
def test_a_page_of_a_listing_is_requested_as_boto3_signs_it(prefix: str, token: str) -> None:
    who = Credentials("access", "secret/+", "a/token+=")
    pool = Recording()
    signer = RequestSigner("https://bucket.s3.eu-west-1.amazonaws.com", "eu-west-1", lambda: who, "h")
    objects = ObjectRequests(pool, signer, "h")  # type: ignore[arg-type]

    objects.request_page(prefix, token)

    first, *rows = pool.heads[0].decode().removesuffix("\r\n\r\n").split("\r\n")
    fields = dict(row.split(":", 1) for row in rows)
    asked = first.split(" ")[1]
    wanted = {"list-type": "2", "encoding-type": "url", "prefix": prefix} | ({"continuation-token": token} if token else {})
    assert dict(parse_qsl(asked.partition("?")[2], keep_blank_values=True)) == wanted
    theirs = AWSRequest("GET", f"https://{fields['host']}{asked}")
    for name in fields["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";"):
        theirs.headers[name] = fields[name]
    theirs.context["timestamp"] = fields["x-amz-date"]
    signer = S3SigV4Auth(who, "s3", "eu-west-1")
    expected = signer.signature(signer.string_to_sign(theirs, signer.canonical_request(theirs)), theirs)
    assert fields["authorization"].endswith(f"Signature={expected}")


@settings(deadline=None, max_examples=200)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.sampled_from(["http://127.0.0.1:9000/bucket", "https://bucket.s3.eu-west-1.amazonaws.com"]),
    st.sampled_from([None, "a/token+="]),
)
def test_a_part_is_sent_to_a_url_that_is_signed_as_boto3_signs_it(key: str, upload: str, base: str, token: str | None) -> None:
    who = Credentials("access", "secret/+", token)
    pool = Recording()
    objects = ObjectRequests(pool, RequestSigner(base, "eu-west-1", lambda: who, "h"), "h")  # type: ignore[arg-type]

    objects.stream(key, io.BytesIO(b"content"), 7, {"partNumber": "3", "uploadId": upload})

    first, *rows = pool.heads[0].decode().removesuffix("\r\n\r\n").split("\r\n")
    fields = dict(row.split(":", 1) for row in rows)
    assert fields.keys() == {"host", "content-length", "accept-encoding", "user-agent"}
    path, _, query = first.split(" ")[1].partition("?")
    asked = dict(parse_qsl(query))
    assert (asked["partNumber"], asked["uploadId"]) == ("3", upload)
    signer = S3SigV4QueryAuth(who, "s3", "eu-west-1")
    rest, _, signature = query.rpartition("&X-Amz-Signature=")
    theirs = AWSRequest("PUT", f"{base.partition('://')[0]}://{fields['host']}{path}?{rest}")
    theirs.context["timestamp"] = asked["X-Amz-Date"]
    assert signature == signer.signature(signer.string_to_sign(theirs, signer.canonical_request(theirs)), theirs)


class Recording:
    """Takes down what is sent."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    def send(self, head: bytes, content: bytes = b"") -> None:
        self.heads.append(head)

    def stream(self, head: bytes, content: io.BytesIO) -> None:
        self.heads.append(head)


def test_amazon_receives_a_checksum_too_and_it_is_signed() -> None:
    who = Credentials("access", "secret")
    signer = RequestSigner("https://b.s3.amazonaws.com", "us-east-1", lambda: who, "Amazon", checksums=True)

    head = signer.signed_head("PUT", "a", b"abc", "text/plain", time.time()).decode()

    assert "x-amz-checksum-crc32:NSRBwg==\r\n" in head
    assert "SignedHeaders=content-type;host;x-amz-checksum-crc32;x-amz-content-sha256;x-amz-date," in head


# What servers answer


def test_a_connection_is_reused_and_many_requests_may_be_on_their_way_at_once(serve: Serve) -> None:
    arrived = threading.Semaphore(0)
    go_on = threading.Event()

    def script(line: socket.socket, _: int) -> None:
        while request(line):
            arrived.release()
            assert go_on.wait(LIMIT)
            line.sendall(OK)

    server, pool = serve(script)
    sent = [pool.send(b"PUT /%d HTTP/1.1\r\ncontent-length:1\r\n\r\n" % number, b"x") for number in range(5)]
    for _ in range(5):
        assert arrived.acquire(timeout=LIMIT)
    go_on.set()
    assert [pool.read_response(one).status for one in sent] == [200] * 5
    assert [put(pool).status for _ in range(5)] == [200] * 5
    assert server.connections == 5


@pytest.mark.parametrize(
    ("answer", "status", "text", "stays"),
    [
        (OK, 200, "", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, "", True),
        (b"HTTP/1.1 200 OK\r\ncontent-LENGTH:0\r\nConnection: keep-alive\r\n\r\n", 200, "", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 200, "", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789", 200, "0123456789", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, "abc", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", True),
        (b"HTTP/1.1 503 Slow\r\nContent-Length: 22\r\n\r\n<Code>SlowDown</Code>\xff", 503, "<Code>SlowDown</Code>\udcff", True),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", 403, "", False),
    ],
)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_any_answer_is_understood(
    serve: Serve, answer: bytes, status: int, text: str, stays: bool, in_chunks: bool
) -> None:
    def script(line: socket.socket, _: int) -> None:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while request(line):
            for chunk in [answer[at : at + 1] for at in range(len(answer))] if in_chunks else [answer]:
                line.sendall(chunk)
            if not stays:
                return

    server, pool = serve(script)
    assert [put(pool)[:2], put(pool)[:2]] == [(status, text)] * 2
    assert server.connections == (1 if stays else 2)


def test_the_text_of_an_error_is_cut_and_the_rest_is_not_waited_for(serve: Serve) -> None:
    """Behind what was read of the first answer a second one on the same connection would begin in its middle."""
    text = b"<Code>SlowDown</Code>" + b" " * 4 * BODY_BYTES
    _, pool = serve(always(b"HTTP/1.1 503 Slow\r\nContent-Length: %d\r\n\r\n" % len(text) + text))

    assert [put(pool)[:2], put(pool)[:2]] == [(503, text[:BODY_BYTES].decode())] * 2


@pytest.mark.parametrize("status", [b"200 OK", b"500 Oops"])
def test_an_answer_that_is_broken_off_is_none(serve: Serve, status: bytes) -> None:
    def script(line: socket.socket, _: int) -> None:
        request(line)
        line.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 30\r\n\r\n<DeleteResult></DeleteResult")

    _, pool = serve(script)
    with pytest.raises(http.client.IncompleteRead):
        put(pool)


def test_of_an_answer_as_much_is_read_as_it_may_have(serve: Serve) -> None:
    _, pool = serve(always(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"))
    ask = b"GET /a HTTP/1.1\r\ncontent-length:0\r\n\r\n"

    assert pool.read_response(pool.send(ask), 10).text == "0123456789"
    with pytest.raises(ResponseError, match="is longer than"):
        pool.read_response(pool.send(ask), 9)
    assert pool.read_response(pool.send(ask), 10).text == "0123456789"


def test_a_request_that_a_reused_connection_swallows_is_sent_again(serve: Serve) -> None:
    """The first connection is closed by the server after its first answer, before or after the second request was read."""
    swallowed: list[bytes] = []

    def script(line: socket.socket, number: int) -> None:
        request(line)
        line.sendall(OK)
        swallowed.append(request(line))
        if number > 1:
            line.sendall(OK)

    server, pool = serve(script)
    assert put(pool, b"one").status == 200
    assert put(pool, b"two").status == 200
    assert server.connections == 2
    assert swallowed[0].endswith(b"two"), "it was swallowed"
    _, other = serve(lambda line, _: request(line) and None)  # type: ignore[func-returns-value]
    with pytest.raises(http.client.RemoteDisconnected):  # a new connection that is closed without an answer is an error
        put(other)


def test_a_server_that_does_not_answer_is_not_waited_for_any_longer_than_that(serve: Serve) -> None:
    over = threading.Event()
    server, pool = serve(lambda line, _: over.wait(LIMIT), read_seconds=1)  # type: ignore[arg-type, return-value]
    try:
        with pytest.raises(TimeoutError):
            put(pool)
        objects = objects_on(pool)
        begun = objects.begin_put("a", b"x", TEXT)
        with pytest.raises(TargetError, match="does not respond"):
            objects.finish_put(begun)
    finally:
        over.set()
    assert server.connections == 2, "a request that timed out is not sent again"


def test_requests_that_wait_together_time_out_together(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the first has had its two seconds, the time-out of each other connection is next to nothing: the kernel keeps it for us."""
    over = threading.Event()
    _, pool = serve(lambda line, _: over.wait(LIMIT), read_seconds=2)  # type: ignore[arg-type, return-value]
    wait_for, patience = pool._set_read_timeout, {}

    def noted(line: socket.socket, seconds: float) -> None:
        wait_for(line, seconds)
        whole, parts = struct.unpack("ll", line.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
        patience[line] = whole + parts / 1e6

    monkeypatch.setattr(pool, "_set_read_timeout", noted)
    try:
        sent = [pool.send(b"PUT / HTTP/1.1\r\n\r\n") for _ in range(10)]
        now = time.monotonic()
        first, *others = [one._replace(sent_at=now) for one in sent]  # however long the sending took
        for one in (first, *others):
            with pytest.raises(TimeoutError):
                pool.read_response(one)
    finally:
        over.set()
    assert [patience.get(one.connection, 2.0) for one in others] == [pytest.approx(0.05, abs=0.05)] * 9, "and not ten times two seconds"


def test_nobody_there_is_an_error_that_names_the_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pool = HttpConnectionPool(f"http://127.0.0.1:{port}", cert_path=None, connect_seconds=1, read_seconds=1)
    with pytest.raises(TargetError, match=r"^a at the server: .*refused"):
        objects_on(pool).begin_put("a", b"x", TEXT)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n", SlowDown),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 39\r\n\r\n<Error><Code>AccessDenied</Code></Error>"[:-1], TargetRefused),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", TargetError),
        (b"HTTP/1.1 301 Elsewhere\r\nContent-Length: 0\r\n\r\n", TargetError),
        (b"what is this\r\n\r\n", TargetError),
    ],
)
def test_a_refusal_by_the_server_is_an_error_in_our_words(
    serve: Serve, answer: bytes, error: type[Exception]
) -> None:
    _, pool = serve(always(answer))
    objects = objects_on(pool)
    with pytest.raises(error) as caught:
        objects.finish_put(objects.begin_put("the/key", b"x", TEXT))
    assert type(caught.value) is error
    assert str(caught.value).startswith("the/key at the server: ")
    with pytest.raises(TargetError):
        objects.delete("the/key")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 404 No\r\nContent-Length: 22\r\n\r\n<Code>NoSuchKey</Code>"]
)
def test_what_is_not_there_is_deleted(serve: Serve, answer: bytes) -> None:
    _, pool = serve(always(answer))
    objects_on(pool).delete("a")


def test_of_many_deletes_those_that_failed_are_reported(serve: Serve) -> None:
    asked: list[bytes] = []
    body = (
        b"<DeleteResult><Error><Key>a&amp;&lt;b</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        b"<Error><Code>InternalError</Code><Key>c&#10;\xc3\xbc</Key></Error></DeleteResult>"
    )

    def script(line: socket.socket, _: int) -> None:
        while data := request(line):
            asked.append(data)
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    _, pool = serve(script)
    wrong = objects_on(pool).delete_many(["a&<b", "c\n\u00fc", "d"])

    assert {key: type(error) for key, error in wrong.items()} == {"a&<b": TargetRefused, "c\n\u00fc": TargetError}
    assert asked[0].startswith(b"POST /bucket?delete= HTTP/1.1\r\n")
    assert b"\r\ncontent-md5:" in asked[0]
    assert b"<Key>a&amp;&lt;b</Key>" in asked[0]


def test_of_a_thousand_deletes_of_the_longest_keys_all_may_fail(serve: Serve) -> None:
    keys = [f"{number:04}".ljust(1024, "&") for number in range(1000)]
    rows = "".join(f"<Error><Key>{key.replace('&', '&amp;')}</Key><Code>InternalError</Code></Error>" for key in keys)
    body = f"<DeleteResult>{rows}</DeleteResult>".encode()
    assert len(body) > BODY_BYTES
    _, pool = serve(always(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body))

    assert objects_on(pool).delete_many(keys).keys() == {*keys}


def test_an_answer_that_is_none_is_no_success(serve: Serve) -> None:
    """S3 may begin to answer with 200 before it knows better."""
    body = b"<Error><Code>SlowDown</Code></Error>"
    _, pool = serve(always(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body))
    with pytest.raises(SlowDown):
        objects_on(pool).delete_many(["a"])


# Content that is read while it is sent

LARGE = 8 << 20


def streamed(pool: HttpConnectionPool, content: bytes = b"x" * LARGE) -> Response:
    return pool.stream(b"PUT /a HTTP/1.1\r\nhost:h\r\ncontent-length:%d\r\n\r\n" % len(content), io.BytesIO(content))


def test_content_that_is_read_meanwhile_arrives_and_the_etag_is_returned(serve: Serve) -> None:
    came: list[bytes] = []

    def script(line: socket.socket, _: int) -> None:
        while data := request(line):
            came.append(data.partition(b"\r\n\r\n")[2])
            line.sendall(OK)

    server, pool = serve(script)
    content = bytes(range(256)) * (LARGE // 256)

    assert [streamed(pool, content).etag, streamed(pool, b"").etag] == ['"x"'] * 2
    assert came == [content, b""]
    assert server.connections == 1


def test_an_idle_connection_that_was_closed_meanwhile_is_not_used_for_what_cannot_be_sent_twice(
    serve: Serve,
) -> None:
    closed = threading.Semaphore(0)

    def script(line: socket.socket, _: int) -> None:
        request(line)
        line.sendall(OK)
        line.shutdown(socket.SHUT_RDWR)
        closed.release()

    server, pool = serve(script)
    assert streamed(pool).status == 200
    assert closed.acquire(timeout=LIMIT)
    assert streamed(pool).status == 200
    assert server.connections == 2


def test_a_refusal_that_arrives_before_all_content_is_sent_is_read(serve: Serve) -> None:
    def script(line: socket.socket, _: int) -> None:
        line.recv(1000)
        line.sendall(b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: 21\r\n\r\n<Code>SlowDown</Code>")
        line.shutdown(socket.SHUT_WR)
        with suppress(OSError):  # as servers do so that clients read the response: else the kernel discards it
            while line.recv(1 << 16):
                pass

    _, pool = serve(script)
    assert streamed(pool)[:2] == (503, "<Code>SlowDown</Code>")


@pytest.mark.parametrize("when", ["at once", "in the middle", "at the end"])
def test_a_server_that_goes_away_is_an_error_and_nothing_is_sent_again(serve: Serve, when: str) -> None:
    def script(line: socket.socket, number: int) -> None:
        if number == 1 and when == "at the end":
            request(line)
        elif when == "in the middle":
            line.recv(LARGE // 2)

    server, pool = serve(script)
    with pytest.raises((OSError, http.client.HTTPException)):
        streamed(pool)
    assert server.connections == 1


def test_content_that_cannot_be_read_to_its_end_closes_the_connection(serve: Serve) -> None:
    class FileChanged(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > LARGE // 2:
                raise ValueError("it has changed")
            return super().read(size)

    ended: list[bytes] = []
    gone = threading.Event()

    def script(line: socket.socket, _: int) -> None:
        while data := line.recv(1 << 16):
            ended.append(data)
        gone.set()

    _, pool = serve(script)
    with pytest.raises(ValueError, match="it has changed"):
        pool.stream(b"PUT /a HTTP/1.1\r\nhost:h\r\ncontent-length:%d\r\n\r\n" % LARGE, FileChanged(b"x" * LARGE))
    assert gone.wait(LIMIT), "the connection to the server is closed"
    assert sum(map(len, ended)) < LARGE


def test_a_server_that_reads_nothing_of_it_is_abandoned(serve: Serve) -> None:
    over = threading.Event()
    _, pool = serve(lambda line, _: over.wait(LIMIT), read_seconds=1)  # type: ignore[arg-type, return-value]
    try:
        with pytest.raises(TimeoutError):
            streamed(pool, b"x" * (64 << 20))
    finally:
        over.set()


# TLS


def certificate(directory: Path, name: str) -> Path:
    """A self-signed one for an address, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"autosync's tests {name}")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = directory / f"{name}.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + encoded)
    return file


def test_tls_is_spoken_and_who_it_is_spoken_with_is_proved(serve: Serve, tmp_path: Path) -> None:
    ours, other = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path, "127.0.0.2")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours)
    server, pool = serve(always(OK), context=context, scheme="https", cert_path=str(ours))
    large = bytes(100_000)
    assert [put(pool, content).status for content in (b"", b"x", large)] == [200] * 3
    assert streamed(pool).etag == '"x"'
    assert server.connections <= 2, "a connection on which the server has sent something unasked is not used for this"

    _, strange = serve(always(OK), context=context, scheme="https", cert_path=str(other))
    with pytest.raises(ssl.SSLCertVerificationError):
        put(strange)
    named_wrong = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    named_wrong.load_cert_chain(other)
    _, elsewhere = serve(always(OK), context=named_wrong, scheme="https", cert_path=str(other))
    with pytest.raises(ssl.SSLCertVerificationError):
        put(elsewhere)


def test_over_tls_too_a_server_that_does_not_respond_is_abandoned(serve: Serve, tmp_path: Path) -> None:
    ours = certificate(tmp_path, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours)
    over = threading.Event()
    _, pool = serve(lambda line, _: over.wait(LIMIT), read_seconds=1, context=context, scheme="https", cert_path=str(ours))  # type: ignore[arg-type, return-value]
    try:
        with pytest.raises(TimeoutError):
            put(pool)
    finally:
        over.set()
