"""Requests for the objects of one bucket: small objects, pages of listings, and the requests of multipart uploads."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from html import unescape
from typing import BinaryIO, NamedTuple, TypeVar
from xml.sax.saxutils import escape

from ....errors import PermanentError, TargetError
from ..._clock import seconds_ahead
from ..._multipart import NothingSent
from ..._responses import PAGE_BYTES
from ..errors import error_from_code, error_from_proxy, translated
from ..headers import ObjectHeaders
from .http import HttpConnectionPool, PendingRequest, Throttle
from .list_page import page_query
from .proxy import Proxy, ProxyRefused
from .responses import Response
from .sigv4 import DELETE_QUERY, RequestSigner

_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_ERROR = re.compile(r"<Error>(.*?)</Error>", re.DOTALL)
_KEY = re.compile(r"<Key>([^<]*)</Key>")
_OK, _NOT_FOUND = range(200, 300), 404


T = TypeVar("T")


def with_retry(send: Callable[[], T]) -> T:
    """Send a request again if it fails: servers fail now and then.

    Raises:
        TargetError: the second one failed, or the first one failed for good.
    """
    try:
        return send()
    except PermanentError:
        raise
    except TargetError:
        return send()


class PendingPut(NamedTuple):
    """An object that is being sent.

    Attributes:
        key: the object's key.
        request: whose response was not read.
    """

    key: str
    request: PendingRequest


class ObjectRequests:
    """Sends signed requests for one bucket.

    Args:
        pool: connections to its server.
        signer: signs the requests.
        server: name of the server in error messages.
        proxy: that forwards the requests; None for none.
    """

    def __init__(self, pool: HttpConnectionPool, signer: RequestSigner, server: str, proxy: Proxy | None = None) -> None:
        self._pool = pool
        self._signed_head = signer.signed_head
        self._presigned_head = signer.presigned_head
        self._server = server
        self._proxy = proxy

    def begin_put(self, key: str, content: bytes, headers: ObjectHeaders, throttle: Throttle | None = None) -> PendingPut:
        """Send an object. Many may begin before the first is finished, so that one thread sends many at once.

        Args:
            key: the object's key.
            content: the object's bytes.
            headers: the headers that describe the object.
            throttle: limits the bandwidth; None for no limit.

        Raises:
            TargetError: the object cannot be sent.
        """
        with translated(key, self._server):
            head = self._signed_head("PUT", key, content, headers.content_type, time.time(), headers=headers.lines)
            return PendingPut(key, self._pool.send(head, content, throttle))

    def finish_put(self, put: PendingPut) -> None:
        """Wait until the object is stored.

        Raises:
            TargetError: it was not stored.
        """
        with translated(put.key, self._server):
            response = self._pool.read_response(put.request)
        self.raise_for_status(put.key, response)

    def delete(self, key: str) -> None:
        """Delete an object. It is no error if there is none.

        Raises:
            TargetError: it was not deleted.
        """
        with translated(key, self._server):
            response = self._pool.read_response(self._pool.send(self._signed_head("DELETE", key, b"", "", time.time())))
        if response.status != _NOT_FOUND or "NoSuchKey" not in response.text:
            self.raise_for_status(key, response)

    def delete_many(self, keys: Sequence[str]) -> dict[str, TargetError]:
        """Delete up to 1,000 objects with one request (DeleteObjects).

        Args:
            keys: the objects' keys, without control characters, which XML cannot carry.

        Returns:
            The errors, by key.

        Raises:
            TargetError: the request failed as a whole.
        """
        rows = "".join([f"<Object><Key>{escape(key)}</Key></Object>" for key in keys])
        content = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>{rows}</Delete>'.encode()
        with translated(keys[0], self._server):
            head = self._signed_head("POST", "", content, "application/xml", time.time(), query=DELETE_QUERY)
            response = self._pool.read_response(self._pool.send(head, content), PAGE_BYTES)
        self.raise_for_status(keys[0], response)
        if "DeleteResult" not in response.text:
            raise self.error_of(keys[0], response)
        errors = {}
        for text in _ERROR.findall(response.text):
            key = _KEY.search(text)
            found = unescape(key[1]) if key else ""
            errors[found] = self.error_of(found, Response(response.status, text))
        return errors

    def request_page(self, prefix: str, token: str) -> PendingRequest:
        """Request a page of a listing (ListObjectsV2).

        Args:
            prefix: only keys that begin with it are listed.
            token: the continuation token that the page before contained; "" for the first page.

        Raises:
            OSError: the request cannot be sent.
        """
        return self._pool.send(self._signed_head("GET", "", b"", "", time.time(), query=page_query(prefix, token)))

    def read_page(self, request: PendingRequest, about: str) -> str:
        """Read a page that was requested.

        Args:
            request: returned by `request_page`.
            about: subject of error messages.

        Returns:
            The body of the response.

        Raises:
            TargetError: the server refuses the listing.
            OSError, http.client.HTTPException: the server does not respond.
        """
        response = self._pool.read_response(request, PAGE_BYTES)
        self.raise_for_status(about, response)
        return response.text

    def send_repeatable(self, method: str, key: str, *, query: str) -> Response:
        """Send a request that may reach the server twice. Arguments are those of `RequestSigner.signed_head`.

        Raises:
            TargetError: the server does not respond.
        """
        with translated(key, self._server):
            return self._pool.read_response(self._pool.send(self._signed_head(method, key, b"", "", time.time(), query=query)))

    def send_once(
        self, method: str, key: str, content: bytes = b"", content_type: str = "", *, query: str, headers: Sequence[str] = ()
    ) -> Response:
        """Send a request that must not reach the server twice. Arguments are those of `RequestSigner.signed_head`.

        Raises:
            NothingSent: the server cannot be reached.
            TargetError: the server does not respond.
        """
        with translated(key, self._server):
            head = self._signed_head(method, key, content, content_type, time.time(), query=query, headers=headers)
            try:
                connection = self._pool.connect()
            except ProxyRefused:
                raise
            except OSError as error:
                raise NothingSent(f"{key} at {self._server}: {str(error) or type(error).__name__}") from error
            return self._pool.read_response(self._pool.send_once(connection, head, content))

    def stream(self, key: str, content: BinaryIO, size: int, query: Mapping[str, str]) -> Response:
        """Send content that is read meanwhile, with PUT. The URL is signed and not the content, whose hash is unknown; also without TLS.

        Args:
            key: the object's key.
            content: the content to send.
            size: the size of the content in bytes.
            query: the query of the URL, besides the signature.

        Raises:
            TargetError: the server does not respond.
        """
        with translated(key, self._server):
            return self._pool.stream(self._presigned_head("PUT", key, size, query, time.time()), content)

    def measure_clock(self, about: str) -> tuple[float, float]:
        """Compare the server's clock with this host's, by a listing of one key.

        Args:
            about: subject of error messages.

        Returns:
            The round-trip time, and how far the server's clock is ahead, both in seconds.

        Raises:
            TargetError: the server refuses the listing, or does not respond.
        """
        with translated(about, self._server):
            before = time.time()
            request = self._pool.send(self._signed_head("GET", "", b"", "", before, query="list-type=2&max-keys=1"))
            response = self._pool.read_response(request, PAGE_BYTES)  # a server may ignore max-keys
            after = time.time()
        self.raise_for_status(about, response)
        return after - before, seconds_ahead(response.date, before, after)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def raise_for_status(self, about: str, response: Response) -> None:
        """Do nothing if the request succeeded.

        Raises:
            TargetError: it failed.
        """
        if response.status not in _OK:
            raise self.error_of(about, response)

    def error_of(self, about: str, response: Response) -> TargetError:
        """The error that a response describes."""
        code, message = _CODE.search(response.text), _MESSAGE.search(response.text)
        if code is None and self._proxy is not None:
            return error_from_proxy(about, response.status, f"{self._server} by the proxy {self._proxy}")
        return error_from_code(about, code[1] if code else str(response.status), unescape(message[1]) if message else "", self._server)
