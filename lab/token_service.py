"""A service that gives access tokens, and objects to those who have one: as much of Azure's and Google's as their actors need."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler

from .http_service import HttpService

#: What it gives.
TOKEN = "tOkEn"
_AZURE_PAGE = b"<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>"
_GOOGLE_PAGE = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


class TokenService(HttpService):
    """Gives tokens at `/token`; all else is a target that has no objects, and to which only the token leads.

    Args:
        status: of the responses to requests for tokens.
    """

    def __init__(self, status: int = 200) -> None:
        #: How many tokens were requested.
        self.tokens = 0
        self.status = status
        #: The response in place of a token.
        self.content: bytes | None = None
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path.startswith("/token"):
                    self._send(service.status, service._token())
                elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self._send(401, b"<Error><Code>AuthenticationFailed</Code></Error>")
                else:
                    self._send(200, _AZURE_PAGE if "comp=list" in self.path else _GOOGLE_PAGE)

            do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                if status in (301, 302, 307):
                    self.send_header("Location", f"{service.url}/token/elsewhere")
                self.send_header("Content-Type", "application/json" if body.startswith(b"{") else "application/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler)

    def _token(self) -> bytes:
        self.tokens += 1
        if self.content is not None:
            return self.content
        if self.status != 200:
            return json.dumps({"error": "invalid_grant", "error_description": "No.\nsEcReT"}).encode()
        token = {"access_token": TOKEN, "expires_in": 3600, "expires_on": "4000000000", "token_type": "Bearer", "resource": "x"}
        token |= {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
        return json.dumps(token).encode()
