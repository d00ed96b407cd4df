"""Sessions of the library requests, for actors."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter

from ._responses import AS_IT_IS, BODY_BYTES, PAGE_BYTES, BoundedBody, encoding_of

#: Content is sent in blocks of this size, in bytes. Each block must be sent within the timeout for connecting (urllib3 uses that one for
#: sending too), also on a slow line that hundreds of files share.
_BLOCK = 64 << 10
_OK = range(200, 300)


class _Adapter(HTTPAdapter):
    def __init__(self, connections: int, *, has_pages: bool, stored: str | None, secret_query: str) -> None:
        self._secret_query = secret_query
        super().__init__(pool_connections=1, pool_maxsize=connections)
        self._large = ("GET", "POST") if has_pages else ()
        self._stored = stored

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, blocksize=_BLOCK)
        self._add_secret_query(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
        return self._add_secret_query(super().proxy_manager_for(*args, **more))

    def _add_secret_query(self, manager: Any) -> Any:
        if self._secret_query:
            pools = manager.pool_classes_by_scheme
            manager.pool_classes_by_scheme = {scheme: _pool_with_query(pools[scheme], self._secret_query) for scheme in pools}
        return manager

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


def session(connections: int, *, has_pages: bool = False, stored: str | None = None, secret_query: str = "") -> requests.Session:
    """A session with bounded responses. Credentials in ~/.netrc are not sent.

    Args:
        connections: the number of idle connections that it keeps.
        has_pages: a GET requests a page of a listing and a POST deletes many keys, so their responses may have `PAGE_BYTES`.
        stored: a part of the URLs whose responses are stored content. Such a response may have a Content-Encoding, and is not decoded.
        secret_query: is added to the query of every request where the request line is written. So it is in no URL that requests and urllib3
            put into their errors and their log.
    """
    made = requests.Session()
    made.auth = _as_it_is
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter(connections, has_pages=has_pages, stored=stored, secret_query=secret_query))
    return made


def in_blocks(content: bytes) -> bytes | BinaryIO:
    """Content in memory as a body that is sent in blocks. As a whole it would have to be sent within the timeout for one block."""
    return io.BytesIO(content) if content else content


def _pool_with_query(pool: Any, query: str) -> Any:
    """A class of connection pools like this one, whose connections add a query to the URL in the request line."""

    class Connection(pool.ConnectionCls):  # type: ignore[misc]
        def putrequest(self, method: str, url: str, *args: Any, **more: Any) -> None:
            super().putrequest(method, f"{url}{'&' if '?' in url else '?'}{query}", *args, **more)

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
