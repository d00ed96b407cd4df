"""What the actors of Azure and Google have in common: both speak to their target through obstore (https://developmentseed.org/obstore),
which signs requests, finds credentials and sends large files in parts."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, cast

import obstore
import requests
from obstore.store import ObjectStore

from ...actor import Actor
from ...errors import ConfigurationError, PermanentError, TargetError, TargetRefused
from ...files import File, Listing, Page, PagedListing
from ...source.source_file import SourceFile
from .._clock import seconds_ahead
from .._content import guess_content_type
from .._memory import Memory
from .._responses import AS_IT_IS
from .._urls import is_plain_url
from .errors import Unidentified, translated
from .keys import keeps

#: Files up to this size are sent in one request, from memory; larger ones in parts of this size, or larger if they were too many.
SMALL = 8 << 20
#: So many parts of a file are on their way at once.
_PARTS_AT_ONCE = 4
#: A large file is read in so many bytes; all but the last such piece of it may go before it is known that it stood still.
_PIECE = 1 << 20
#: Objects that are listed together, so that no more of them is in memory.
_PAGE = 1000
#: How long to wait for a connection, and for a whole request: a part must get through a slow line in that time.
_CONNECT, _REQUEST = timedelta(seconds=10), timedelta(minutes=5)
#: How often obstore asks again, by itself, for what belongs to something larger: a part of a file, a page of a listing. What goes in one
#: request is tried again by autosync, which so hears how often the target asks for fewer.
_TRIES = 4
#: Below this, nothing is. It is listed to see whether listing is possible.
_NOTHING_THERE = ".autosync-check"


class ObstoreActor(Actor):
    """An object store that obstore can speak to. A subclass says which (`_open`), and what keys it has (`_refusal`)."""

    #: What is allowed as the name of a container.
    container_name: ClassVar[re.Pattern[str]]
    #: What the target is called in messages.
    server: ClassVar[str]
    #: What to do about credentials that are missing, and about those that are refused.
    identify: ClassVar[str]
    #: A file may have so many parts.
    most_parts: ClassVar[int]
    #: So many objects are deleted with one call.
    deletes_at_once: ClassVar[int] = 256

    endpoint_url: str | None = None

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        if not self.container_name.fullmatch(str(self.target_container)):
            what = f"--target-container {self.target_container} cannot be the name of a {self.container_is}"
            raise ConfigurationError(what, "names have small letters, digits and -")
        if self.endpoint_url and not is_plain_url(self.endpoint_url):
            raise ConfigurationError("--endpoint-url cannot be used", "give one like https://storage.example.org, without credentials")
        self._stores: dict[int, ObjectStore] = {}
        self._lock = threading.Lock()
        self._memory = Memory()

    # What a subclass says

    @property
    def base_url(self) -> str:
        """Where requests go: the URL that the name of the container follows."""
        raise NotImplementedError

    def _open(self, **how: Any) -> ObjectStore:
        """Make obstore's store; `how` is for its constructor."""
        raise NotImplementedError

    def _refusal(self, key: str) -> str | None:
        """Why the target has no such keys; None if it may have. That obstore would not keep it is known already."""
        raise NotImplementedError

    # What is asked of an actor

    def check(self) -> None:
        """See that the container is there, and may be listed."""
        try:
            with translated(self._container, self):
                for _ in obstore.list(self._store(0), _NOTHING_THERE):
                    pass
        except Unidentified as error:  # later it may be that the service which gives credentials does not answer for a while
            raise TargetRefused(error.what, error.cure) from None

    def list(self, prefix: str = "") -> Listing:
        """Every object whose key begins with the prefix. Both list in the order of bytes; that others do not is found out while
        comparing."""
        above, slash, _ = prefix.rpartition("/")
        there = not slash or keeps(above)
        return PagedListing(self._pages(prefix, above) if there else (), already_sorted=True)

    def _pages(self, prefix: str, above: str) -> Iterator[Page]:
        """obstore lists what is below a whole path, so more than was asked for may come."""
        with translated(self._container, self):
            for objects in obstore.list(self._store(_TRIES), above or None, chunk_size=_PAGE):
                found = [one for one in objects if one["path"].startswith(prefix)] if prefix else objects
                yield Page(
                    [one["path"] for one in found],
                    [one["size"] for one in found],
                    [one["last_modified"].timestamp() for one in found],
                    [(one["e_tag"] or "").strip('"') or None for one in found],
                )

    def upload(self, file: File) -> None:
        """Send one file: in one request if it is small, in parts if not."""
        self._check_key(file.key)
        source = cast(SourceFile, file)
        if file.size > SMALL:
            self._send_in_parts(source)
        else:
            with self._memory.of(file.size):
                self._send(source)

    def _send(self, file: SourceFile) -> None:
        content = file.content()
        file.wait_for_bandwidth(content)  # obstore sends it as a whole
        with translated(file.key, self):
            obstore.put(self._store(0), file.key, content, attributes=_attributes(file.key), use_multipart=False)

    def _send_in_parts(self, file: SourceFile) -> None:
        """What reading raises comes through obstore as it is; and it then gives up what it has sent."""
        size = max(SMALL, -(-file.size // self.most_parts))
        with translated(file.key, self):
            obstore.put(
                self._store(_TRIES), file.key, _pieces(file, size), attributes=_attributes(file.key),
                use_multipart=True, chunk_size=size, max_concurrency=file.at_once(_PARTS_AT_ONCE),
            )  # fmt: skip

    def delete(self, file: File) -> None:
        """Delete one object."""
        if self._may_have(file.key):
            self._delete([file.key], file.key)

    def delete_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Delete several objects at once. obstore tells of one of them only what went wrong; so if one of them is not there, which is no
        error, or cannot be deleted, they are deleted one by one."""
        answers: dict[str, Exception | None] = {}
        keys = [file.key for file in files if self._may_have(file.key)]
        for start in range(0, len(keys), self.deletes_at_once):
            answers |= self._delete_page(keys[start : start + self.deletes_at_once])
        return [answers.get(file.key) for file in files]

    def _delete_page(self, keys: Sequence[str]) -> Mapping[str, Exception | None]:
        try:
            if self._delete(keys, self._container):
                return {}
        except PermanentError:
            pass  # it may be that of one of them
        except TargetError as error:
            return dict.fromkeys(keys, error)
        return {key: self._answer(key) for key in keys}

    def _answer(self, key: str) -> Exception | None:
        try:
            self._delete([key], key)
        except TargetError as error:
            return error
        return None

    def _delete(self, keys: Sequence[str], about: str) -> bool:
        """Whether they all were there."""
        with translated(about, self, missing_is_fine=True):
            obstore.delete(self._store(0), list(keys))
            return True
        return False

    def clock_ahead(self) -> float:
        """By the Date of the answer to a request that nobody has signed, whatever it says otherwise."""
        about = f"{self.base_url}/{self.target_container}"
        before = time.time()
        try:
            # Signed with nothing, so that what ~/.netrc has for the server is not sent.
            answer = requests.head(
                about, timeout=_CONNECT.total_seconds(), allow_redirects=False, auth=lambda request: request, headers=AS_IT_IS
            )
        except requests.RequestException as error:
            raise TargetError(f"{about} cannot be reached ({type(error).__name__})") from None
        return seconds_ahead(answer.headers.get("Date", ""), before, time.time())

    # How it is done

    @property
    def _container(self) -> str:
        return f"{self.container_is} {self.target_container}"

    def _store(self, retries: int) -> ObjectStore:
        """obstore's, which asks again so many times. Made when it is first needed: in a fork of its process it never answers."""
        with self._lock:
            if retries not in self._stores:
                allow_http = self.base_url.startswith("http://")
                options = {"timeout": _REQUEST, "connect_timeout": _CONNECT, "allow_http": allow_http, "default_headers": AS_IT_IS}
                self._stores[retries] = self._open(client_options=options, retry_config={"max_retries": retries})
            return self._stores[retries]

    def _may_have(self, key: str) -> bool:
        return keeps(key) and self._refusal(key) is None

    def _check_key(self, key: str) -> None:
        """Raises `PermanentError` if the target would not store an object under exactly this key."""
        reason = "obstore does not keep such keys" if not keeps(key) else self._refusal(key)
        if reason is not None:
            raise PermanentError(f"{key!r} cannot be a key in {self.server}: {reason}", "rename the file, or use --source-prefix")


def _attributes(key: str) -> dict[str, str]:
    return {"Content-Type": guess_content_type(key)}


def _pieces(file: SourceFile, size: int) -> Iterator[bytes]:
    """The content of a large file, and before each part, of this size, a question whether one more request may be sent."""
    with file.open() as content:
        at = 0
        while data := content.read(_PIECE):
            if at // size != (at + len(data)) // size or not at:
                file.ask()
            at += len(data)
            yield data
