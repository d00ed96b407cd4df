"""What the actors for Azure Blob Storage and for Google Cloud Storage have in common."""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple, cast

from ..actor import Actor
from ..errors import ConfigurationError, PermanentError, TargetError, TargetRefused
from ..files import File, Listing, Page, PagedListing
from ..source.source_file import SourceFile
from ._clock import seconds_ahead
from ._content import guess_content_type
from ._errors import UnreadableResponse
from ._key_checks import has_dots, is_text
from ._list_page import UnreadablePage
from ._memory_budget import Memory
from ._object_client import Credentials, Dialect, NoCredentials, ObjectClient
from ._page_tokens import PageTokens
from ._urls import check_url

#: Files up to this size are sent in one request, from memory; larger ones in parts of this size, in bytes.
SMALL = 8 << 20
#: Number of requests for one page of a listing before it fails, and the first delay between them in seconds. Each further delay doubles.
_PAGE_TRIES, _PAGE_DELAY = 4, 0.25
#: A prefix that no key has. `check` lists it to find out whether listing is possible.
_NO_KEY = ".autosync-check"
#: Characters that XML 1.0 cannot carry, or that some servers do not write as XML.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")


class ListedPage(NamedTuple):
    """A page of a listing.

    Attributes:
        page: the objects.
        token: the token with which the next page is requested; "" if this is the last.
    """

    page: Page
    token: str


