"""Servers whose responses have no end, become a thousand times as large, or take for ever: no actor reads more of them than its bound."""

from __future__ import annotations

import socketserver
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from autosync.actor import Actor, listing_of
from autosync.actors import load
from autosync.errors import SlowDown, TargetError, TargetRefused
from autosync.files import File
from autosync.testing import Content
from lab.azurite import ACCOUNT_KEY
from lab.endless import Endless
from lab.gcs import Gcs
from lab.servers import wait_until

#: Beside what is read, what the kernel's buffers take: up to the limits of net.ipv4.tcp_rmem and tcp_wmem, which are 6 and 4 MiB on many
#: hosts, and 32 and 4 MiB on others.
_BUFFERS = 40 << 20
_BODY, _PAGE = (1 << 20) + _BUFFERS, (64 << 20) + _BUFFERS
READING = ["s3", "s3 by proxy", "http", "swift", "azure", "gcs"]
ENDLESS = ["chunked", "long", "until closed"]


@pytest.fixture
def endless() -> Iterator[Callable[[int, str], Endless]]:
    """Starts servers: give a status and a shape."""
    servers: list[Endless] = []

    def start(status: int, shape: str) -> Endless:
        servers.append(Endless(status, shape))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def actor_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str, Endless], Actor]]:
    """Makes actors: give the name and the server."""
    made: list[Actor] = []
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)

    def make(name: str, server: Endless) -> Actor:
        settings = {
            "s3": {"target_container": "bucket", "endpoint_url": server.url},
            "s3 by proxy": {"target_container": "bucket", "endpoint_url": "http://s3.example.org"},
            "http": {"url": f"{server.url}/api", "secret": "secret"},
            "swift": {"target_container": "container", "auth_url": f"{server.url}/auth/v1.0", "user": "a:b", "password": "p"},
            "azure": {"target_container": "container", "endpoint_url": server.url, "account": "a", "account_key": ACCOUNT_KEY},
            "gcs": {"target_container": "bucket", "endpoint_url": server.url, "service_account": str(Gcs(tmp_path).service_account)},
        }[name]
        if name == "s3 by proxy":  # through a proxy, which is this server
            monkeypatch.setenv("http_proxy", server.url)
            monkeypatch.setenv("no_proxy", "")
        made.append(load(name.partition(" ")[0])(**settings))
        return made[-1]

    yield make
    for actor in made:
        actor.close()


def read_of(server: Endless) -> int:
    """The most that was sent of one body, once nothing is sent any more; none was read to its end."""
    wait_until(server.is_quiet, 60, "the server to see that nobody reads")
    assert server.sent, "it was asked"
    assert not server.ended
    return max(server.sent)


def line_of(caught: pytest.ExceptionInfo[TargetError]) -> str:
    """The error, which is one line."""
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    return line


@pytest.mark.parametrize("shape", ENDLESS)
@pytest.mark.parametrize("name", READING)
def test_of_a_listing_no_more_than_64_MiB_are_read(  # noqa: N802
    name: str, shape: str, endless: Callable[[int, str], Endless], actor_for: Callable[[str, Endless], Actor]
) -> None:
    server = endless(200, shape)

    with pytest.raises(TargetError) as caught:
        list(listing_of(actor_for(name, server), ""))

    assert "the response is longer than 64 MiB" in line_of(caught)
    assert (63 << 20) <= read_of(server) < _PAGE  # the block that the client broke off does not count


@pytest.mark.parametrize("name", READING)
def test_a_page_in_crumbs_needs_no_more_memory_than_a_whole_one(
    name: str, endless: Callable[[int, str], Endless], actor_for: Callable[[str, Endless], Actor]
) -> None:
    """Of each chunk an object of its own would be made, which takes twenty times as much as its two bytes."""
    server = endless(200, "crumbs")
    actor = actor_for(name, server)
    with pytest.raises(TargetError):
        list(listing_of(actor, ""))  # what is imported with the first request does not count
    tracemalloc.start()
    try:
        with pytest.raises(TargetError):
            list(listing_of(actor, ""))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert read_of(server) == 128 << 10
    assert peak < 2 << 20


