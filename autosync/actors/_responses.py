"""Bounds for the size and the time of a server's response.

A server or proxy may send more than this host has memory for: an endless body, or a megabyte of gzip that becomes gigabytes. So every actor
requests content without compression, decodes nothing, and reads up to a bound. The text of an error response is cut at the bound. Any other
response that is longer is an error, also one whose interim responses or trailers are. In both cases the connection is closed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

#: The most bytes read of a page of a listing, or of a report on many keys: 1,000 keys of 1,024 bytes; XML may write a byte as six.
PAGE_BYTES = 64 << 20
#: The most bytes read of any other response.
BODY_BYTES = 1 << 20
#: The most bytes of a response, or of what arrives with a block of its body, that are no content: interim responses and headers, sizes of
#: chunks, trailers.
HEAD_BYTES = 64 << 10
#: How long the body of a response may take to arrive, in seconds. S3 may send spaces for minutes while it completes a multipart upload.
BODY_SECONDS = 900.0
#: A header of every request.
AS_IT_IS = {"Accept-Encoding": "identity"}
_BLOCK = 64 << 10


class ResponseError(OSError):
    """A response that is too long, too slow, or compressed."""


def too_long(most: int) -> ResponseError:
    """The error of a response with more than `most` bytes."""
    return ResponseError(f"the response is longer than {most >> 20} MiB, which is the most that is read of it")


def too_much_beside() -> ResponseError:
    """The error of a response with more than `HEAD_BYTES` that are no content."""
    return ResponseError(f"the response has more than {HEAD_BYTES >> 10} KiB beside its content, which is the most that is read of them")


def too_slow() -> ResponseError:
    """The error of a response that takes longer than `BODY_SECONDS`."""
    return ResponseError("the response does not come to its end")


def compressed(encoding: str) -> ResponseError:
    """The error of a response that has a Content-Encoding."""
    return ResponseError(f"the response is compressed ({encoding[:20]}), though the request was for content as it is")


def encoding_of(header: str | None) -> str:
    """The value of a Content-Encoding; "" if the content is not compressed."""
    found = (header or "").strip()
    return "" if found.lower() == "identity" else found


class BoundedBody:
    """The body of a urllib3 response as a bounded stream. It has the methods that requests, swiftclient and botocore call.

    Args:
        raw: the response, before any content was read.
        most: the most bytes that are read.
        is_error: the status is that of an error. Then a body that is too long is cut, and a compressed one is empty.
        encoding: how the content is compressed; "" if it is not, or if the caller accepts it.
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
        #: requests reads cookies from this attribute.
        self._original_response = getattr(raw, "_original_response", None)

    def read(self, amt: int | None = None, **_: object) -> bytes:
        """The next bytes.

        Args:
            amt: how many bytes at most; None for all that are left.

        Raises:
            ResponseError: the body is too long, compressed, or too slow.
        """
        return b"".join(self.stream()) if amt is None else self._gathered(amt)

    def stream(self, amt: int = _BLOCK, **_: object) -> Iterator[bytes]:
        """The rest of the body, in chunks of `amt` bytes. Raises as `read` does."""
        while data := self._gathered(amt):
            yield data

    def close(self) -> None:
        """Close the connection, unless the response was read to its end."""
        self._raw.close()

    def release_conn(self) -> None:
        """Give the connection back."""
        self._raw.release_conn()

    def _gathered(self, amt: int) -> bytes:
        """The next `amt` bytes; fewer only at the end. Callers keep a list of chunks, which for one-byte chunks would need much memory."""
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
