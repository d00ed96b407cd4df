"""The own S3 client through a proxy: what the proxy is sent, what it does, and what is reported of it."""

from __future__ import annotations

import base64
import http.client
import io
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.credentials import Credentials
from test_s3_http import LARGE, OK, TEXT, TIMES, Script, Serve, always, certificate, put, request, serve

from autosync.actors._proxies import CURE
from autosync.actors.s3.own_client import proxy as proxies
from autosync.actors.s3.own_client.http import HttpConnectionPool
from autosync.actors.s3.own_client.proxy import Proxy, ProxyError, ProxyRefused
from autosync.actors.s3.own_client.requests import ObjectRequests
from autosync.actors.s3.own_client.sigv4 import RequestSigner
from autosync.errors import PermanentError, SlowDown, TargetError, TargetRefused
from lab.forward_proxy import ForwardProxy

__all__ = ["serve"]

SECRET = "p:ä/@ss"
#: As it is written in a URL.
USER_AND_PASSWORD, IN_A_URL = f"joe:{SECRET}", "joe:p%3A%C3%A4%2F%40ss"


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    """A proxy that wants a user and a password."""
    with ForwardProxy(USER_AND_PASSWORD) as made:
        yield made


def url_of(proxy: ForwardProxy, credentials: str = f"{IN_A_URL}@") -> str:
    return proxy.url.replace("://", f"://{credentials}")


def objects_through(proxy_url: str, server_url: str, cert: Path | None = None, **times: float) -> ObjectRequests:
    by = Proxy.from_url(proxy_url)
    forwarding = by if server_url.startswith("http:") else None
    signer = RequestSigner(f"{server_url}/bucket", "us-east-1", lambda: Credentials("a", "s"), "the server", proxy=forwarding)
    pool = HttpConnectionPool(server_url, **{**TIMES, "cert_path": cert and str(cert), **times}, proxy=by)  # type: ignore[arg-type]
    return ObjectRequests(pool, signer, "the server", forwarding)


def answering(came: list[bytes] | None = None) -> Script:
    """Answer each request, and close the connection where the request has `Connection: close`."""

    def script(line: socket.socket, _: int) -> None:
        while data := request(line):
            if came is not None:
                came.append(data)
            line.sendall(OK)
            if b"\r\nConnection: close\r\n" in data[:4096]:
                return

    return script


