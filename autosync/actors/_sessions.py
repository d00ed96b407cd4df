"""Sessions of requests that send files."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter

#: Content is read, and given to the socket, in so many bytes. Each such block must leave within the time that it may take to connect
#: (urllib3 takes one for the other), also where a slow line is shared by hundreds of files.
_BLOCK = 64 << 10


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, blocksize=_BLOCK)


def session(connections: int) -> requests.Session:
    """A session which keeps so many connections, and says of itself only what it is told to: what ~/.netrc has for a server is not sent."""
    made = requests.Session()
    made.auth = _as_it_is
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter(pool_connections=1, pool_maxsize=connections))
    return made


def in_blocks(content: bytes) -> bytes | BinaryIO:
    """Content that is in memory as a body which is sent in blocks: as a whole it would have the time of one."""
    return io.BytesIO(content) if content else content


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
