"""An HTTP proxy between this host and the server.

A request for an http:// URL goes to the proxy with the whole URL as its target (RFC 9112, 3.2.2). For an https:// URL the proxy opens a
tunnel to the server (RFC 9110, 9.3.6), and TLS with the server is inside the tunnel.
"""

from __future__ import annotations

import base64
import re
import socket
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Self
from urllib.parse import unquote_to_bytes, urlsplit

from ..._proxies import CREDENTIALS_WANTED

#: How long the proxy may take to open a tunnel, in seconds. It may have to check a password, and to connect.
TUNNEL_SECONDS = 30.0
#: The most bytes that are read of its responses.
_HEAD_BYTES = 16 << 10
_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?![0-9])")
#: The shortest time-out of a read, in seconds.
_AT_LEAST = 0.05
_PORTS = {"http": 80, "https": 443}
#: The statuses by which a proxy wants other credentials: that of RFC 9110, 15.5.8, and tinyproxy's where the password is wrong.
WANTS_CREDENTIALS = {407, 401}


class ProxyError(OSError):
    """The proxy cannot be reached, or does not connect to the server."""


class ProxyRefused(ProxyError):  # noqa: N818 - it becomes a `TargetRefused`
    """The proxy cannot be used as the environment describes it."""


@dataclass(frozen=True)
class Proxy:
    """A proxy.

    Attributes:
        host: the proxy's name or address.
        port: the proxy's TCP port.
        is_tls: whether it is connected to by TLS.
        authorization: the header line Proxy-Authorization with its end; "" for none.
    """

    host: str
    port: int
    is_tls: bool
    authorization: str = field(default="", repr=False)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The proxy at a URL. Without a scheme it is http://, as in botocore.

        Raises:
            ProxyRefused: it is not the URL of an HTTP proxy. The error does not contain the URL, which may have a password in it.
        """
        if "://" not in url:
            url = f"http://{url.removeprefix('//')}"
        try:
            parts = urlsplit(url)
            usual = _PORTS[parts.scheme]
            port = parts.port or usual
        except (KeyError, ValueError):
            parts, port = urlsplit(""), 0
        if not parts.hostname:
            raise ProxyRefused("the URL of the proxy is not one of an HTTP proxy")
        authorization = ""
        if parts.username is not None:
            user_and_password = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
            authorization = f"proxy-authorization:Basic {base64.b64encode(user_and_password).decode()}\r\n"
        return cls(parts.hostname, port, parts.scheme == "https", authorization)

    def __str__(self) -> str:
        """Its URL without user and password."""
        return f"{'https' if self.is_tls else 'http'}://{authority(self.host, self.port)}"

    def open_tunnel(self, connection: socket.socket, host: str, port: int) -> None:
        """Have the proxy connect to a server; afterwards the connection leads there.

        Args:
            connection: a connection to the proxy.
            host: the server's name or address.
            port: the server's port.

        Raises:
            ProxyRefused: the proxy wants other credentials.
            OSError: it does not connect, or the connection broke.
        """
        server = authority(host, port)
        connection.sendall(f"CONNECT {server} HTTP/1.1\r\nhost:{server}\r\nuser-agent:autosync\r\n{self.authorization}\r\n".encode())
        status = _read_status(connection, time.monotonic() + TUNNEL_SECONDS)
        if status in WANTS_CREDENTIALS:
            raise ProxyRefused(CREDENTIALS_WANTED)
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            phrase = f" {HTTPStatus(status).phrase}" if status in {*HTTPStatus} else ""
            raise ProxyError(f"{status}{phrase} instead of a connection to {server}")


def authority(host: str, port: int | None) -> str:
    """Host and port as they are in a URL; without a port where there is none."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _read_status(connection: socket.socket, until: float) -> int:
    """Read the response to CONNECT, and interim responses before it. Returns the status.

    Args:
        connection: a connection to the proxy.
        until: when the response has to be there, by the monotonic clock.
    """
    data, total = bytearray(), 0
    while True:
        end = _END.search(data)
        if end is not None:
            status = _status_of(data)
            if status >= HTTPStatus.OK:
                break
            del data[: end.end()]
            continue
        connection.settimeout(max(until - time.monotonic(), _AT_LEAST))
        more = connection.recv(_HEAD_BYTES)
        total += len(more)
        if not more:
            raise ProxyError("it closed the connection without a response")
        if total > _HEAD_BYTES:
            raise ProxyError(f"its response is longer than {_HEAD_BYTES >> 10} KiB")
        if time.monotonic() > until:
            raise ProxyError("its response does not come to its end")
        data += more
    if status < HTTPStatus.MULTIPLE_CHOICES and end.end() < len(data):
        raise ProxyError("it sends something before the server does")
    return status


def _status_of(data: bytearray) -> int:
    found = _STATUS.match(data)
    if found is None:
        raise ProxyError("its response is not HTTP")
    return int(found[1])
