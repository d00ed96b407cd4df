"""How much of a server's response is read, and for how long.

A server, or what stands between, may send more than this host has memory for: a body without an end, or a megabyte of gzip that becomes
gigabytes. So every actor asks for content as it is, decodes nothing, and reads up to a bound. An error is reported by its status, with as
much of its text as was read; any other response that is longer is an error. The connection is closed then: the rest is not waited for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

#: The most that is read of a page of a listing, in bytes; and of a report on many keys: 1,000 keys of 1,024 bytes, of which XML may make
#: six times as many, are more than the other bound.
PAGE_BYTES = 64 << 20
#: The most that is read of any other response, in bytes.
BODY_BYTES = 1 << 20
#: How long the body of a response may take to arrive, in seconds. S3 may write spaces for minutes while it makes an object of many parts.
BODY_SECONDS = 900.0
#: A header of every request.
AS_IT_IS = {"Accept-Encoding": "identity"}
_BLOCK = 64 << 10


class ResponseError(OSError):
    """A response that is not read to its end, or not at all."""


def too_long(most: int) -> ResponseError:
    """The error of a response that is longer than this many bytes."""
    return ResponseError(f"the response is longer than {most >> 20} MiB, which is the most that is read of it")


def too_slow() -> ResponseError:
    """The error of a response that has not come to its end in time."""
    return ResponseError("the response does not come to its end")


def compressed(encoding: str) -> ResponseError:
    """The error of a response that has a Content-Encoding."""
    return ResponseError(f"the response is compressed ({encoding[:20]}), though the request was for content as it is")


def encoding_of(header: str | None) -> str:
    """What a Content-Encoding says; "" if the content is as it is."""
    found = (header or "").strip()
    return "" if found.lower() == "identity" else found


class BoundedBody:
    """The body of one of urllib3's responses as a stream that ends. It has what requests, swiftclient and botocore use of urllib3's own.

    Args:
        raw: the response, of which no content was read.
        most: the number of bytes that are read.
        is_error: the status says that the request has failed: then a body that is too long is cut, and one that is compressed is empty.
        encoding: how the content is compressed; "" if it is not, or if that is the caller's business.
    """

    def __init__(self, raw: Any, most: int, *, is_error: bool, encoding: str) -> None:
        self._raw = raw
        #: As much as has arrived, at least a byte.
        self._read = raw.read1
        self._most = most
        self._left = most
        self._is_error = is_error
        self._encoding = encoding
        self._until = time.monotonic() + BODY_SECONDS
        self._is_cut = False
        #: Where requests looks for cookies.
        self._original_response = getattr(raw, "_original_response", None)

    def read(self, amt: int | None = None, **_: object) -> bytes:
        """The next bytes, up to so many; without a number, all that are left.

        Raises:
            ResponseError: there are too many, or they are compressed, or too slow.
        """
        return b"".join(self.stream()) if amt is None else self._gathered(amt)

    def stream(self, amt: int = _BLOCK, **_: object) -> Iterator[bytes]:
        """What is left, in pieces of so many bytes. Raises what `read` does."""
        while data := self._gathered(amt):
            yield data

    def close(self) -> None:
        """Close the connection, unless the response was read to its end."""
        self._raw.close()

    def release_conn(self) -> None:
        """Give the connection back."""
        self._raw.release_conn()

    def _gathered(self, amt: int) -> bytes:
        """So many bytes, fewer only at the end: the caller keeps each piece, and of a server that sends single bytes there would be as many
        pieces, each of which takes fifty times its size."""
        gathered = bytearray()
        while len(gathered) < amt and (data := self._next(amt - len(gathered))):
            gathered += data
        return bytes(gathered)

    def _next(self, amt: int) -> bytes:
        if self._is_cut:
            return b""
        data: bytes = self._read(min(amt, _BLOCK), decode_content=False)
        before, self._left = self._left, self._left - len(data)
        error = self._error_of(data)
        if error is None:
            return data
        self._is_cut = True
        self._raw.close()
        if not self._is_error:
            raise error
        return b"" if self._encoding else data[:before]

    def _error_of(self, data: bytes) -> ResponseError | None:
        if not data:
            return None
        if self._encoding:
            return compressed(self._encoding)
        if self._left < 0:
            return too_long(self._most)
        return too_slow() if time.monotonic() > self._until else None
