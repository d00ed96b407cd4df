"""An HTTP proxy as those of companies are: it forwards requests for http:// URLs, and opens tunnels for CONNECT (RFC 9110, 9.3.6).

It removes its credentials from what it forwards, and derives Host from the URL (RFC 9112, 3.2.2). Its own faults can be set, and it counts
what it does, so that a test can check whether the client used this proxy. `python -m lab.forward_proxy PORT` runs it as a process.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import sys
import threading
import time
from types import TracebackType
from urllib.parse import urlsplit

from .ports import free_port

_CHUNK = 1 << 16
_SECONDS = 60.0


class ForwardProxy:
    """A proxy on loopback, for the length of a with-block. The attributes may be changed at any time.

    Args:
        credentials: "user:password" that each client needs; "" for none.
        context: for TLS between client and proxy; None for none.
        port: at which it listens; 0 for a free one.
    """

    def __init__(self, credentials: str = "", context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._wanted = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        self._context = context
        self.port = port or free_port()
        scheme = "https" if context else "http"
        #: Without user and password, and with them.
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.url_for_clients = f"{scheme}://{credentials}@127.0.0.1:{self.port}" if credentials else self.url
        #: The method and the target of each request, as it came; of those in tunnels only the CONNECT.
        self.requests: list[tuple[str, str]] = []
        #: The head of each request.
        self.heads: list[bytes] = []
        #: How many connections were accepted.
        self.connections = 0
        #: Where each tunnel and each forwarded request goes instead of where it wants to ("host:port"); "" to go there.
        self.redirect = ""
        #: Bytes that every request is answered with instead, before the connection is closed; b"" for none.
        self.response = b""
        #: A block that is sent again and again as the response, as often as the client reads, every so many seconds; b"" for none.
        self.endless, self.pause = b"", 0.0
        #: Whether requests get no response at all.
        self.is_silent = False
        #: Whether the connection to the client is closed once a request was forwarded, before its response.
        self.swallows = False
        #: The number of bytes of an endless response that were sent.
        self.sent = 0
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="forward-proxy", daemon=True)

    def __enter__(self) -> ForwardProxy:
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def count(self, method: str) -> int:
        """How many requests of this method came."""
        return sum(1 for found, _ in self.requests if found == method)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), name="forward-proxy-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            stack.callback(client.close)
            client.settimeout(_SECONDS)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
                stack.callback(client.close)
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = client.recv(_CHUNK)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                rest = self._handle(client, head, data)
                if rest is None:
                    return
                data = rest

    def _handle(self, client: socket.socket, head: bytes, data: bytes) -> bytes | None:
        """Do what one request wants. Returns what was read behind it; None if the connection is not used again."""
        first, *rows = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        self.requests.append((method, target))
        self.heads.append(head)
        if self.is_silent:
            self._closing.wait(_SECONDS)
            return None
        if self._wanted and fields.get("proxy-authorization") != self._wanted:
            _refuse(client, "407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=lab\r\n")
            return None
        if self.response or self.endless:
            self._respond(client)
            return None
        if method == "CONNECT":
            self._tunnel(client, target, data)
            return None
        if not target.startswith("http://"):
            _refuse(client, "400 Bad Request")
            return None
        return self._forward(client, method, target, rows, data)

    def _respond(self, client: socket.socket) -> None:
        client.sendall(self.response)
        while self.endless and not self._closing.wait(self.pause):
            client.sendall(self.endless)
            self.sent += len(self.endless)

    def _connect(self, host: str, port: int) -> socket.socket:
        if self.redirect:
            host, _, named = self.redirect.rpartition(":")
            port = int(named)
        server = socket.create_connection((host, port), 10)
        server.settimeout(_SECONDS)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    def _tunnel(self, client: socket.socket, target: str, data: bytes) -> None:
        host, _, port = target.rpartition(":")
        try:
            server = self._connect(host.strip("[]"), int(port))
        except OSError:
            _refuse(client, "502 Bad Gateway")
            return
        with server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            server.sendall(data)
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join(_SECONDS)

    def _forward(self, client: socket.socket, method: str, target: str, rows: list[str], data: bytes) -> bytes | None:
        parts = urlsplit(target)
        fields = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        try:
            server = self._connect(str(parts.hostname), parts.port or 80)
        except OSError:
            _refuse(client, "502 Bad Gateway")
            return None
        with server:
            path = target.removeprefix(f"http://{parts.netloc}") or "/"
            own = ("host:", "connection:", "proxy-authorization:", "proxy-connection:", "expect:")
            kept = [row for row in rows if not row.lower().startswith(own)]
            head = "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close", *kept])
            if "expect" in fields:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = int(fields.get("content-length", 0))
            server.sendall(head.encode("latin-1") + b"\r\n\r\n" + data[:length])
            rest, length = data[length:], max(length - len(data), 0)
            while length:
                more = client.recv(min(_CHUNK, length))
                if not more:
                    return None
                server.sendall(more)
                length -= len(more)
            if self.swallows:
                while server.recv(_CHUNK):
                    pass
                return None
            return rest if _pass_back(server, client) else None


def _pass_back(server: socket.socket, client: socket.socket) -> bool:
    """Pass a response on. Returns whether it came to its end, and the client can find where that is."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = server.recv(_CHUNK)
        if not more:
            return False
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    rows = [row for row in head.split(b"\r\n") if not row.lower().startswith(b"connection:")]
    lower = b"\r\n".join(rows).lower()
    has_end = b"\r\ncontent-length:" in lower or b"\r\ntransfer-encoding:" in lower or b" 204 " in rows[0]
    added = [b"Via: 1.1 lab"] if has_end else [b"Via: 1.1 lab", b"Connection: close"]
    client.sendall(b"\r\n".join([*rows, *added]) + b"\r\n\r\n" + body)
    passed = len(body) + _copy(server, client, ends=False)
    length = next((int(row.partition(b":")[2]) for row in rows if row.lower().startswith(b"content-length:")), 0)
    return has_end and passed >= length


def _refuse(client: socket.socket, status: str, more: str = "") -> None:
    body = f"<html><body><h1>{status}</h1></body></html>".encode()
    client.sendall(f"HTTP/1.1 {status}\r\n{more}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def _copy(one: socket.socket, other: socket.socket, *, ends: bool = True) -> int:
    """Copy until one of them closes its connection. Returns the number of bytes."""
    count = 0
    with contextlib.suppress(OSError):
        while data := one.recv(_CHUNK):
            other.sendall(data)
            count += len(data)
    if ends:
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
    return count


if __name__ == "__main__":
    with ForwardProxy(port=int(sys.argv[1])):
        while True:
            time.sleep(3600)
