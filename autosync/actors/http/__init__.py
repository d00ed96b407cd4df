"""A REST API, such as that of a station's media files: GET lists, PUT uploads, DELETE deletes, and each request is signed.

docs/targets.md specifies it; examples/media_server.py is a server that speaks it.
"""

from __future__ import annotations

import mimetypes
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, cast
from urllib.parse import quote, urlencode, urlsplit

import click
import requests
from requests.adapters import HTTPAdapter

from ...actor import Actor, SecretOption
from ...errors import ConfigurationError, PermanentError, TargetError
from ...files import File, Listing, Page, PagedListing
from ...reading import SourceFile
from .._clock import seconds_ahead
from .answers import insist, translated
from .signing import Signed, digest_of

#: Files up to this size are read once, into memory; of larger ones the digest, which comes first, is made by a reading of its own.
_SMALL = 8 << 20
_PIECE = 1 << 20
_PAGE = 1000
#: For so long a server may not be reached, and may not answer, in seconds.
_TIMEOUT = (10, 60)
_GONE = {404, 410}
_DIGEST = "sha-256=:"
_UNKNOWN_TYPE = "application/octet-stream"


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
        self.url = _checked(self.url)
        if not self.secret:
            raise ConfigurationError("--secret is missing", "give it as @FILE, or in AUTOSYNC_SECRET")
        self._signed = Signed(self.secret, self.key_id or "autosync")
        self._sessions: list[requests.Session] = []
        self._own = threading.local()
        self._lock = threading.Lock()

    def check(self) -> None:
        """See that the API is there, and takes the signature."""
        self._ask_for_page("", "", 1)

    def list(self, prefix: str = "") -> Listing:
        """Files by pages, sorted if the server says so."""
        first = self._ask_for_page(prefix, "", _PAGE)
        return PagedListing(self._pages(prefix, first), already_sorted=first.get("sorted") is True)

    def _pages(self, prefix: str, page: Mapping[str, Any]) -> Iterator[Page]:
        while True:
            yield _page(page, str(self.url))
            after = page.get("next")
            if not after:
                return
            page = self._ask_for_page(prefix, str(after), _PAGE)

    def upload(self, file: File) -> None:
        """Send one file. The server makes nothing visible before it has all, and the digest fits."""
        source = cast(SourceFile, file)
        where = self._where(file.key)
        if file.size <= _SMALL:
            content = source.content()
            for _ in source.at_pace(content):
                pass
            digest, body = digest_of([content]), cast("bytes | BinaryIO", content)
        else:
            digest, body = digest_of(_pieces(source)), source.open()
        headers = {"Content-Digest": digest, "Content-Type": mimetypes.guess_type(file.key, strict=False)[0] or _UNKNOWN_TYPE}
        answer = self._ask("PUT", where, file.key, body, headers)
        if not answer.ok:
            source.verify()  # of a file that has changed since its digest was made, the server says that the digest is wrong
        insist(file.key, answer)

    def delete(self, file: File) -> None:
        """Delete one file."""
        answer = self._ask("DELETE", self._where(file.key), file.key)
        if answer.status_code not in _GONE:
            insist(file.key, answer)

    def can_match(self, listed: File) -> bool:
        """Where the server tells digests."""
        return (listed.etag or "").startswith(_DIGEST)

    def matches(self, file: File, etag: str) -> bool:
        """Compare the digest."""
        return digest_of(_pieces(cast(SourceFile, file))) == etag

    def clock_ahead(self) -> float:
        """By the Date of an answer."""
        before = time.time()
        answer = self._ask("GET", f"{self.url}?{urlencode({'limit': 1})}", "the listing")
        after = time.time()
        insist("the listing", answer)
        return seconds_ahead(answer.headers.get("Date", ""), before, after)

    def close(self) -> None:
        """Close the connections."""
        for session in self._sessions:
            session.close()

    def _where(self, key: str) -> str:
        """The URL of a key. Clients and servers leave dot segments out of paths (RFC 3986, 5.2.4), so no such key would arrive as it is."""
        try:
            written = quote(key)
        except UnicodeEncodeError:
            raise PermanentError(f"{key!r} is not UTF-8; the API has no such keys", "rename the file") from None
        if not key or {".", ".."} & {*key.split("/")}:
            raise PermanentError(f"{key!r} cannot stand in a URL", "rename the file, or use --source-prefix")
        return f"{self.url}/{written}"

    def _ask_for_page(self, prefix: str, after: str, limit: int) -> dict[str, Any]:
        query = {"prefix": prefix.encode("utf-8", "surrogateescape"), "limit": limit, **({"after": after} if after else {})}
        answer = self._ask("GET", f"{self.url}?{urlencode(query, quote_via=quote)}", "the listing")
        insist("the listing", answer)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("files"), list):
            raise TargetError(f"the listing at {self.url} is no JSON object with files")
        return found

    def _ask(
        self, method: str, url: str, about: str, body: bytes | BinaryIO | None = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        with translated(about, url):
            return self._session().request(method, url, data=body, headers=headers, timeout=_TIMEOUT, allow_redirects=False)

    def _session(self) -> requests.Session:
        """That of this thread: they are not promised to be safe for several."""
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = requests.Session()
            session.auth = self._signed  # also so that what ~/.netrc has for the server is not sent
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=1))
            with self._lock:
                self._sessions.append(session)
        return session


def _checked(url: str | None) -> str:
    if not url:
        raise ConfigurationError("--url is missing", "give the base URL of the API")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigurationError(f"--url {url} cannot be used", "give one like https://www.example.org/api/v1/media_file")
    return url.rstrip("/")


def _pieces(file: SourceFile) -> Iterator[bytes]:
    """The content, read for itself: none of it is sent."""
    at = 0
    while at < file.size:
        piece = file.look_at(at, min(_PIECE, file.size - at))
        at += len(piece)
        yield piece


def _page(found: Mapping[str, Any], url: str) -> Page:
    page = Page([], [], [], [])
    try:
        for one in found["files"]:
            page.keys.append(_text(one["key"]))
            page.sizes.append(int(one["size"]))
            page.times.append(float(one.get("mtime") or 0.0))
            page.etags.append(one.get("digest"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TargetError(f"the listing at {url} has a file that is not understood: {type(error).__name__}: {error}") from error
    return page


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is no text")
    return key
