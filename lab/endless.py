"""A server whose responses have no end, or become a thousand times as large, or take for ever."""

from __future__ import annotations

import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .http_service import HttpService

_BLOCK = bytes(1 << 16)
#: Bytes of an endless body, which ends after all: a client that reads them all has no bound.
_GIVES_UP = 256 << 20
_BOMB_BLOCKS, _BOMB_BLOCK = 256, 1 << 20
_CRUMBS = 128 << 10
#: Every so many seconds a byte, so many times.
_PAUSE, _BYTES = 0.05, 600


def bomb() -> bytes:
    """256 MiB of zeros as a quarter of a MiB of gzip; only its checksum is wrong, which shows at the end."""
    pack = zlib.compressobj(9, wbits=31)
    block = pack.compress(bytes(_BOMB_BLOCK)) + pack.flush(zlib.Z_FULL_FLUSH)
    again = pack.compress(bytes(_BOMB_BLOCK)) + pack.flush(zlib.Z_FULL_FLUSH)
    return block + again * (_BOMB_BLOCKS - 1) + pack.flush()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """That a client closes its connection is what it is here for."""


class Endless(HttpService):
    """A server that answers every request alike, but for those to `/auth`, which are logins to a Swift of version 1.

    Args:
        status: of every response.
        shape: of its body: `chunked`, `crumbs` (128 KiB in chunks of two bytes each), `long` (it has a length), `until closed` (it has
            none), `gzip`, or `slow`.
    """

    def __init__(self, status: int, shape: str) -> None:
        #: Methods of the requests, the values of Accept-Encoding in them, and the bytes sent of each body.
        self.methods: list[str] = []
        self.accepted: set[str | None] = set()
        self.sent: list[int] = []
        #: How many bodies were sent to their end.
        self.ended = 0
        self._sending = 0
        self._closing = threading.Event()
        content = bomb() if shape == "gzip" else b""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                server._sending += 1
                try:
                    self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    server.accepted.add(self.headers.get("Accept-Encoding"))
                    if self.path.startswith("/auth"):
                        self._login()
                    else:
                        server.methods.append(self.command)
                        self._send()
                except OSError:
                    self.close_connection = True
                finally:
                    server._sending -= 1

            do_GET = do_POST = do_DELETE = do_HEAD = do_PUT  # noqa: N815

            def _login(self) -> None:
                self.send_response(200)
                for name, value in {"X-Auth-Token": "t", "X-Storage-Url": f"{server.url}/v1/AUTH_a", "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

            def _send(self) -> None:
                head = {
                    "chunked": {"Transfer-Encoding": "chunked"},
                    "crumbs": {"Transfer-Encoding": "chunked"},
                    "long": {"Content-Length": str(1 << 40)},
                    "slow": {"Content-Length": str(1 << 40)},
                    "until closed": {"Connection": "close"},
                    "gzip": {"Content-Encoding": "gzip", "Content-Length": str(len(content))},
                }[shape]
                self.send_response(status)
                for name, value in head.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                number = len(server.sent)
                server.sent.append(0)
                if shape == "gzip":
                    self.wfile.write(content)
                    return
                self.close_connection = True
                if shape == "crumbs":
                    for _ in range(_CRUMBS // 1024):
                        self.wfile.write(b"2\r\n\0\0\r\n" * 512)
                        server.sent[number] += 1024
                    self.wfile.write(b"0\r\n\r\n")
                    return
                for _ in range(_BYTES if shape == "slow" else _GIVES_UP // len(_BLOCK)):
                    if server._closing.wait(_PAUSE if shape == "slow" else 0):
                        return
                    data = _BLOCK[:1] if shape == "slow" else _BLOCK
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if shape == "chunked" else data)
                    server.sent[number] += len(data)
                server.ended += 1

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler, _Server)

    def is_quiet(self) -> bool:
        """Whether no response is being sent."""
        return not self._sending

    def close(self) -> None:
        """End it."""
        self._closing.set()
        super().close()
