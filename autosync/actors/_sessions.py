"""Sessions of the library requests, for actors."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter

from . import _responses
from ._proxies import with_scheme
from ._responses import AS_IT_IS, BODY_BYTES, HEAD_BYTES, PAGE_BYTES, BoundedBody, encoding_of, too_much_beside, too_slow

#: Content is sent in blocks of this size, in bytes. Each block must be sent within the timeout for connecting (urllib3 uses that one for
#: sending too), also on a slow line that hundreds of files share.
_BLOCK = 64 << 10
_OK = range(200, 300)
#: How many times as long a body may be on the line: a chunk of one byte takes six.
_CHUNK_FACTOR = 8


class _Adapter(HTTPAdapter):
    def __init__(self, connections: int, *, has_pages: bool, stored: str | None, secret_query: str) -> None:
        self._secret_query = secret_query
        super().__init__(pool_connections=1, pool_maxsize=connections)
        self._large = ("GET", "POST") if has_pages else ()
        self._stored = stored

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, blocksize=_BLOCK)
        self._adapt(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **more)
        if is_new:
            self._adapt(manager)
        return manager

    def _adapt(self, manager: Any) -> None:
        """Have the connections of a manager made by `_pool_of`."""
        pools = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: _pool_of(pools[scheme], self._secret_query) for scheme in pools}

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        request.headers.update(AS_IT_IS)  # swiftclient sets gzip

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        made = super().build_response(req, resp)
        is_error = made.status_code not in _OK
        most = PAGE_BYTES if req.method in self._large and not is_error else BODY_BYTES
        is_stored = self._stored is not None and self._stored in made.url
        encoding = "" if is_stored and not is_error else encoding_of(made.headers.get("Content-Encoding"))
        made.raw = BoundedBody(made.raw, most, is_error=is_error, encoding=encoding)
        return made


class _Session(requests.Session):
    def merge_environment_settings(self, *args: Any, **more: Any) -> Any:
        found: Any = super().merge_environment_settings(*args, **more)
        return {**found, "proxies": {scheme: with_scheme(proxy or "") for scheme, proxy in found["proxies"].items()}}


class _TimedReader(socket.SocketIO):
    """Reads a response from a socket until it has taken `BODY_SECONDS`, or more than `HEAD_BYTES` of it are no content: interim responses,
    headers and trailers may go on for ever too. A single read is bounded by the time-out of the socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, "r")
        connection._io_refs += 1  # type: ignore[attr-defined]  # as socket.makefile does; `close` subtracts it
        self._until = time.monotonic() + _responses.BODY_SECONDS
        self._left = HEAD_BYTES

    def allow(self, count: int) -> None:
        """Let so many bytes be read from now on, and `HEAD_BYTES` beside them."""
        self._left = HEAD_BYTES + count

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self._until:
            raise too_slow()
        if self._left <= 0:
            raise too_much_beside()
        count = super().readinto(buffer)
        self._left -= count or 0
        return count


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self._reader: _TimedReader | None = None
        if isinstance(sock, socket.socket):  # urllib3 has an object of its own for TLS inside TLS
            self.fp.close()
            self._reader = _TimedReader(sock)
            self.fp = io.BufferedReader(self._reader)

    def read(self, amt: int | None = None) -> bytes:
        """See `http.client.HTTPResponse`."""
        self._allow(PAGE_BYTES if amt is None else _CHUNK_FACTOR * amt)
        return super().read(amt)

    def read1(self, n: int = -1) -> bytes:
        """See `http.client.HTTPResponse`: at most one chunk."""
        self._allow(max(n, _BLOCK))
        return super().read1(n)

    def _allow(self, count: int) -> None:
        if self._reader is not None:
            self._reader.allow(count)


def session(connections: int, *, has_pages: bool = False, stored: str | None = None, secret_query: str = "") -> requests.Session:
    """A session with bounded responses. Credentials in ~/.netrc are not sent.

    Args:
        connections: the number of idle connections that it keeps.
        has_pages: a GET requests a page of a listing and a POST deletes many keys, so their responses may have `PAGE_BYTES`.
        stored: a part of the URLs whose responses are stored content. Such a response may have a Content-Encoding, and is not decoded.
        secret_query: is added to the query of every request where the request line is written. So it is in no URL that requests and urllib3
            put into their errors and their log.
    """
    made = _Session()
    made.auth = _as_it_is
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter(connections, has_pages=has_pages, stored=stored, secret_query=secret_query))
    return made


def in_blocks(content: bytes) -> bytes | BinaryIO:
    """Content in memory as a body that is sent in blocks. As a whole it would have to be sent within the timeout for one block."""
    return io.BytesIO(content) if content else content


def _pool_of(pool: Any, query: str) -> Any:
    """A class of connection pools like this one, whose connections read responses within `BODY_SECONDS`, and add a query to the URL in the
    request line."""

    class Connection(pool.ConnectionCls):  # type: ignore[misc]
        response_class = _TimedResponse

        def putrequest(self, method: str, url: str, *args: Any, **more: Any) -> None:
            super().putrequest(method, f"{url}{'&' if '?' in url else '?'}{query}" if query else url, *args, **more)

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
