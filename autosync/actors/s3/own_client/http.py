"""HTTP/1.1 (RFC 9112) for requests that fit in memory, on connections that are kept open.

A library that implements all of HTTP takes longer for a small file than everything else together.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, NamedTuple, cast
from urllib.parse import urlsplit

from ..._responses import BODY_BYTES
from .proxy import Proxy, ProxyError, ProxyRefused
from .responses import Response, parse, parse_empty

#: Size of the blocks in which content that does not fit in memory is read and sent, in bytes; 16 KiB, as others use, cost three times the
#: CPU.
BLOCK = 256 << 10
#: Time-outs for connecting, and for each part of a response, in seconds.
CONNECT_SECONDS, READ_SECONDS = 5, 60
#: A connection that was idle for longer than this (in seconds) is not used again: servers close idle connections without notice.
_LONGEST_IDLE = 15.0
#: Content up to this size (in bytes) is sent together with the head, in one call.
_TOGETHER = 64 << 10
#: Buffer size for the first bytes of a response, in bytes.
_FIRST_READ = 16 << 10
#: A response that is read later than this after its request is late; it is still waited for at least the second time. In seconds.
_SOON, _AT_LEAST = 1.0, 0.05

#: What is raised if the server has closed a connection since its last use.
_CLOSED_BY_SERVER = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, http.client.RemoteDisconnected)


#: Yields content in blocks, each as soon as the bandwidth limit lets it go.
Throttle = Callable[[bytes], Iterable[memoryview]]


class PendingRequest(NamedTuple):
    """A request that was sent, and whose response was not read.

    Attributes:
        connection: on which it was sent.
        head: the request line and headers.
        content: the body.
        is_reused: whether another request had been sent on the connection before.
        sent_at: when it was sent, by the monotonic clock, in seconds.
    """

    connection: socket.socket
    head: bytes
    content: bytes
    is_reused: bool
    sent_at: float


class HttpConnectionPool:
    """Connections to one server. Safe to use from many threads.

    Args:
        url: the server's URL; scheme, host and port are used.
        cert_path: file or directory with the certificates to trust; None for the system's.
        connect_seconds: time-out of connecting.
        read_seconds: time-out of each part of a response.
        proxy: through which the server is reached: by a tunnel if the URL is https://; to forward requests, which name the server, if it
            is http://.
    """

    def __init__(self, url: str, *, cert_path: str | None, connect_seconds: float, read_seconds: float, proxy: Proxy | None = None) -> None:
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "https"
        self._proxy = proxy
        self._tls = None
        if self._is_tls or (proxy is not None and proxy.is_tls):
            folder = bool(cert_path) and os.path.isdir(str(cert_path))
            self._tls = ssl.create_default_context(cafile=None if folder else cert_path, capath=cert_path if folder else None)
        self._host = str(parts.hostname)
        self._port = parts.port or (443 if self._is_tls else 80)
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        #: When each connection became idle (monotonic), and the connection.
        self._idle: deque[tuple[float, socket.socket]] = deque()
        weakref.finalize(self, _close_all, self._idle)

    def connect(self) -> socket.socket:
        """Open a new connection.

        Raises:
            OSError: the server, or the proxy, cannot be reached.
        """
        connection = self._open(self._host, self._port) if self._proxy is None else self._open_through(self._proxy)
        try:
            if self._tls is not None:
                if self._is_tls:
                    connection = _inside(connection, self._tls, self._host)
                connection.settimeout(self._read_seconds)
                return connection
            # The kernel keeps these time-outs; for its own, Python would call poll(2) before each read and write.
            connection.settimeout(None)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                connection.setsockopt(socket.SOL_SOCKET, option, _timeval(self._read_seconds))
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self, host: str, port: int) -> socket.socket:
        connection = socket.create_connection((host, port), self._connect_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    def _open_through(self, proxy: Proxy) -> socket.socket:
        """Open a connection to the proxy, and in it a tunnel if TLS is spoken with the server."""
        try:
            connection = self._open(proxy.host, proxy.port)
            try:
                if proxy.is_tls and self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_hostname=proxy.host)
                if self._is_tls:
                    proxy.open_tunnel(connection, self._host, self._port)
                    connection.settimeout(self._connect_seconds)
            except BaseException:
                connection.close()
                raise
        except (OSError, UnicodeError) as error:
            kind = ProxyRefused if isinstance(error, ProxyRefused) else ProxyError
            raise kind(f"proxy {proxy}: {str(error) or type(error).__name__}") from error
        return connection

    def send(self, head: bytes, content: bytes = b"", throttle: Throttle | None = None) -> PendingRequest:
        """Send a request that may be sent twice. Further requests may be sent before its response is read, each on its own connection.

        Args:
            head: request line and headers, with the empty line at the end.
            content: the body.
            throttle: splits a large body into blocks; None for no limit.

        Raises:
            OSError: the server could not be reached, or the connection broke.
        """
        while (idle := self._pop_idle()) is not None:
            with suppress(*_CLOSED_BY_SERVER):
                return PendingRequest(_send_on(idle, head, content, throttle), head, content, True, time.monotonic())
        return PendingRequest(_send_on(self.connect(), head, content, throttle), head, content, False, time.monotonic())

    def send_once(self, connection: socket.socket, head: bytes, content: bytes = b"") -> PendingRequest:
        """Send a request that must not be sent twice.

        Args:
            connection: a new one (see `connect`), which no server has had time to close.
            head: as for `send`.
            content: as for `send`.

        Raises:
            OSError: the connection broke.
        """
        return PendingRequest(_send_on(connection, head, content, None), head, content, False, time.monotonic())

    def read_response(self, request: PendingRequest, most: int = BODY_BYTES) -> Response:
        """Read the response to a request. If the server closed a reused connection without a response, the request is sent again.

        Args:
            request: returned by `send` or `send_once`.
            most: the most bytes of the body to read.

        Returns:
            The response. Bytes of its body that are not UTF-8 become surrogates, as in names of files.

        Raises:
            OSError: the server could not be reached, or the connection broke, or the body is not read to its end (`ResponseError`).
            http.client.HTTPException: the response is not HTTP.
        """
        while request.is_reused:
            with suppress(*_CLOSED_BY_SERVER):
                return self._read_from_connection(request, most)
            request = self.send(request.head, request.content)
        return self._read_from_connection(request, most)

    def stream(self, head: bytes, content: BinaryIO) -> Response:
        """Send one request, reading its content meanwhile, and read the response. It is never sent again: that needs the content anew.

        Args:
            head: as for `send`.
            content: the body.

        Raises:
            OSError: the server could not be reached, or the connection broke.
            http.client.HTTPException: the response is not HTTP.
        """
        connection = self._pop_open() or self.connect()
        with _closing_on_error(connection):
            try:
                connection.sendall(head)
                while block := content.read(BLOCK):
                    connection.sendall(block)
            except (BrokenPipeError, ConnectionResetError):
                data = connection.recv(_FIRST_READ)  # a server may send a response before it has the whole body, and then close
                if not data:
                    raise
                response, _ = parse(connection, data, BODY_BYTES)
                connection.close()
                return response
        return self._read_from_connection(PendingRequest(connection, head, b"", False, time.monotonic()), BODY_BYTES, needs_headers=True)

    def close(self) -> None:
        """Close the idle connections."""
        _close_all(self._idle)

    def _pop_idle(self) -> socket.socket | None:
        """Remove and return the connection that was used last. If even that was idle for too long, close all."""
        try:
            since, connection = self._idle.pop()
        except IndexError:
            return None
        if time.monotonic() - since < _LONGEST_IDLE:
            return connection
        connection.close()
        self.close()
        return None

    def _pop_open(self) -> socket.socket | None:
        """Remove and return an idle connection that the server has not closed, as far as this side can see."""
        while (connection := self._pop_idle()) is not None:
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            if not poll.poll(0):
                return connection
            connection.close()
        return None

    def _read_from_connection(self, request: PendingRequest, most: int, *, needs_headers: bool = False) -> Response:
        """Read a response, and keep the connection if the server does; `needs_headers`: parse `date` and `etag` in any case."""
        connection, late = request.connection, time.monotonic() - request.sent_at
        with _closing_on_error(connection):
            if late > _SOON:  # other responses were read meanwhile: this one has had a part of its time
                self._set_read_timeout(connection, max(self._read_seconds - late, _AT_LEAST))
            data = connection.recv(_FIRST_READ)
            if not data:
                raise http.client.RemoteDisconnected("the server closed the connection without a response")
            response, is_kept = (None if needs_headers else parse_empty(data)) or parse(connection, data, most)
        if is_kept and late <= _SOON:
            self._idle.append((time.monotonic(), connection))
        else:
            connection.close()
        return response

    def _set_read_timeout(self, connection: socket.socket, seconds: float) -> None:
        if self._tls is not None:
            connection.settimeout(seconds)
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))


def _inside(connection: socket.socket, tls: ssl.SSLContext, host: str) -> socket.socket:
    """Speak TLS with a host inside a connection, which may be one of TLS itself: to a proxy."""
    if not isinstance(connection, ssl.SSLSocket):
        return tls.wrap_socket(connection, server_hostname=host)
    from .nested_tls import NestedTls

    return cast(socket.socket, NestedTls(connection, tls, host))


def _timeval(seconds: float) -> bytes:
    """struct timeval."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def _close_all(idle: deque[tuple[float, socket.socket]]) -> None:
    with suppress(IndexError):
        while True:
            idle.pop()[1].close()


def _send_on(connection: socket.socket, head: bytes, content: bytes, throttle: Throttle | None) -> socket.socket:
    with _closing_on_error(connection):
        if len(content) <= _TOGETHER:
            connection.sendall(head + content)
        else:
            connection.sendall(head)
            for block in throttle(content) if throttle else (content,):
                connection.sendall(block)
    return connection


class _closing_on_error:  # noqa: N801 - used like a function of contextlib's, which would be slower, and every file comes here
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._connection.close()
        if isinstance(error, BlockingIOError):
            raise TimeoutError("the server does not respond") from error
