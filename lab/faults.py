"""A proxy in front of an S3 server that does to requests what networks and servers do: it delays, cuts, refuses and answers with errors.

It passes on every byte as it came, but for the two headers that are about the connection (Host stays, so that signatures are right). Each
request has a connection of its own. It counts what it did, so that a test can check whether the fault that it is about has happened.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

from .ports import free_port

_CHUNK = 1 << 16


@dataclass
class Request:
    """One request that came, `began` and `ended` on the monotonic clock; `ended` is 0 while it is in flight, `status` until it is answered
    (-1: it was cut)."""

    number: int
    method: str
    path: str
    key: str
    upload: str
    length: int
    began: float
    passed: int = 0
    status: int = 0
    ended: float = 0.0

    @property
    def is_small(self) -> bool:
        """Whether it carries a whole object."""
        return self.method == "PUT" and not self.upload

    @property
    def is_change(self) -> bool:
        """Whether it changes the object, or is a part of what will. An upload in parts that is aborted leaves the object as it is."""
        kinds = {"PUT": True, "POST": bool(self.upload), "DELETE": not self.upload}  # of POST, only the one that completes an upload
        return bool(self.key) and kinds.get(self.method, False)

    @property
    def transfer(self) -> str:
        """The same value for all requests of one multipart upload; another one for each other request."""
        return self.upload or str(self.number)


class Proxy:
    """Stands in front of the server at `upstream` for the length of a with-block; the attributes may be changed at any time.

    Args:
        upstream: the server's URL.
        address: of this host, at which it listens.
    """

    def __init__(self, upstream: str, address: str = "127.0.0.1") -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._at = (address, free_port())
        self.url = f"http://{address}:{self._at[1]}"
        #: The speed of each PUT, in bytes a second; None: as fast as it goes.
        self.speed: float | None = None
        #: The part of the requests that is answered with 500 or 503, in turns.
        self.errors = 0.0
        #: Whether every request is answered with 503 SlowDown.
        self.overloaded = False
        #: So many PUTs of whole objects, and of parts, are yet to be cut in the middle.
        self.cut_small = self.cut_parts = 0
        #: Responses to requests whose path contains this text are delayed as long as it is set; "" for none.
        self.hold = ""
        #: What was done: "500", "503", "cut small", "cut part", "gone" (the client went away in the middle of a PUT).
        self.counts: Counter[str] = Counter()
        self.requests: list[Request] = []
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._dice = random.Random(1)

    def __enter__(self) -> Proxy:
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.refuse()

    # For tests

    def listen(self) -> None:
        """Take requests, again after `refuse`."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHUNK)  # so that the client notices how slow the proxy is
        listener.bind(self._at)
        listener.listen(512)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="proxy", daemon=True).start()

    def refuse(self) -> None:
        """Refuse connections from now on, and break those that there are."""
        listener, self._listener = self._listener, None
        if listener:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            open_now = list(self._open)
        for one in open_now:
            _break(one)

    def in_flight(self, key: str = "") -> list[Request]:
        """The PUTs, of this key or of all, whose content is on its way: some of it was passed on, and some was not."""
        with self._lock:
            return [
                one
                for one in self.requests
                if one.method == "PUT" and not one.ended and 0 < one.passed < one.length and key in ("", one.key)
            ]

    def overlaps(self) -> list[tuple[Request, Request]]:
        """Pairs of changes of one key that the server did at the same time and that were not parts of one upload."""
        with self._lock:
            done = [one for one in self.requests if one.is_change and one.status // 100 == 2]
        found = []
        for number, one in enumerate(done):
            for other in done[number + 1 :]:
                apart = 0 < one.ended <= other.began or 0 < other.ended <= one.began
                if one.key == other.key and one.transfer != other.transfer and not apart:
                    found.append((one, other))
        return found

    def most_at_once(self) -> int:
        """How many transfers were in flight at the same time, at most. Parts of one upload are one."""
        with self._lock:
            changes = [(one.began, one.ended or time.monotonic(), one.transfer) for one in self.requests if one.is_change]
        spans: dict[str, tuple[float, float]] = {}
        for began, ended, transfer in changes:
            first, last = spans.get(transfer, (began, ended))
            spans[transfer] = min(first, began), max(last, ended)
        moments = sorted([(began, 1) for began, _ in spans.values()] + [(ended, -1) for _, ended in spans.values()])
        return max(accumulate((step for _, step in moments), initial=0))

    # One connection

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="proxy-request", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._tracked(client), contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(_CHUNK)
                if not data:
                    return
                head += data
            head, _, body = head.partition(b"\r\n\r\n")
            request = self._note(head)
            try:
                if b"\nexpect: 100-continue" in head.lower():
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._handle(client, request, head, body)
            finally:
                if request.method == "PUT" and request.passed < request.length and not request.status:
                    self.counts["gone"] += 1
                request.ended = request.ended or time.monotonic()

    def _note(self, head: bytes) -> Request:
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        parts = urlsplit(target)
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        upload = parse_qs(parts.query).get("uploadId", [""])[0]
        with self._lock:
            number = len(self.requests)
            request = Request(number, method, target, key, upload, int(fields.get("content-length", 0)), time.monotonic())
            self.requests.append(request)
        return request

    def _handle(self, client: socket.socket, request: Request, head: bytes, body: bytes) -> None:
        error = self._error()
        if error:
            while len(body) < request.length:
                data = client.recv(_CHUNK)
                if not data:
                    return
                body += data
            self.counts[str(error)] += 1
            request.status = error
            client.sendall(_error_response(error))
            return
        stop_at = self._cut(request)
        with socket.create_connection(self._upstream) as server, self._tracked(server):
            server.settimeout(None)
            kept = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"expect:"))]
            server.sendall(b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n")
            while True:
                if stop_at is not None and request.passed + len(body) >= stop_at:
                    server.sendall(body[: stop_at - request.passed])
                    self.counts["cut small" if request.is_small else "cut part"] += 1
                    request.status = -1
                    _break(server)
                    _break(client)
                    return
                server.sendall(body)
                request.passed += len(body)
                if request.passed >= request.length:
                    break
                if self.speed and request.method == "PUT":
                    time.sleep(len(body) / self.speed)
                body = client.recv(_CHUNK)
                if not body:
                    _break(server)
                    return
            self._forward_response(client, server, request)

    def _forward_response(self, client: socket.socket, server: socket.socket, request: Request) -> None:
        """Pass the answer on; the server closes the connection behind it, so this ends."""
        first = True
        while data := server.recv(_CHUNK):
            if first:
                request.ended = time.monotonic()  # the client may act on the answer before the rest of this has run
                request.status = int(data.split(b" ", 2)[1])  # now `overlaps` takes it for done
                first = False
                while self.hold and self.hold in request.path:
                    time.sleep(0.01)
                if b"\r\nconnection:" not in data.lower():  # not every server sends this header, and a client must not reuse the connection
                    data = data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            client.sendall(data)

    def _error(self) -> int:
        if self.overloaded:
            return 503
        with self._lock:
            if self._dice.random() >= self.errors:
                return 0
            return 503 if self.counts["500"] > self.counts["503"] else 500

    def _cut(self, request: Request) -> int | None:
        """After how many bytes to cut this one; None: not at all."""
        if request.method != "PUT" or request.length < 2:
            return None
        with self._lock:
            if request.is_small and self.cut_small:
                self.cut_small -= 1
            elif not request.is_small and self.cut_parts:
                self.cut_parts -= 1
            else:
                return None
        return request.length // 2

    @contextlib.contextmanager
    def _tracked(self, one: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(one)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(one)
            one.close()


def _break(one: socket.socket) -> None:
    """End a connection with a reset, as a network that goes away does."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def _error_response(status: int) -> bytes:
    code = {500: "InternalError", 503: "SlowDown"}[status]
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>made up</Message></Error>'.encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