@pytest.mark.parametrize("shape", ENDLESS)
@pytest.mark.parametrize("name", ["s3", "s3 by proxy"])
def test_a_report_on_many_deletions_may_be_as_long_as_a_page(
    name: str, shape: str, endless: Callable[[int, str], Endless], actor_for: Callable[[str, Endless], Actor]
) -> None:
    server = endless(200, shape)

    with pytest.raises(TargetError) as caught:
        actor_for(name, server).delete_many([File("a"), File("b")])

    assert "the response is longer than 64 MiB" in line_of(caught)
    assert server.methods == ["POST"]
    assert (63 << 20) <= read_of(server) < _PAGE  # the block that the client broke off does not count


@pytest.mark.parametrize("shape", ENDLESS)
@pytest.mark.parametrize("name", READING)
def test_of_the_response_to_an_upload_no_more_than_1_MiB_is_read(  # noqa: N802
    name: str, shape: str, endless: Callable[[int, str], Endless], actor_for: Callable[[str, Endless], Actor], content: Content
) -> None:
    server = endless(200, shape)

    with pytest.raises(TargetError) as caught:
        actor_for(name, server).upload(content.file("a", b"x"))

    assert "the response is longer than 1 MiB" in line_of(caught)
    assert "PUT" in server.methods
    assert read_of(server) < _BODY


@pytest.mark.parametrize(
    ("status", "kind", "shape"),
    [(403, TargetRefused, "chunked"), (403, TargetRefused, "until closed"), (503, SlowDown, "long"), (500, TargetError, "chunked")],
)
@pytest.mark.parametrize("name", READING)
def test_an_error_without_an_end_is_reported_by_its_status(
    name: str, status: int, kind: type[TargetError], shape: str, endless: Callable[[int, str], Endless],
    actor_for: Callable[[str, Endless], Actor], content: Content,
) -> None:  # fmt: skip
    server = endless(status, shape)
    actor = actor_for(name, server)
    if (name, status) == ("s3 by proxy", 503):
        kind = TargetError  # without a code of S3's it is the proxy's, which cannot reach the server

    for ask in (
        lambda: actor.upload(content.file("a", b"x")),
        lambda: actor.delete(File("a")),
        lambda: list(listing_of(actor, "")),
        actor.check,
    ):
        with pytest.raises(TargetError) as caught:
            ask()
        assert type(caught.value) is kind, line_of(caught)
        line_of(caught)

    assert read_of(server) < _BODY


@pytest.mark.parametrize("name", READING)
def test_nothing_is_requested_compressed_and_what_comes_so_is_not_decoded(
    name: str, endless: Callable[[int, str], Endless], actor_for: Callable[[str, Endless], Actor]
) -> None:
    server = endless(200, "gzip")
    actor = actor_for(name, server)

    tracemalloc.start()
    try:
        with pytest.raises(TargetError) as caught:
            list(listing_of(actor, ""))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    line_of(caught)
    if name in READING:
        assert "the response is compressed (gzip)" in line_of(caught)
    assert peak < 32 << 20
    assert server.methods
    assert server.accepted == {"identity"}


