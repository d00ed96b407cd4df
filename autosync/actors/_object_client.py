"""Sends the requests of Azure Blob Storage and of Google Cloud Storage.

Their URLs, headers and errors are alike. A request is made by hand and given to the adapter of requests: what `requests.Session` does for
each one (cookies, redirects, the environment's proxies) takes as long as everything else, and the URL stays as it is written here.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from html import unescape
from typing import Any, BinaryIO, NamedTuple, Protocol, cast
from urllib.parse import quote

import requests

from ..errors import PermanentError, TargetError, TargetRefused
from ._errors import kind_of_status, proxy_refused, translated
from ._server_text import contains_secret, first_line, one_line
from ._sessions import in_blocks
from ._sessions import session as new_session

#: How long a server may not be reached, and may not respond, in seconds.
CONNECT_SECONDS, READ_SECONDS = 30, 60
_OK = range(200, 300)
#: The most characters of a key in a message.
_LONGEST = 4096
#: A body is read in blocks of this size, in bytes.
_BLOCK = 64 << 10
_NOT_FOUND, _PROXY_REFUSES = 404, 407
#: Statuses that no retry cures.
_PERMANENT = frozenset({400, 413})
_CODE = re.compile(r"<Code>\s*([A-Za-z0-9]{1,100})\s*</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)")
_PLAIN_CODE = re.compile(r"[A-Za-z0-9]{1,100}")
#: The most of a server's text that is searched, in bytes.
_SEARCHED = 64 << 10


class Dialect(NamedTuple):
    """The words of one service, and what its error codes mean.

    Attributes:
        container_is: what it calls a container.
        cure: what to do about credentials that are missing or refused.
        no_container: code of the error that there is no such container.
        refused: codes of errors of the target as a whole.
        permanent: codes of errors that no retry of this key cures.
        passing: codes of errors that a retry may cure, whatever the status says.
    """

    container_is: str
    cure: str
    no_container: str
    refused: frozenset[str]
    permanent: frozenset[str]
    passing: frozenset[str]


class Credentials(Protocol):
    """How requests are authorized."""

    #: Is added to the query of every request, and must not show.
    secret_query: str

    @property
    def secret(self) -> str:
        """What a request carries and an error must not contain: a token or a signature, not encoded; "" for nothing."""

    def authorize(self, method: str, path: str, query: Mapping[str, str], headers: dict[str, str]) -> None:
        """Add the headers that authorize a request.

        Args:
            method: the HTTP method.
            path: the path of its URL, as it is sent.
            query: the parameters of its URL, as names and values that are not encoded.
            headers: the request's headers, by name.

        Raises:
            TargetError: there are no credentials that can be used.
        """

    def close(self) -> None:
        """Close the connections."""


class Response(NamedTuple):
    """A response that was read to its end.

    Attributes:
        status: the HTTP status code.
        headers: whose names may be written in any case.
        content: the body.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


class NoCredentials(TargetError):  # noqa: N818 - a finding about an error
    """There was nothing to authorize a request with."""


