"""HTTP/1.1 (RFC 9112) for requests that fit in memory, one after the other on connections that are kept.

Libraries that can do all of HTTP take longer for it than for the rest of a small file together. What an answer says in the plainest form (a
status, no content) is read here, and any other by http.client.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import select
import socket
import ssl
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import urlsplit

from ..._responses import BODY_BYTES, BODY_SECONDS, compressed, encoding_of, too_long, too_slow

#: Content that does not fit in memory is read, and given to the socket, in so many bytes; 16 KiB, as others do, cost three times the CPU.
BLOCK = 256 << 10
#: How long a connection, and each part of an answer, is waited for, in seconds.
CONNECT_SECONDS, READ_SECONDS = 5, 60
#: A connection that nobody has used for so long is not used again, in seconds: servers close them after some time, unasked.
_LONGEST_IDLE = 15.0
#: Up to this size, content goes in one piece with the head, in bytes.
_TOGETHER = 64 << 10
_READ_AT_ONCE = 16 << 10
#: What an answer that has content is read with, in bytes.
_READ_MORE = 256 << 10
#: An answer that is asked for later than this after its request is late, in seconds; so long it is waited for in any case.
_SOON, _AT_LEAST = 1.0, 0.05
_END = b"\r\n\r\n"
#: What the head of an answer without content says, in small letters; and what may not be in it, to be read here.
_EMPTY = re.compile(rb"\r\ncontent-length: *0 *\r\n")
_MORE = re.compile(rb"\r\n(?:transfer-encoding|connection|upgrade):(?! *keep-alive *\r\n)")


#: How it shows that a server has closed a connection since it was used last.
_CLOSED_MEANWHILE = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, http.client.RemoteDisconnected)


#: Gives content out in blocks, each when it may go.
Paced = Callable[[bytes], Iterable[memoryview]]


class Response(NamedTuple):
    """What a server answered: the status, the content as text, and of its head, where it was read, the Date and the ETag."""

    status: int
    text: str
    date: str = ""
    etag: str = ""


class PendingRequest(NamedTuple):
    """A request that was sent, the connection that it was sent on, and when (monotonic); `is_kept`: one that had been used before."""

    line: socket.socket
    head: bytes
    content: bytes
    is_kept: bool
    when: float


class HttpConnectionPool:
    """Connections to one server. Safe to use from many threads.

    Args:
        url: of the server; only scheme, host and port matter.
        cert_path: of the file or directory with the certificates to trust.
        connect_seconds, read_seconds: how long to wait for a connection, and for each part of an answer.
    """

    def __init__(self, url: str, *, cert_path: str | None, connect_seconds: float, read_seconds: float) -> None:
        parts = urlsplit(url)
        self._tls = None
        if parts.scheme == "https":
            folder = bool(cert_path) and os.path.isdir(str(cert_path))
            self._tls = ssl.create_default_context(cafile=None if folder else cert_path, capath=cert_path if folder else None)
        self._host = str(parts.hostname)
        self._port = parts.port or (443 if self._tls else 80)
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._idle: deque[tuple[float, socket.socket]] = deque()
        weakref.finalize(self, _close_all, self._idle)

    def send_once(self, line: socket.socket, head: bytes, content: bytes = b"") -> PendingRequest:
        """Send one request on a new connection (see `connect`): so it is never sent again.

        Raises:
            OSError: the connection broke.
        """
        return PendingRequest(_sent(line, head, content, None), head, content, False, time.monotonic())

    def stream(self, head: bytes, content: BinaryIO) -> Response:
        """Send one request whose content is read meanwhile, and hear the answer. It is never sent again: who wants that has to read anew.

        Raises:
            OSError: the server could not be reached, or the connection broke.
            http.client.HTTPException: the answer is none.
        """
        line = self._open() or self.connect()
        with _closed_on_error(line):
            try:
                line.sendall(head)
                while block := content.read(BLOCK):
                    line.sendall(block)
            except (BrokenPipeError, ConnectionResetError):
                data = line.recv(_READ_AT_ONCE)  # a server may refuse before it has all, and say why
                if not data:
                    raise
                answer, _ = _read(line, data, BODY_BYTES)
                line.close()
                return answer
        return self._heard(PendingRequest(line, head, b"", False, time.monotonic()), BODY_BYTES, plain=False)

    def send(self, head: bytes, content: bytes = b"", paced: Paced | None = None) -> PendingRequest:
        """Send one request. Others may be sent before its answer is asked for; each has a connection of its own.

        Args:
            head: with the empty line at its end.
            content: the body.
            paced: lets it go, if it is large.

        Raises:
            OSError: the server could not be reached, or the connection broke.
        """
        while (kept := self._kept()) is not None:
            with suppress(*_CLOSED_MEANWHILE):
                return PendingRequest(_sent(kept, head, content, paced), head, content, True, time.monotonic())
        return PendingRequest(_sent(self.connect(), head, content, paced), head, content, False, time.monotonic())

    def answer(self, sent: PendingRequest, most: int = BODY_BYTES) -> Response:
        """The answer to a request, of which so many bytes are read. One that a kept connection swallowed is sent again on another, so it
        must do no harm twice. Bytes that are no text (UTF-8) become surrogates, as in names of files.

        Raises:
            OSError: the server could not be reached, or the connection broke, or the answer is not read to its end (`ResponseError`).
            http.client.HTTPException: the answer is none.
        """
        while sent.is_kept:
            with suppress(*_CLOSED_MEANWHILE):
                return self._heard(sent, most)
            sent = self.send(sent.head, sent.content)
        return self._heard(sent, most)

    def close(self) -> None:
        """Close the connections that are not in use."""
        _close_all(self._idle)

    def _kept(self) -> socket.socket | None:
        """The connection that was used last; those that stood idle for long go."""
        try:
            since, line = self._idle.pop()
        except IndexError:
            return None
        if time.monotonic() - since < _LONGEST_IDLE:
            return line
        line.close()
        self.close()
        return None

    def _open(self) -> socket.socket | None:
        """A kept connection that the server has not closed, as far as that can be known."""
        while (line := self._kept()) is not None:
            heard = select.poll()
            heard.register(line, select.POLLIN)
            if not heard.poll(0):
                return line
            line.close()
        return None

    def connect(self) -> socket.socket:
        """A new connection.

        Raises:
            OSError: the server cannot be reached.
        """
        line = socket.create_connection((self._host, self._port), self._connect_seconds)
        try:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is not None:
                line = self._tls.wrap_socket(line, server_hostname=self._host)
                line.settimeout(self._read_seconds)
                return line
            # The kernel keeps these times; for its own, Python would ask poll(2) before each call.
            line.settimeout(None)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                line.setsockopt(socket.SOL_SOCKET, option, _timeval(self._read_seconds))
        except BaseException:
            line.close()
            raise
        return line

    def _heard(self, sent: PendingRequest, most: int, *, plain: bool = True) -> Response:
        """The answer on this connection; `plain`: its head is of no interest."""
        line, late = sent.line, time.monotonic() - sent.when
        with _closed_on_error(line):
            if late > _SOON:  # others were waited for meanwhile: this one does not get as much once more
                self._wait_for(line, max(self._read_seconds - late, _AT_LEAST))
            data = line.recv(_READ_AT_ONCE)
            if not data:
                raise http.client.RemoteDisconnected("the server closed the connection without an answer")
            answer, stays = (_plain(data) if plain else None) or _read(line, data, most)
        if stays and late <= _SOON:
            self._idle.append((time.monotonic(), line))
        else:
            line.close()
        return answer

    def _wait_for(self, line: socket.socket, seconds: float) -> None:
        if self._tls is not None:
            line.settimeout(seconds)
        else:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))


def _timeval(seconds: float) -> bytes:
    """struct timeval."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def _close_all(idle: deque[tuple[float, socket.socket]]) -> None:
    with suppress(IndexError):
        while True:
            idle.pop()[1].close()


