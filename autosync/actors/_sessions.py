"""Sessions of requests that send files."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

#: Content is read, and given to the socket, in so many bytes.
_BLOCK = 256 << 10


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


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
