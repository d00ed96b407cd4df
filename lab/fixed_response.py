"""A server that answers every request alike."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

from .http_service import HttpService


class Refusing(HttpService):
    """A server that answers every request alike, and counts them."""

    def __init__(self, status: int, body: bytes = b"", **headers: str) -> None:
        #: Methods and request targets (RFC 9112, 3.2) of the requests.
        self.methods: list[str] = []
        self.targets: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(handler) -> None:  # noqa: N805
                handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                self.methods.append(handler.command)
                self.targets.append(handler.path)
                handler.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    handler.send_header(name, value)
                handler.end_headers()
                if handler.command != "HEAD":
                    handler.wfile.write(body)

            do_GET = do_POST = do_DELETE = do_HEAD = do_PUT  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler)
