"""A server for `--actor http`: the API of docs/targets/http.md in one file, as an example or a start.

    pip install http-message-signatures
    python media_server.py --directory /srv/media --secret @/etc/media-secret --port 8080

It checks the signature of every request, accepts none twice, and lists a file only when its whole content has arrived and the digest
matches. An SQLite database has the exact keys. The content is in files whose names the server makes, so no key leads out of the directory.
It speaks plain HTTP: put a TLS proxy in front of it that leaves Host and the path unchanged, and give that Host with --name.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, InvalidSignature, algorithms
from http_message_signatures.exceptions import HTTPMessageSignaturesException

TAG = "autosync"
COVERED = ("@method", "@authority", "@path", "@query")
COVERED_CONTENT = ("content-digest", "content-length", "content-type")
#: How long a request may take to arrive, and how far the clocks of both sides may differ.
WINDOW = datetime.timedelta(minutes=5)
SKEW = datetime.timedelta(minutes=1)
#: How long a nonce is stored, in seconds: a signature is valid from SKEW before its `created` until WINDOW and SKEW after it.
REMEMBERED = (WINDOW + 2 * SKEW).total_seconds() + 1
BLOCK = 1 << 20
#: The most bytes read of the body of a refused request, so that the client can read the response.
MOST_IGNORED = 16 << 20

TABLES = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS files (key BLOB PRIMARY KEY, size INTEGER, mtime REAL, digest TEXT, name TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nonces (nonce TEXT PRIMARY KEY, until REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nonces_until ON nonces (until);
"""