class ObjectStoreActor(Actor):
    """Objects in a container of a service that speaks HTTP. A subclass has the requests of one service."""

    #: Matches the names that a container may have.
    container_name: ClassVar[re.Pattern[str]]
    #: What the service is called in messages.
    server: ClassVar[str]
    dialect: ClassVar[Dialect]
    #: Headers of every request.
    headers: ClassVar[dict[str, str]] = {}

    endpoint_url: str | None = None

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        if not self.container_name.fullmatch(str(self.target_container)):
            what = f"--target-container {self.target_container} cannot be the name of a {self.container_is}"
            raise ConfigurationError(what, "names have small letters, digits and -")
        if self.endpoint_url:
            check_url("--endpoint-url", self.endpoint_url, "https://storage.example.org")
        self._memory = Memory()

    def _connect(self, credentials: Credentials) -> None:
        """Make the client; it connects with the first request."""
        self._client = ObjectClient(self.base_url, str(self.target_container), self.dialect, credentials, self.headers)

    @property
    @abstractmethod
    def base_url(self) -> str:
        """URL of the service, without the name of the container."""

    @abstractmethod
    def _fetch_page(self, prefix: str, token: str, limit: int | None = None) -> ListedPage:
        """Fetch a page of a listing.

        Args:
            prefix: only keys that begin with it are listed.
            token: the token that the page before has; "" for the first page.
            limit: the most objects on it; None for as many as the service lists.

        Raises:
            TargetError: the request failed.
            UnreadablePage: the response is no such page.
        """

    @abstractmethod
    def _put(self, key: str, content: bytes, content_type: str) -> None:
        """Store an object with one request."""

    @abstractmethod
    def _send_in_parts(self, file: SourceFile) -> None:
        """Send a large file."""

    @abstractmethod
    def _refusal(self, key: str) -> str | None:
        """Why the service has no object of this name; None if it may have one. The key is not empty, is UTF-8, and has no dot segment."""

    def check(self) -> None:
        """See that the container exists and may be listed."""
        try:
            self._read_page(_NO_KEY, "", 1)
        except NoCredentials as error:  # in a worker, the service that gives credentials may only be away for a while
            raise TargetRefused(error.what, error.cure) from None

    def list(self, prefix: str = "") -> Listing:
        """Every object whose key begins with the prefix, by pages. Both services list in the order of bytes; that another one does not is
        found out while comparing."""
        return PagedListing(self._pages(prefix) if is_text(prefix) else (), already_sorted=True)

    def _pages(self, prefix: str) -> Iterator[Page]:
        token, tokens = "", PageTokens()
        while True:
            listed = self._read_page_with_retry(prefix, token)
            yield listed.page
            if not listed.token:
                return
            fault = tokens.fault(listed.token, is_empty=not listed.page.keys)
            if fault:
                raise TargetError(f"{self._client.about} at {self.base_url}: {fault}")
            token = listed.token

    def _read_page_with_retry(self, prefix: str, token: str) -> ListedPage:
        for tries in range(_PAGE_TRIES - 1):
            try:
                return self._read_page(prefix, token)
            except (PermanentError, NoCredentials, UnreadableResponse):
                raise
            except TargetError:
                time.sleep(_PAGE_DELAY * 2**tries)
        return self._read_page(prefix, token)

    def _read_page(self, prefix: str, token: str, limit: int | None = None) -> ListedPage:
        try:
            return self._fetch_page(prefix, token, limit)
        except UnreadablePage as error:
            raise UnreadableResponse(f"{self._client.about} at {self.base_url}: a page of the listing cannot be read: {error}") from None

    def upload(self, file: File) -> None:
        """Send one file: in one request if it is small, in parts if not."""
        self.check_key(file.key)
        source = cast(SourceFile, file)
        if source.size > SMALL:
            self._send_in_parts(source)
            return
        with self._memory.of(source.size):
            content = source.content()
            source.wait_for_bandwidth(content)
            self._put(source.key, content, guess_content_type(source.key))

    def delete(self, file: File) -> None:
        """Delete one object."""
        key = file.key
        if self._refusal_of(key) is not None:
            self._delete_foreign(key)
        else:
            self._send_delete(key)

    def _send_delete(self, key: str) -> None:
        self._client.checked(self._client.send("DELETE", key, key), key, missing_is_fine=True)

    def _delete_foreign(self, key: str) -> None:
        """Delete an object under a key that `upload` refuses. Another program may have stored one.

        The service may take the request for one about another key (`a\\b` for `a/b`), so it is sent only if the listing has the key.

        Raises:
            PermanentError: the object is there, and no request reaches it.
        """
        if not key or not is_text(key):
            return  # no object has an empty key, and each page of a listing is UTF-8
        # A prefix with control characters could not be repeated in the XML of the page.
        prefix = _CONTROL.split(key, maxsplit=1)[0]
        first = self._read_page_with_retry(prefix, "")
        is_there = key in first.page.keys
        if not is_there and (prefix == key or not first.token):  # no key comes before its own prefix
            return
        cure = "delete the object with another program"
        if has_dots(key):
            raise PermanentError(
                f"{key!r} at {self.base_url} cannot be deleted: its path has . or .. as a part, which HTTP leaves out", cure
            )
        self._send_delete(key)
        if is_there and key in self._read_page_with_retry(prefix, "").page.keys:
            raise PermanentError(f"{key!r} at {self.base_url}: {self.server} deletes it without an error, and still lists it", cure)

    def clock_ahead(self) -> float:
        """By the Date of the response to a request without credentials, whatever its status is."""
        before = time.time()
        response = self._client.send("HEAD", self._client.about, is_authorized=False)
        return seconds_ahead(response.headers.get("Date", ""), before, time.time())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _refusal_of(self, key: str) -> str | None:
        if not key:
            return "it is empty"
        if not is_text(key) or "\0" in key:
            return "it is not UTF-8 without NUL"
        return "its path has . or .. as a part, which HTTP leaves out" if has_dots(key) else self._refusal(key)

    def check_key(self, key: str) -> None:
        """Check that the service stores an object under exactly this key.

        Raises:
            PermanentError: it does not.
        """
        reason = self._refusal_of(key)
        if reason is not None:
            raise PermanentError(f"{key!r} cannot be a key in {self.server}: {reason}", "rename the file, or use --source-prefix")
