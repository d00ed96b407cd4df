"""A REST API: GET lists, PUT uploads, DELETE deletes, and each request is signed.

docs/targets/http.md specifies the API; examples/media_server.py is a server that implements it.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, cast
from urllib.parse import quote, urlencode

import click
import requests

from ...actor import Actor, SecretOption
from ...errors import ConfigurationError, PermanentError, TargetError
from ...files import File, Listing, Page, PagedListing
from ...source.source_file import SourceFile
from .._clock import seconds_ahead
from .._content import chunks, guess_content_type
from .._errors import translated
from .._key_checks import has_dots, is_text
from .._memory_budget import Memory
from .._page_tokens import PageTokens
from .._sessions import in_blocks
from .._sessions import session as new_session
from .._urls import check_url
from .content import VerifiedBody
from .errors import raise_for_status
from .listing import ListingPage, parse_page
from .signing import SignatureAuth, content_digest

#: Files up to this size, in bytes, are read once, into memory. Larger ones are read twice: for the digest, which is sent first, and to be
#: sent.
_SMALL = 8 << 20
_PAGE = 1000
#: Timeouts for connecting and for a response, in seconds.
_TIMEOUT = (30, 60)
_GONE = {404, 410}
#: The only form of digest that `matches` can compare.
_DIGEST = re.compile(r"sha-256=:[A-Za-z0-9+/]{43}=:")
#: The characters that a key id may have (RFC 9651, 3.3.3: strings).
_KEY_ID = re.compile(r"[\x20-\x7e]+")


class HttpActor(Actor):
    """An API below --url."""

    options: ClassVar[Sequence[click.Option]] = (
        click.Option(["--url"], metavar="URL", help="Base URL of the API: https://www.example.org/api/v1/media_file"),
        SecretOption(["--secret"], help="Secret that requests are signed with; the server has the same."),
        click.Option(["--key-id"], metavar="TEXT", default="autosync", show_default=True, help="Name of the secret at the server."),
    )

    url: str | None = None
    secret: str | None = None
    key_id: str | None = None

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        if not self.url:
            raise ConfigurationError("--url is missing", "give the base URL of the API")
        check_url("--url", self.url, "https://www.example.org/api/v1/media_file")
        self.url = self.url.rstrip("/")
        if not self.secret:
            raise ConfigurationError("--secret is missing", "give it as @FILE, or in AUTOSYNC_SECRET")
        if self.key_id and not _KEY_ID.fullmatch(self.key_id):
            raise ConfigurationError(f"--key-id {self.key_id!r} cannot stand in a signature", "take printable ASCII")
        self._auth = SignatureAuth(self.secret, self.key_id or "autosync")
        self._memory = Memory()
        #: requests does not promise that sessions are thread-safe, so each is used by one thread at a time.
        self._idle: deque[requests.Session] = deque()

    def check(self) -> None:
        """Check that the API can be reached and accepts the signature."""
        self._get_page("", "", 1)

    def check_key(self, key: str) -> None:
        """See `Actor.check_key`. A key is a part of a URL."""
        self._url_of(key)

    def list(self, prefix: str = "") -> Listing:
        """See `Actor.list`. Whether it is sorted is up to the server."""
        if not is_text(prefix):
            return PagedListing((), already_sorted=True)
        first = self._get_page(prefix, "", _PAGE)
        return PagedListing(self._pages(prefix, first), already_sorted=first.is_sorted)

    def _pages(self, prefix: str, found: ListingPage) -> Iterator[Page]:
        tokens = PageTokens()
        while True:
            yield found.page
            if found.next is None:
                return
            fault = tokens.fault(found.next, is_empty=not found.page.keys)
            if fault:
                raise TargetError(f"the listing at {self.url} does not go on: {fault}")
            found = self._get_page(prefix, found.next, _PAGE)

    def upload(self, file: File) -> None:
        """Send one file. The server makes it visible only when it has the whole content and the digest matches."""
        source = cast(SourceFile, file)
        url = self._url_of(file.key)
        if file.size > _SMALL:
            digest = content_digest(chunks(source))
            self._put(url, file.key, VerifiedBody(source, digest), digest)
            return
        with self._memory.of(file.size):
            content = source.content()
            source.wait_for_bandwidth(content)
            self._put(url, file.key, content, content_digest([content]))

    def _put(self, url: str, key: str, body: bytes | VerifiedBody, digest: str) -> None:
        raise_for_status(key, self._request("PUT", url, key, body, {"Content-Digest": digest, "Content-Type": guess_content_type(key)}))

    def delete(self, file: File) -> None:
        """Delete one file."""
        if not is_text(file.key):
            return  # the API has no such keys
        response = self._request("DELETE", self._url_of(file.key), file.key)
        if response.status_code not in _GONE:
            raise_for_status(file.key, response)

    def can_match(self, listed: File) -> bool:
        """See `Actor.can_match`: True if the server lists a SHA-256 and nothing else."""
        return _DIGEST.fullmatch(listed.etag or "") is not None

    def matches(self, file: File, etag: str) -> bool:
        """Compare the digest."""
        return content_digest(chunks(cast(SourceFile, file))) == etag

    def clock_ahead(self) -> float:
        """See `Actor.clock_ahead`; from the Date of a response."""
        before = time.time()
        response = self._request("GET", f"{self.url}?{urlencode({'limit': 1})}", "the listing")
        after = time.time()
        raise_for_status("the listing", response)
        return seconds_ahead(response.headers.get("Date", ""), before, after)

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()

    def _url_of(self, key: str) -> str:
        """The URL of a key."""
        if not is_text(key):
            raise PermanentError(f"{key!r} is not UTF-8; the API has no such keys", "rename the file")
        if not key or has_dots(key):
            raise PermanentError(f"{key!r} cannot stand in a URL", "rename the file, or use --source-prefix")
        return f"{self.url}/{quote(key)}"

    def _get_page(self, prefix: str, after: str, limit: int) -> ListingPage:
        query = {"prefix": prefix, "limit": limit, **({"after": after} if after else {})}
        response = self._request("GET", f"{self.url}?{urlencode(query, quote_via=quote)}", "the listing")
        raise_for_status("the listing", response)
        return parse_page(response.content, str(self.url))

    def _request(
        self, method: str, url: str, about: str, body: bytes | Iterable[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        with translated(about, url), self._session() as session:
            data = in_blocks(body) if isinstance(body, bytes) else body
            return session.request(method, url, data=data, headers=headers, timeout=_TIMEOUT, allow_redirects=False)

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """A session that no other thread uses. The one that was used last is reused first, so that few connections stay open."""
        try:
            session = self._idle.pop()
        except IndexError:
            session = new_session(1, has_pages=True)
            session.auth = self._auth
        try:
            yield session
        finally:
            self._idle.append(session)