class Refused(Exception):
    """A request that is refused, with the HTTP status of the response."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class SharedKeyResolver(HTTPSignatureKeyResolver):
    def __init__(self, secret: bytes) -> None:
        self.secret = secret

    def resolve_public_key(self, key_id: str) -> bytes:
        return self.secret

    def resolve_private_key(self, key_id: str) -> bytes:
        return self.secret


class Store:
    """The files by key, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.content = directory / "content"
        self.content.mkdir(parents=True, exist_ok=True)
        self._directory = os.open(self.content, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)  # otherwise uploads of another server would be removed below
        self._path = directory / "files.sqlite"
        self._local = threading.local()
        self.database().executescript(TABLES)
        referenced = {name for (name,) in self.database().execute("SELECT name FROM files")}
        for path in self.content.iterdir():
            if path.name not in referenced:
                path.unlink()  # the server was killed during its upload

    def database(self) -> sqlite3.Connection:
        """The connection of this thread."""
        if not hasattr(self._local, "database"):
            self._local.database = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            # A nonce must be on the disk not later than the change that its request makes; the later entries of the log see to that.
            self._local.database.execute("PRAGMA synchronous = NORMAL")
        return self._local.database

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk after the with-block."""
        database = self.database()
        database.execute("PRAGMA synchronous = FULL")
        try:
            with database:
                database.execute("BEGIN IMMEDIATE")
                yield database
        finally:
            database.execute("PRAGMA synchronous = NORMAL")

    def is_new_nonce(self, nonce: str) -> bool:
        """Store a nonce. Returns whether it is new."""
        now = time.time()
        with self.database() as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("DELETE FROM nonces WHERE until < ?", (now,))
            return database.execute("INSERT OR IGNORE INTO nonces VALUES (?, ?)", (nonce, now + REMEMBERED)).rowcount == 1

    def page(self, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, int, float, str]]:
        """The files whose key begins with the prefix and follows `after`, in the order of bytes."""
        rows = self.database().execute(
            "SELECT key, size, mtime, digest FROM files WHERE key > ? AND key >= ? ORDER BY key LIMIT ?", (after, prefix, limit)
        )
        return [row for row in rows if row[0].startswith(prefix)]

    def put(self, key: bytes, size: int, digest: str, name: str) -> None:
        os.fsync(self._directory)  # the name must be on the disk before the database refers to it
        with self.changing() as database:
            old = database.execute("SELECT name FROM files WHERE key = ?", (key,)).fetchone()
            database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (key, size, time.time(), digest, name))
        self._drop(old)

    def delete(self, key: bytes) -> bool:
        with self.changing() as database:
            old = database.execute("SELECT name FROM files WHERE key = ?", (key,)).fetchone()
            database.execute("DELETE FROM files WHERE key = ?", (key,))
        self._drop(old)
        return old is not None

    def _drop(self, old: tuple[str] | None) -> None:
        if old:
            with suppress(OSError):  # the next start removes it
                (self.content / old[0]).unlink()


class Message:
    """A request in the form that the verifier expects."""

    def __init__(self, handler: Handler) -> None:
        self.method = handler.command
        self.headers = handler.headers
        self.url = f"http://{handler.headers.get('Host', '')}{handler.target}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 60
    disable_nagle_algorithm = True  # head and body of a response are sent one after the other, and the body would wait for 40 ms

    def do_GET(self) -> None:
        self.respond(self.list)

    def do_PUT(self) -> None:
        self.respond(self.upload)

    def do_DELETE(self) -> None:
        self.respond(self.delete)

    def respond(self, act: object) -> None:
        self.left = 0
        self.target = self.requestline.split()[1]  # as it was signed; in `path` several slashes at the beginning are one
        try:
            self.left = self.length()
            self.verify()
            status, content = act()  # type: ignore[operator]
        except Refused as refused:
            status, content = refused.status, {"title": "refused", "status": refused.status, "detail": str(refused)}
        except (OSError, sqlite3.Error) as error:
            print(f"{self.command} {self.target}: {error}", file=sys.stderr, flush=True)
            if isinstance(error, ConnectionError | TimeoutError):
                raise  # the client is gone
            status, content = 507, {"title": "failed", "status": 507, "detail": "the server cannot keep files at the moment"}
        self.skip_body()
        body = json.dumps(content).encode() if content is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def length(self) -> int:
        """The length of the body in bytes. If it is not clear, the start of the next request is unknown (RFC 9112, 6.3)."""
        lengths = set(self.headers.get_all("Content-Length", []))
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise Refused(411, "Content-Length is missing")
        if len(lengths) > 1 or not all(one.isascii() and one.isdigit() for one in lengths):
            self.close_connection = True
            raise Refused(400, "Content-Length is no number")
        return int(lengths.pop()) if lengths else 0

    # Authentication

    def verify(self) -> None:
        """Check that a client with the secret has signed this request, lately, and that the request is not a repetition."""
        has_content = self.command == "PUT"
        if has_content and "Content-Length" not in self.headers:
            raise Refused(411, "Content-Length is missing")
        try:
            (found,) = self.server.verifier.verify(
                Message(self), max_age=WINDOW, expect_tag=TAG, require_components=COVERED + (COVERED_CONTENT if has_content else ())
            )
        except (InvalidSignature, HTTPMessageSignaturesException, ValueError) as error:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            raise Refused(401, f"{error or type(error).__name__} (it is {now} here)") from error
        name = found.covered_components['"@authority"']
        if name not in self.server.names:
            raise Refused(401, f"the request is for {name}; this is {' or '.join(sorted(self.server.names))} (--name)")
        nonce = found.parameters.get("nonce")
        if not nonce or "expires" not in found.parameters:
            raise Refused(401, "the signature has no nonce or does not expire")
        if not self.server.store.is_new_nonce(str(nonce)):
            raise Refused(401, "this request was here before")

    # Requests

    def list(self) -> tuple[int, object]:
        """A page of the listing."""
        parts = urlsplit(f"http://h{self.target}")
        if parts.path != (self.server.base or "/"):
            raise Refused(404, f"files are listed at {self.server.base}")
        try:
            query = parse_qs(parts.query, errors="strict")
            prefix = query.get("prefix", [""])[0].encode()
            limit = max(1, min(int(query.get("limit", ["1000"])[0]), self.server.most))
            after = base64.b64decode(query.get("after", [""])[0], b"-_", validate=True)
        except ValueError as error:
            raise Refused(400, f"the query is not understood: {error}") from error
        rows = self.server.store.page(prefix, after, limit)
        more = base64.urlsafe_b64encode(rows[-1][0]).decode() if len(rows) == limit else None
        files = [{"key": key.decode(), "size": size, "mtime": mtime, "digest": digest} for key, size, mtime, digest in rows]
        if self.server.plain:
            files = [{"key": one["key"], "size": one["size"]} for one in reversed(files)]
        return 200, {"files": files, "next": more, "sorted": not self.server.plain}

    def upload(self) -> tuple[int, object]:
        """Store the content under its key, once all of it has arrived."""
        key, wanted = self.key(), self.headers["Content-Digest"]
        name, digest, size = secrets.token_hex(16), hashlib.sha256(), self.left
        try:
            with open(self.server.store.content / name, "xb") as file:
                while self.left:
                    block = self.rfile.read(min(BLOCK, self.left))
                    if not block:
                        raise Refused(400, "the content is shorter than Content-Length")
                    self.left -= len(block)
                    digest.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            found = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
            if not hmac.compare_digest(found, wanted):
                raise Refused(400, f"the content does not fit Content-Digest: its own is {found}")
            self.server.store.put(key, size, found, name)
        except BaseException:
            (self.server.store.content / name).unlink(missing_ok=True)
            raise
        return 201, None

    def delete(self) -> tuple[int, object]:
        """Delete a key."""
        self.server.store.delete(self.key())
        return 204, None

    def key(self) -> bytes:
        path = urlsplit(f"http://h{self.target}").path
        if not path.startswith(self.server.base + "/"):
            raise Refused(404, f"files are below {self.server.base}/")
        try:
            key = unquote(path[len(self.server.base) + 1 :], errors="strict").encode()
        except UnicodeDecodeError as error:
            raise Refused(400, "the key is not UTF-8") from error
        if not key:
            raise Refused(400, "the key is empty")
        return key

    def skip_body(self) -> None:
        """Read the rest of the body, which would otherwise be read as the next request."""
        if self.left > MOST_IGNORED:
            self.close_connection = True
            return
        while self.left and (block := self.rfile.read(min(BLOCK, self.left))):
            self.left -= len(block)

    def log_message(self, format: str, *args: object) -> None:
        if self.server.is_verbose:
            super().log_message(format, *args)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__((options.address, options.port), Handler)
        self.store = Store(options.directory)
        self.base = options.base.rstrip("/")
        self.most = options.page
        self.plain = options.plain
        self.is_verbose = options.verbose
        self.names = {name.lower() for name in options.name} or {f"{options.address}:{self.server_address[1]}"}
        self.verifier = HTTPMessageVerifier(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=SharedKeyResolver(options.secret))
        self.verifier.max_clock_skew = SKEW

    def handle_error(self, request: object, address: object) -> None:
        """A client that has closed its connection is no error."""


def secret(text: str) -> bytes:
    return Path(text[1:]).read_bytes().strip() if text.startswith("@") else text.encode()


def main() -> None:
    parser = argparse.ArgumentParser(description="Stores the files that `autosync --actor http` sends.")
    parser.add_argument("--directory", type=Path, required=True, help="where to store files")
    parser.add_argument("--secret", type=secret, required=True, help="secret for signatures; @FILE: the content of a file")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0: any free port")
    parser.add_argument("--name", action="append", default=[], metavar="HOST[:PORT]", help="as in --url; default: ADDRESS:PORT")
    parser.add_argument("--base", default="/api/v1/media_file", help="path of the API")
    parser.add_argument("--page", type=int, default=1000, help="files on a page of the listing, at most")
    parser.add_argument("--plain", action="store_true", help="list without order, times and digests, as a simpler server would")
    parser.add_argument("--verbose", action="store_true", help="a line for each request")
    server = Server(parser.parse_args())
    print(f"http://{server.server_address[0]}:{server.server_address[1]}{server.base}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