def tls_context(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def both(ours: Path, other: Path) -> Path:
    """A file with both certificates."""
    file = ours.with_name("both.pem")
    file.write_bytes(ours.read_bytes() + other.read_bytes())
    return file


# What the proxy is sent


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("proxy_scheme", ["http", "https"])
def test_requests_of_every_kind_go_through_a_proxy_on_one_connection(serve: Serve, tmp_path: Path, scheme: str, proxy_scheme: str) -> None:
    cert = certificate(tmp_path, "127.0.0.1")
    came: list[bytes] = []
    server, _ = serve(answering(came), context=tls_context(cert) if scheme == "https" else None)
    with ForwardProxy(USER_AND_PASSWORD, tls_context(cert) if proxy_scheme == "https" else None) as proxy:
        objects = objects_through(url_of(proxy), f"{scheme}://127.0.0.1:{server.port}", cert)
        for size in (0, 10, 100_000):
            objects.finish_put(objects.begin_put("a b", b"x" * size, TEXT))
        objects.delete("c")
        assert objects.stream("d", io.BytesIO(b"y" * LARGE), LARGE, {"partNumber": "1"}).etag == '"x"'
        objects.close()

    origin = f"http://127.0.0.1:{server.port}"
    if scheme == "https":
        assert {(method, target) for method, target in proxy.requests} == {("CONNECT", f"127.0.0.1:{server.port}")}
        assert proxy.connections == server.connections <= 2, "where TLS sends something unasked, a part has a new connection"
    else:
        assert proxy.requests[:4] == [("PUT", f"{origin}/bucket/a%20b")] * 3 + [("DELETE", f"{origin}/bucket/c")]
        assert proxy.requests[4][1].startswith(f"{origin}/bucket/d?")
        assert proxy.connections <= 2
    sizes = [len(data.partition(b"\r\n\r\n")[2]) for data in came]
    assert sizes == [0, 10, 100_000, 0, LARGE]
    assert all(f"\r\nhost:127.0.0.1:{server.port}\r\n".encode() in data[:4096].lower().replace(b": ", b":") for data in came)
    assert not any(b"proxy-authorization" in data.lower()[:4096] for data in came), "the server learns nothing of the password"
    wanted = base64.b64encode(USER_AND_PASSWORD.encode())
    assert all(b"\r\nproxy-authorization:Basic " + wanted in head for head in proxy.heads)


def test_many_requests_are_on_their_way_through_a_proxy_at_once(serve: Serve, proxy: ForwardProxy) -> None:
    server, _ = serve(answering())
    objects = objects_through(url_of(proxy), f"http://127.0.0.1:{server.port}")

    for _ in range(3):
        for one in [objects.begin_put(f"{number}", b"x", TEXT) for number in range(8)]:
            objects.finish_put(one)

    assert (len(proxy.requests), proxy.connections) == (24, 8)
    objects.close()


def test_a_request_that_a_reused_connection_to_a_proxy_swallows_is_sent_again(serve: Serve, proxy: ForwardProxy) -> None:
    server, _ = serve(answering())
    objects = objects_through(url_of(proxy), f"http://127.0.0.1:{server.port}")
    objects.finish_put(objects.begin_put("a", b"x", TEXT))
    proxy.swallows = True
    begun = objects.begin_put("b", b"x", TEXT)
    with pytest.raises(TargetError, match="closed the connection"):
        objects.finish_put(begun)

    assert [target[-1] for _, target in proxy.requests] == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("base", "host"),
    [
        ("http://s3.example.org:80/b", "s3.example.org"),
        ("https://s3.example.org:443/b", "s3.example.org"),
        ("http://S3.example.org:9000/b", "s3.example.org:9000"),
        ("https://[::1]:9000/b", "[::1]:9000"),
        ("http://[::1]/b", "[::1]"),
    ],
)
def test_a_port_that_a_proxy_may_remove_from_the_host_is_not_signed(base: str, host: str) -> None:
    head = RequestSigner(base, "us-east-1", lambda: Credentials("a", "s"), "h").signed_head("GET", "k", b"", "", 0.0)

    assert f"\r\nhost:{host}\r\n".encode() in head


# Whom TLS trusts


def test_inside_a_tunnel_the_server_proves_who_it_is(serve: Serve, tmp_path: Path, proxy: ForwardProxy) -> None:
    ours, other = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path, "127.0.0.2")
    server, _ = serve(always(OK), context=tls_context(ours))
    impostor, _ = serve(always(OK), context=tls_context(other))

    for where, trusted in ((server, other), (impostor, other)):
        objects = objects_through(url_of(proxy), f"https://127.0.0.1:{where.port}", trusted)
        with pytest.raises(TargetError, match=r"^a at the server: .*CERTIFICATE_VERIFY_FAILED") as caught:
            objects.begin_put("a", b"x", TEXT)
        assert "proxy" not in str(caught.value), "it is the server that is wrong"
    proxy.redirect = f"127.0.0.1:{impostor.port}"  # a proxy that leads elsewhere
    with pytest.raises(TargetError, match="IP address mismatch"):
        objects_through(url_of(proxy), f"https://127.0.0.1:{server.port}", both(ours, other)).begin_put("a", b"x", TEXT)


@pytest.mark.parametrize("proxy_scheme", ["http", "https"])
def test_proxy_and_server_are_each_held_to_their_own_name(serve: Serve, tmp_path: Path, proxy_scheme: str) -> None:
    ours, other = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path, "127.0.0.2")
    server, _ = serve(always(OK), context=tls_context(other))
    with ForwardProxy(context=tls_context(ours) if proxy_scheme == "https" else None) as proxy:
        proxy.redirect = f"127.0.0.1:{server.port}"
        objects = objects_through(proxy.url, f"https://127.0.0.2:{server.port}", both(ours, other))
        objects.finish_put(objects.begin_put("a", b"x", TEXT))
        objects.close()

    assert proxy.requests == [("CONNECT", f"127.0.0.2:{server.port}")]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_speaks_tls_proves_who_it_is(serve: Serve, tmp_path: Path, scheme: str) -> None:
    ours, other = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path, "127.0.0.2")
    server, _ = serve(always(OK), context=tls_context(ours) if scheme == "https" else None)
    with ForwardProxy(USER_AND_PASSWORD, tls_context(other)) as impostor:
        objects = objects_through(url_of(impostor), f"{scheme}://127.0.0.1:{server.port}", both(ours, other))
        with pytest.raises(TargetError, match=rf"^a at the server: proxy {impostor.url}: .*IP address mismatch"):
            objects.begin_put("a", b"x", TEXT)

    assert (impostor.requests, server.connections) == ([], 0), "neither the password nor the request was sent"