def _sent(line: socket.socket, head: bytes, content: bytes, paced: Paced | None) -> socket.socket:
    with _closed_on_error(line):
        if len(content) <= _TOGETHER:
            line.sendall(head + content)
        else:
            line.sendall(head)
            for block in paced(content) if paced else (content,):
                line.sendall(block)
    return line


class _closed_on_error:  # noqa: N801 - used like a function of contextlib's, on the way of every file
    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._line.close()
        if isinstance(error, BlockingIOError):
            raise TimeoutError("the server does not answer") from error


def _plain(data: bytes) -> tuple[Response, bool] | None:
    """What an answer says that is there as a whole and has no content, and that the connection stays. None: it is another."""
    head = data.lower()
    if not head.startswith(b"http/1.1 2") or head.find(_END) != len(head) - len(_END) or _MORE.search(head):
        return None
    status = int(head[9:12])
    return (Response(status, ""), True) if status == http.client.NO_CONTENT or _EMPTY.search(head) else None


def _read(line: socket.socket, data: bytes, most: int) -> tuple[Response, bool]:
    """What any answer says, and whether the connection stays. What an error says is cut behind so many bytes (see `_responses`)."""
    answer = http.client.HTTPResponse(cast(socket.socket, _Begun(line, data)))
    try:
        answer.begin()
        is_error = not http.client.OK <= answer.status < http.client.MULTIPLE_CHOICES
        most = min(most, BODY_BYTES) if is_error else most
        content = _content(answer, most)
        is_whole = len(content) <= most
        encoding = encoding_of(answer.headers.get("Content-Encoding")) if content else ""
        if encoding and not is_error:
            raise compressed(encoding)
        if not is_whole and not is_error:
            raise too_long(most)
        if is_whole and answer.length:  # read with a number of bytes, http.client does not mind that some are missing
            raise http.client.IncompleteRead(bytes(content), answer.length)
        text = "" if encoding else content[:most].decode("utf-8", "surrogateescape")
        stays = is_whole and not answer.will_close
        return Response(answer.status, text, answer.headers.get("Date", ""), answer.headers.get("ETag", "")), stays
    finally:
        answer.close()


def _content(answer: http.client.HTTPResponse, most: int) -> bytes | bytearray:
    """The body, of which up to one byte more is read than `most`. Of each chunk that it reads, http.client would keep an object of its own;
    a server may send as many as there are bytes."""
    if answer.length is not None and answer.length <= most:
        return answer.read(most + 1)
    content = bytearray()
    block = memoryview(bytearray(min(_READ_MORE, most + 1)))
    while len(content) <= most and (count := answer.readinto(block[: most + 1 - len(content)])):
        content += block[:count]
    return content


class _Begun(io.RawIOBase):
    """A connection of which something was read already, as http.client wants one."""

    def __init__(self, line: socket.socket, data: bytes) -> None:
        self._line = line
        self._data = data
        self._until = time.monotonic() + BODY_SECONDS

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, _READ_MORE)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data[: len(buffer)] or self._line.recv(len(buffer))
        if time.monotonic() > self._until:
            raise too_slow()
        self._data = self._data[len(data) :]
        buffer[: len(data)] = data
        return len(data)