@pytest.mark.parametrize("name", READING)
def test_an_error_that_is_compressed_is_reported_by_its_status(
    name: str, endless: Callable[[int, str], Endless], actor_for: Callable[[str, Endless], Actor], content: Content
) -> None:
    server = endless(403, "gzip")
    actor = actor_for(name, server)

    tracemalloc.start()
    try:
        with pytest.raises(TargetRefused):
            list(listing_of(actor, ""))
        with pytest.raises(TargetRefused):
            actor.upload(content.file("a", b"x"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 32 << 20
    assert server.methods


@pytest.mark.parametrize("name", READING)
def test_a_response_that_never_comes_to_its_end_is_abandoned(
    name: str, endless: Callable[[int, str], Endless], actor_for: Callable[[str, Endless], Actor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("_responses", "s3.own_client.responses"):
        monkeypatch.setattr(f"autosync.actors.{module}.BODY_SECONDS", 0.2)
    server = endless(200, "slow")

    with pytest.raises(TargetError, match="does not come to its end"):
        list(listing_of(actor_for(name, server), ""))

    assert read_of(server) > 1


@pytest.mark.parametrize("shape", ENDLESS)
@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_an_identity_service_is_not_read_to_its_end(version: str, shape: str, endless: Callable[[int, str], Endless]) -> None:
    server = endless(200, shape)
    settings = {"auth_url": f"{server.url}/identity", "auth_version": version, "user": "a:b", "password": "p", "project": "p"}
    actor = load("swift")(target_container="container", **settings)

    with pytest.raises(TargetError) as caught:
        actor.check()

    assert "the response is longer than 1 MiB" in line_of(caught)
    assert read_of(server) < _BODY
    assert server.accepted == {"identity"}


@pytest.mark.parametrize("shape", ["chunked", "long"])
@pytest.mark.parametrize("name", READING)
def test_a_listing_that_is_broken_off_is_an_error(
    name: str, shape: str, endless: Callable[[int, str], Endless], actor_for: Callable[[str, Endless], Actor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("lab.endless._GIVES_UP", 1 << 18)
    server = endless(200, shape)

    with pytest.raises(TargetError) as caught:
        list(listing_of(actor_for(name, server), ""))

    line_of(caught)
    assert server.ended, "it was sent as far as it goes"


#: After so many bytes a server closes the connection, so that a test that fails does not take for ever.
_GIVES_UP = 3 * _BUFFERS
PARTS = {
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a header": (b"HTTP/1.1 200 OK\r\nA: ", b"x"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
    "the size of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x"),
}  # fmt: skip


class Dripping:
    """A server that begins a response, and then sends the same bytes for ever.

    Args:
        start: of the response.
        again: the bytes.
        pause: between two times, in seconds.
    """

    def __init__(self, start: bytes, again: bytes, pause: float = 0.02) -> None:
        self._closing = threading.Event()
        #: How many bytes were sent, or were to be, of the longest response.
        self.sent = 0
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                if line.split()[1:2] == [b"/auth/v1.0"]:
                    storage = f"X-Auth-Token: t\r\nX-Storage-Url: {server.url}/v1/AUTH_a\r\nContent-Length: 0\r\nConnection: close"
                    self.wfile.write(f"HTTP/1.1 200 OK\r\n{storage}\r\n\r\n".encode())
                    return
                with suppress(OSError):
                    self.wfile.write(start)
                    sent = 0
                    while sent < _GIVES_UP and not server._closing.wait(pause):
                        sent += len(again)
                        server.sent = max(server.sent, sent)  # before: the client may give up, and be checked, meanwhile
                        self.wfile.write(again)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["http", "swift", "azure", "gcs"])
def test_no_part_of_a_response_lasts_for_ever(
    name: str, part: str, actor_for: Callable[[str, Any], Actor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosync.actors._responses.BODY_SECONDS", 0.5)
    server = Dripping(*PARTS[part])
    try:
        began = time.monotonic()
        with pytest.raises(TargetError) as caught:
            actor_for(name, server).check()
        assert time.monotonic() - began < 20
        assert "does not come to its end" in line_of(caught)
    finally:
        server.close()


@pytest.mark.parametrize("part", ["interim responses", "trailers"])
@pytest.mark.parametrize("name", READING)
def test_no_more_than_a_bound_is_read_of_what_is_no_content(name: str, part: str, actor_for: Callable[[str, Any], Actor]) -> None:
    start, again = PARTS[part]
    server = Dripping(start, again * 10_000, pause=0)
    try:
        with pytest.raises(TargetError) as caught:
            list(listing_of(actor_for(name, server), ""))
        assert "the response has more than 64 KiB beside its content" in line_of(caught)
        assert 0 < server.sent < _GIVES_UP
    finally:
        server.close()