def test_inside_tls_with_a_proxy_the_server_proves_who_it_is(serve: Serve, tmp_path: Path) -> None:
    ours, other = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path, "127.0.0.2")
    impostor, _ = serve(always(OK), context=tls_context(other))
    with ForwardProxy(USER_AND_PASSWORD, tls_context(ours)) as proxy:
        objects = objects_through(url_of(proxy), f"https://127.0.0.1:{impostor.port}", both(ours, other))
        with pytest.raises(TargetError, match="IP address mismatch") as caught:
            objects.begin_put("a", b"x", TEXT)

    assert "proxy" not in str(caught.value)


# Proxies that do not do it


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("credentials", ["", "joe:wrong@", "joe@"])
def test_a_proxy_that_wants_another_password_is_reported_with_a_cure(
    serve: Serve, proxy: ForwardProxy, scheme: str, credentials: str
) -> None:
    server, _ = serve(always(OK))
    objects = objects_through(url_of(proxy, credentials), f"{scheme}://127.0.0.1:{server.port}")

    for send in (
        lambda: objects.finish_put(objects.begin_put("a", b"x", TEXT)),
        lambda: objects.raise_for_status("a", objects.send_once("POST", "a", query="uploads=")),
        lambda: objects.raise_for_status("a", objects.stream("a", io.BytesIO(b"x"), 1, {})),
    ):
        with pytest.raises(TargetRefused) as caught:
            send()
        assert f"the server by the proxy {proxy.url}" in str(caught.value) or f"proxy {proxy.url}: " in str(caught.value)
        assert "the proxy wants another user or password; write HTTP_PROXY and HTTPS_PROXY as http://USER:PASSWORD" in str(caught.value)
        assert not {"joe", "wrong"} & {*str(caught.value).replace(":", " ").split()}
    assert server.connections == 0


@pytest.mark.parametrize(
    ("status", "error_text"),
    [("403 No", "403 Forbidden"), ("502 No", "502 Bad Gateway"), ("503 No", "503 Service Unavailable"), ("799 No", "799")],
)
def test_a_proxy_that_opens_no_tunnel_is_reported_by_its_status(proxy: ForwardProxy, status: str, error_text: str) -> None:
    proxy.response = f"HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nabc".encode()
    objects = objects_through(url_of(proxy), "https://s3.example.org")

    with pytest.raises(TargetError) as caught:
        objects.begin_put("a", b"x", TEXT)

    assert type(caught.value) is TargetError
    assert str(caught.value) == f"a at the server: proxy {proxy.url}: {error_text} instead of a connection to s3.example.org:443"


@pytest.mark.parametrize(
    ("status", "body", "kind", "error_text"),
    [
        (502, "abc", TargetError, " by the proxy {proxy}: 502"),
        (503, "abc", TargetError, " by the proxy {proxy}: 503"),
        (504, "", TargetError, " by the proxy {proxy}: 504"),
        (429, "", SlowDown, " by the proxy {proxy}: 429"),
        (401, "abc", TargetRefused, " by the proxy {proxy}: the proxy wants another user or password; {cure}"),
        (403, "abc", TargetRefused, " by the proxy {proxy}: access is denied; check the credentials and their permissions on the bucket"),
        (503, "<Code>SlowDown</Code>", SlowDown, ": SlowDown"),
        (401, "<Code>AccessDenied</Code>", TargetRefused, ": access is denied; check the credentials and their permissions on the bucket"),
    ],
)
def test_a_response_without_a_code_of_s3s_may_be_the_proxys(
    proxy: ForwardProxy, status: int, body: str, kind: type[TargetError], error_text: str
) -> None:
    """503 is what Squid sends where the server cannot be reached, and 401 what tinyproxy sends where the password is wrong."""
    proxy.response = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    objects = objects_through(url_of(proxy), "http://s3.example.org")

    with pytest.raises(TargetError) as caught:
        objects.finish_put(objects.begin_put("a", b"x", TEXT))

    assert type(caught.value) is kind
    assert str(caught.value) == f"a at the server{error_text.format(proxy=proxy.url, cure=CURE)}"


