"""Sessions of requests that send files."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter

from ._responses import AS_IT_IS, BODY_BYTES, PAGE_BYTES, BoundedBody, encoding_of

#: Content is read, and given to the socket, in so many bytes. Each such block must leave within the time that it may take to connect
#: (urllib3 takes one for the other), also where a slow line is shared by hundreds of files.
_BLOCK = 64 << 10
_OK = range(200, 300)


class _Adapter(HTTPAdapter):
    def __init__(self, connections: int, *, has_pages: bool, stored: str | None) -> None:
        super().__init__(pool_connections=1, pool_maxsize=connections)
        self._large = ("GET", "POST") if has_pages else ()
        self._stored = stored

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, blocksize=_BLOCK)

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        request.headers.update(AS_IT_IS)  # swiftclient asks for gzip

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        made = super().build_response(req, resp)
        is_error = made.status_code not in _OK
        most = PAGE_BYTES if req.method in self._large and not is_error else BODY_BYTES
        is_stored = self._stored is not None and self._stored in made.url
        encoding = "" if is_stored and not is_error else encoding_of(made.headers.get("Content-Encoding"))
        made.raw = BoundedBody(made.raw, most, is_error=is_error, encoding=encoding)
        return made


def session(connections: int, *, has_pages: bool = False, stored: str | None = None) -> requests.Session:
    """A session that says of itself only what it is told to: what ~/.netrc has for a server is not sent.

    Args:
        connections: so many are kept.
        has_pages: a GET asks for a page of a listing, and a POST has many keys deleted: their responses may be as long as a page.
        stored: stands in the URL of what is read as it is stored: its Content-Encoding was given to it with its content.
    """
    made = requests.Session()
    made.auth = _as_it_is
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter(connections, has_pages=has_pages, stored=stored))
    return made


def in_blocks(content: bytes) -> bytes | BinaryIO:
    """Content that is in memory as a body which is sent in blocks: as a whole it would have the time of one."""
    return io.BytesIO(content) if content else content


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
