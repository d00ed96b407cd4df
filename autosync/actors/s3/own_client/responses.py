"""Responses of HTTP/1.1. One of the simplest form (a status, no body) is parsed here, and every other by http.client."""

from __future__ import annotations

import http.client
import io
import re
import socket
import time
from typing import Any, NamedTuple, cast

from ..._responses import BODY_BYTES, BODY_SECONDS, HEAD_BYTES, compressed, encoding_of, too_long, too_much_beside, too_slow

#: Buffer size for the body, in bytes.
_BODY_READ = 256 << 10
#: How many times as long a body may be on the line: a chunk of one byte takes six.
_CHUNK_FACTOR = 8
_END = b"\r\n\r\n"
#: Matches the head, in lower case, of a response without a body.
_EMPTY = re.compile(rb"\r\ncontent-length: *0 *\r\n")
#: Matches a head that has to be parsed by http.client.
_COMPLEX = re.compile(rb"\r\n(?:transfer-encoding|connection|upgrade):(?! *keep-alive *\r\n)")


class Response(NamedTuple):
    """A server's response.

    Attributes:
        status: the HTTP status code.
        text: the body.
        date: the header Date; "" if the response was so simple that its head was not parsed.
        etag: the header ETag; "" likewise.
    """

    status: int
    text: str
    date: str = ""
    etag: str = ""


def parse_empty(data: bytes) -> tuple[Response, bool] | None:
    """Parse a response that is complete, has no body, and leaves the connection open.

    Returns:
        The response, and True; None for any other response.
    """
    head = data.lower()
    if not head.startswith(b"http/1.1 2") or head.find(_END) != len(head) - len(_END) or _COMPLEX.search(head):
        return None
    status = int(head[9:12])
    return (Response(status, ""), True) if status == http.client.NO_CONTENT or _EMPTY.search(head) else None


def parse(connection: socket.socket, data: bytes, most: int) -> tuple[Response, bool]:
    """Parse any response with http.client. The text of an error is cut at the bound (see `_responses`).

    Args:
        connection: from which the rest is read.
        data: what was read of the response.
        most: the most bytes of the body to read.

    Returns:
        The response, and whether the connection may be used again.

    Raises:
        OSError: the connection broke, or the body is not read to its end (`ResponseError`).
        http.client.HTTPException: the response is not HTTP.
    """
    reader = _PartlyRead(connection, data)
    parser = http.client.HTTPResponse(cast(socket.socket, reader))
    try:
        parser.begin()
        is_error = not http.client.OK <= parser.status < http.client.MULTIPLE_CHOICES
        most = min(most, BODY_BYTES) if is_error else most
        body = _read_body(parser, reader, most)
        is_whole = len(body) <= most
        encoding = encoding_of(parser.headers.get("Content-Encoding")) if body else ""
        if encoding and not is_error:
            raise compressed(encoding)
        if not is_whole and not is_error:
            raise too_long(most)
        if is_whole and parser.length:  # http.client does not complain of missing bytes if it is called with a number
            raise http.client.IncompleteRead(bytes(body), parser.length)
        text = "" if encoding else body[:most].decode("utf-8", "surrogateescape")
        is_kept = is_whole and not parser.will_close
        return Response(parser.status, text, parser.headers.get("Date", ""), parser.headers.get("ETag", "")), is_kept
    finally:
        parser.close()


def _read_body(parser: http.client.HTTPResponse, reader: _PartlyRead, most: int) -> bytes | bytearray:
    """Read the body, up to one byte more than `most`.

    It is not read as a whole where it comes in chunks: http.client would keep an object for each, and a server may send one for each byte.
    """
    if parser.length is not None and parser.length <= most:
        reader.allow(parser.length)
        return parser.read(most + 1)
    body = bytearray()
    block = memoryview(bytearray(min(_BODY_READ, most + 1)))
    while len(body) <= most:
        wanted = block[: most + 1 - len(body)]
        reader.allow(_CHUNK_FACTOR * len(wanted))
        count = parser.readinto(wanted)
        if not count:
            break
        body += wanted[:count]
    return body


class _PartlyRead(io.RawIOBase):
    """A connection as http.client needs it, after some bytes were read from it already.

    Args:
        connection: the connection.
        data: the bytes that were read.
    """

    def __init__(self, connection: socket.socket, data: bytes) -> None:
        self._connection = connection
        self._data = data
        self._until = time.monotonic() + BODY_SECONDS
        self._left = HEAD_BYTES

    def allow(self, count: int) -> None:
        """Let so many bytes be read from now on, and `HEAD_BYTES` beside them."""
        self._left = HEAD_BYTES + count

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, _BODY_READ)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise too_much_beside()
        data = self._data[: len(buffer)] or self._connection.recv(len(buffer))
        self._left -= len(data)
        if time.monotonic() > self._until:
            raise too_slow()
        self._data = self._data[len(data) :]
        buffer[: len(data)] = data
        return len(data)