def test_what_comes_through_a_tunnel_is_the_servers(serve: Serve, tmp_path: Path, proxy: ForwardProxy) -> None:
    cert = certificate(tmp_path, "127.0.0.1")
    server, _ = serve(always(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), context=tls_context(cert))
    objects = objects_through(url_of(proxy), f"https://127.0.0.1:{server.port}", cert)

    with pytest.raises(SlowDown, match=r"^a at the server: 503$"):
        objects.finish_put(objects.begin_put("a", b"x", TEXT))
    objects.close()


def test_a_tunnel_for_which_the_password_is_wrong_is_refused_with_401_too(proxy: ForwardProxy) -> None:
    proxy.response = b"HTTP/1.0 401 Unauthorized\r\n\r\n"

    with pytest.raises(TargetRefused, match="the proxy wants another user or password"):
        objects_through(url_of(proxy), "https://s3.example.org").begin_put("a", b"x", TEXT)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_named(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name in (url, "http://a..b:1"):
        with pytest.raises(TargetError, match=rf"^a at the server: proxy {name}: ") as caught:
            objects_through(name.replace("://", f"://{IN_A_URL}@"), f"{scheme}://s3.example.org").begin_put("a", b"x", TEXT)
        assert not isinstance(caught.value, PermanentError)


@pytest.mark.parametrize(
    ("response", "error_text"),
    [
        (b"what is this\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 20000 OK\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nLength: 5", "closed the connection without a response"),
        (b"", "closed the connection without a response"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "it sends something before the server does"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * (16 << 10), "is longer than 16 KiB"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000, "is longer than 16 KiB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_response_to_a_connect_is_an_error(serve: Serve, response: bytes, error_text: str) -> None:
    def script(line: socket.socket, _: int) -> None:
        line.recv(1 << 16)
        line.sendall(response)
        line.shutdown(socket.SHUT_WR)
        line.recv(1)

    server, _ = serve(script)
    url = f"http://127.0.0.1:{server.port}"

    with pytest.raises(ProxyError, match=f"^proxy {url}: .*{error_text}"):
        put(HttpConnectionPool("https://s3.example.org", **TIMES, proxy=Proxy.from_url(url)))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["it never ends its head", "it dribbles", "it sends nothing"])
def test_a_proxy_that_never_comes_to_the_end_of_its_response_is_abandoned(
    how: str, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "TUNNEL_SECONDS", 60 if how == "it never ends its head" else 0.5)
    monkeypatch.setattr(proxies, "_AT_LEAST", 10.0 if how == "it dribbles" else 0.05)  # so no single read lasts too long
    proxy.response = b"HTTP/1.1 200 OK\r\n"
    if how == "it sends nothing":
        proxy.is_silent = True
    else:
        proxy.endless, proxy.pause = (b"A: b\r\n", 0.0) if how == "it never ends its head" else (b"A", 0.02)
    objects = objects_through(url_of(proxy), "https://s3.example.org")

    texts = {"it never ends its head": "is longer than 16 KiB", "it dribbles": "does not come to its end", "it sends nothing": "timed out"}
    with pytest.raises(TargetError, match=texts[how]):
        objects.begin_put("a", b"x", TEXT)

    assert proxy.count("CONNECT") == 1
    assert proxy.sent < 16 << 20, "what the kernels keep, and not what it would send"


def test_an_interim_response_before_that_to_a_connect_is_passed_over(serve: Serve, tmp_path: Path) -> None:
    cert = certificate(tmp_path, "127.0.0.1")

    def script(line: socket.socket, _: int) -> None:
        line.recv(1 << 16)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.0 200 Connection established\nProxy-agent: old\n\n":
            line.sendall(bytes([byte]))
        with tls_context(cert).wrap_socket(line, server_side=True) as inside:
            always(OK)(inside, 1)

    server, _ = serve(script)
    by = Proxy.from_url(f"http://127.0.0.1:{server.port}")
    pool = HttpConnectionPool("https://127.0.0.1", **{**TIMES, "cert_path": str(cert)}, proxy=by)  # type: ignore[arg-type]

    assert [put(pool).status, put(pool).status] == [200, 200]
    pool.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_behind_a_proxy_that_breaks_off_is_an_error(serve: Serve, tmp_path: Path, scheme: str) -> None:
    """Also inside TLS with the proxy, where the end of the connection comes from another library."""
    cert = certificate(tmp_path, "127.0.0.1")

    def script(line: socket.socket, _: int) -> None:
        request(line)
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n<DeleteResult></DeleteResult")

    server, _ = serve(script, context=tls_context(cert) if scheme == "https" else None)
    with ForwardProxy(context=tls_context(cert)) as proxy:
        by = Proxy.from_url(proxy.url)
        forwarding = by if scheme == "http" else None
        signer = RequestSigner(f"{scheme}://127.0.0.1:{server.port}", "r", lambda: Credentials("a", "s"), "h", proxy=forwarding)
        pool = HttpConnectionPool(f"{scheme}://127.0.0.1:{server.port}", **{**TIMES, "cert_path": str(cert)}, proxy=by)  # type: ignore[arg-type]
        with pytest.raises((http.client.IncompleteRead, OSError)):
            pool.read_response(pool.send(signer.signed_head("PUT", "a", b"", "", 0.0)))


def test_through_tls_with_a_proxy_too_a_server_that_does_not_respond_is_abandoned(serve: Serve, tmp_path: Path) -> None:
    cert = certificate(tmp_path, "127.0.0.1")
    server, _ = serve(lambda line, _: line.recv(1 << 20) and line.recv(1 << 20), context=tls_context(cert))  # type: ignore[arg-type, return-value]
    with ForwardProxy(context=tls_context(cert)) as proxy:
        objects = objects_through(proxy.url, f"https://127.0.0.1:{server.port}", cert, read_seconds=1)
        with pytest.raises(TargetError, match="timed out"):
            objects.finish_put(objects.begin_put("a", b"x", TEXT))


# What its URL has


@pytest.mark.parametrize(
    ("url", "shown", "credentials"),
    [
        ("http://p.example.org:3128", "http://p.example.org:3128", None),
        ("http://p.example.org", "http://p.example.org:80", None),
        ("HTTPS://p.example.org/", "https://p.example.org:443", None),
        ("p.example.org:3128", "http://p.example.org:3128", None),
        ("//p.example.org", "http://p.example.org:80", None),
        ("joe:secret@p:1", "http://p:1", b"joe:secret"),
        ("http://[::1]:3128", "http://[::1]:3128", None),
        ("http://joe:se%20cret%2F%3A%40@p:1", "http://p:1", b"joe:se cret/:@"),
        ("http://j%C3%B6:%FF@p:1", "http://p:1", "jö:".encode() + b"\xff"),
        ("http://joe@p:1", "http://p:1", b"joe:"),
        ("http://joe:@p:1", "http://p:1", b"joe:"),
        ("http://:secret@p:1", "http://p:1", b":secret"),
    ],
)
def test_the_url_of_a_proxy_is_read_as_botocore_reads_it(url: str, shown: str, credentials: bytes | None) -> None:
    found = Proxy.from_url(url)

    assert str(found) == shown
    wanted = b"" if credentials is None else b"proxy-authorization:Basic " + base64.b64encode(credentials) + b"\r\n"
    assert found.authorization.encode() == wanted
    assert "secret" not in f"{found} {found!r}"
    assert "Basic" not in repr(found)


@pytest.mark.parametrize(
    "url", ["socks5://joe:secret@p:1080", "http://joe:secret@p:port", "http://", "http://joe:secret@", "joe:se/cret@p:1"]
)
def test_what_is_no_url_of_a_proxy_is_refused_and_not_printed(url: str) -> None:
    with pytest.raises(ProxyRefused) as caught:
        Proxy.from_url(url)

    assert "secret" not in str(caught.value)