class ObjectClient:
    """Sends requests for the objects of one container.

    Args:
        base_url: the URL of the service, without a slash at its end.
        container: the container's name.
        dialect: what is particular to the service.
        credentials: authorize the requests.
        headers: the headers of every request, by name.
    """

    def __init__(self, base_url: str, container: str, dialect: Dialect, credentials: Credentials, headers: Mapping[str, str]) -> None:
        self.base_url = base_url
        self.about = f"{dialect.container_is} {container}"
        self._dialect = dialect
        self._container = container
        self._credentials = credentials
        self._headers = {"User-Agent": "autosync", **headers}
        #: Each is used by one thread at a time, first the one that was used last, so that few stay open.
        self._idle: deque[_Connection] = deque()

    def send(
        self,
        method: str,
        about: str,
        key: str | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes | BinaryIO = b"",
        size: int | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        is_authorized: bool = True,
    ) -> Response:
        """Send a request, once, and read the response.

        Args:
            method: the HTTP method.
            about: the key or the container, for messages.
            key: the object's key; None for the container.
            query: names and values, not encoded.
            body: the content.
            size: the number of bytes in a body that is a stream.
            headers: further ones.
            is_authorized: False for a request that carries no credentials.

        Raises:
            TargetError: no response came, or it was not read to its end.
        """
        path = f"/{self._container}" if key is None else f"/{self._container}/{quote(key)}"
        url = f"{self.base_url}{path}"
        every = {**self._headers, **(headers or {})}
        if method not in ("GET", "HEAD", "DELETE"):
            every["Content-Length"] = str(len(body) if isinstance(body, bytes) else size)
        if is_authorized:
            self._credentials.authorize(method, path, query or {}, every)
        content = in_blocks(body) if isinstance(body, bytes) else body
        request = requests.PreparedRequest()
        request.method, request.headers, request.body = method, cast(Any, every), cast(Any, content or None)
        request.url = f"{url}?{_encoded(query)}" if query else url
        with translated(about, self.base_url), self._connection(is_authorized=is_authorized) as connection:
            return connection.send(request)

    def checked(self, response: Response, about: str, *, missing_is_fine: bool = False) -> Response:
        """The response, if the request succeeded.

        Args:
            response: the response to check.
            about: the key or the container, for messages.
            missing_is_fine: the object need not be there.

        Raises:
            TargetError: it failed; its kind is that of the tables in docs/targets/azure.md and gcs.md.
        """
        if response.status in _OK:
            return response
        if missing_is_fine and response.status == _NOT_FOUND and self.code_of(response) != self._dialect.no_container:
            return response
        raise self.error_of(response, about)

    def code_of(self, response: Response) -> str:
        """The service's code of an error; "" if the response has none."""
        found = _CODE.search(_text(response))
        code = found[1] if found else response.headers.get("x-ms-error-code", "")
        return code if _PLAIN_CODE.fullmatch(code) else ""

    def error_of(self, response: Response, about: str) -> TargetError:
        """The error that a response means."""
        what, status, code = f"{one_line(about, _LONGEST)} at {self.base_url}", response.status, self.code_of(response)
        detail = ": ".join(filter(None, (f"{status} {code}".strip(), self._message_of(response))))
        if status == _PROXY_REFUSES:
            return proxy_refused(what, self.base_url)
        if code in self._dialect.passing:
            return TargetError(f"{what}: {detail}")
        if code in self._dialect.permanent:
            return PermanentError(f"{what}: {detail}")
        if code == self._dialect.no_container or status == _NOT_FOUND:
            return TargetRefused(f"{what}: there is no such {self._dialect.container_is}", "create it, or correct --target-container")
        if 300 <= status < 400:
            return TargetRefused(f"{what}: {detail}: it leads elsewhere", "correct --endpoint-url")
        kind = kind_of_status(status, _PERMANENT)
        if kind is TargetRefused or code in self._dialect.refused:
            cure = f"{self._dialect.cure}; they need the right to list, write and delete"
            return TargetRefused(f"{what}: access is denied ({detail})", cure)
        return kind(f"{what}: {detail}")

    def _message_of(self, response: Response) -> str:
        """The first line of the server's message; "" if there is none, or if it repeats the credentials of the request."""
        found = _MESSAGE.search(_text(response))
        text = unescape(found[1]) if found else ""
        return "" if "sig=" in text or contains_secret(text, self._credentials.secret) else first_line(text)

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()
        self._credentials.close()

    @contextmanager
    def _connection(self, *, is_authorized: bool) -> Iterator[_Connection]:
        if self._credentials.secret_query and not is_authorized:
            with closing(_Connection(self.base_url, "")) as connection:
                yield connection
            return
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _Connection(self.base_url, self._credentials.secret_query)
        try:
            yield connection
        finally:
            self._idle.append(connection)


class _Connection:
    """A connection to the service, made with the first request."""

    def __init__(self, base_url: str, secret_query: str) -> None:
        self._session = new_session(1, has_pages=True, secret_query=secret_query)
        self._adapter = self._session.get_adapter(base_url)
        #: Proxies and certificates, as the environment has them.
        self._settings: dict[str, Any] = {**self._session.merge_environment_settings(base_url, {}, None, None, None), "stream": True}

    def send(self, request: requests.PreparedRequest) -> Response:
        response = self._adapter.send(request, timeout=(CONNECT_SECONDS, READ_SECONDS), **self._settings)
        content = io.BytesIO()  # `response.content` would have each block twice in memory
        try:
            for block in response.iter_content(_BLOCK):
                content.write(block)
        except BaseException:
            response.close()
            raise
        return Response(response.status_code, response.headers, content.getvalue())

    def close(self) -> None:
        self._session.close()


def _encoded(query: Mapping[str, str]) -> str:
    return "&".join(f"{name}={quote(value, safe='')}" if value else name for name, value in query.items())


def _text(response: Response) -> str:
    """The start of the body of an error."""
    return response.content[:_SEARCHED].decode(errors="replace")
