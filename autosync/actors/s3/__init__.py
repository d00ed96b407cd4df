"""Any S3 server. boto3 decides on credentials, region, address and proxy (clients.py), and the client in fast/ sends the requests.

boto3 is loaded when it is first needed; a process to which another one has passed boto3's decisions (access.py) seldom loads it.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import click

from ...actor import Actor
from ...errors import PermanentError, TargetError, TargetRefused
from ...files import File, Listing, PagedListing
from ...process.forked import ForkedGenerator
from ...source.source_file import SourceFile
from .._content import md5_of
from .._key_checks import is_text
from .._memory_budget import TINY, Memory
from .._multipart import MultipartUploader, OpenUpload
from .access import Access
from .errors import translated
from .fast.list_page import any_page, token_after
from .fast.multipart import LATEST, S3MultipartRequests, upload_ranges
from .fast.requests import ObjectRequests, PendingPut, with_retry
from .headers import Headers
from .headers import options as _header_options
from .listing import Listings

if TYPE_CHECKING:
    import boto3

#: Files up to this size are sent in one request, from memory.
SMALL = 8 << 20
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_LONGEST_KEY = 1024
_DELETES_AT_ONCE = 1000
#: How long a measurement of the server's clock is used, in seconds: either clock may be set meanwhile.
_SAME_CLOCK = 5.0

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Bytes that are not UTF-8, as `os.fsdecode` has them in a name.
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
#: Some servers store such keys under another name: `/x` as `x`, `a\\b` as `a/b`.
_REWRITTEN = {
    "leading slash": re.compile(r"^/"),
    "trailing slash": re.compile(r"/$"),
    "empty segment": re.compile(r"//"),
    "dot segment": re.compile(r"(^|/)\.\.?(/|$)"),
    "control character": _CONTROL,
    "backslash": re.compile(r"\\"),
}
_NONE: set[str] = set()
#: An ETag that is a checksum: the MD5 of the content, or the MD5 of the parts' MD5s and the number of parts.
_MD5 = re.compile(r"[0-9a-f]{32}(?:-([0-9]+))?")

#: What another process has decided on buckets, by `S3Actor._access_key`; processes that are forked from this one inherit it.
_received: dict[tuple[str | None, ...], Access] = {}


class S3Actor(Actor):
    """Amazon S3, and servers that speak its protocol."""

    container_is: ClassVar[str] = "bucket"
    options: ClassVar[Sequence[click.Option]] = (
        click.Option(["--endpoint-url"], metavar="URL", help="S3 server to use instead of Amazon's."),
        click.Option(["--profile"], help="Profile of the AWS configuration files, for credentials and region."),
        click.Option(["--region"], help="Region of the bucket, where the AWS configuration has none."),
        *_header_options(),
    )

    endpoint_url: str | None = None
    profile: str | None = None
    region: str | None = None
    pattern: Sequence[Mapping[str, Any]] | None = None

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self._headers = Headers({str(option.name): getattr(self, str(option.name), None) for option in self.options}, self.pattern or ())
        self._memory = Memory()
        #: When `check` measured the server's clock (monotonic), and the result of `_measure_clock`.
        self._clock_at_check = (float("-inf"), (0.0, 0.0))
        self._prefetch: ForkedGenerator | None = None
        self._made: dict[str, Any] = {}
        self._one_at_a_time = threading.RLock()
        self._stored_kinds: set[str] = set()
        self._rewritten_kinds: set[str] = set()

    # The interface of an actor

    def check(self) -> None:
        """Check that the bucket exists and may be listed with these credentials."""
        found = self._prefetch.found() if self._prefetch is not None else None
        if found is None:
            self._prefetch = None
            self._check_here()
        else:
            self._adopt_check(found)

    def start_prefetch(self) -> None:
        """Start the process that checks the bucket, and then reads the first listing. `cli/mirror_command.py` calls this in the main thread
        while that is the only thread."""
        self._prefetch = ForkedGenerator.try_start("autosync-list", self._rows, self._check_result)

    def list(self, prefix: str = "") -> Listing:
        """Every object below the prefix. S3 lists in byte order; the comparison notices servers that do not."""
        has_keys = not prefix or is_text(prefix)
        prefetch, self._prefetch = self._prefetch, None
        return PagedListing(self._listings.pages(prefix, prefetch) if has_keys else (), already_sorted=True)

    def upload(self, file: File) -> None:
        """Send one file: in one request if it is small, in parts if not."""
        risks = self._check_key(file.key)
        if file.size > SMALL:
            self._send_in_parts(cast(SourceFile, file))
        else:
            with self._memory.of(file.size):
                self._put(cast(SourceFile, file))
        if risks:
            self._check_that_key_is_stored(file.key, risks)

    @property
    def sends_together(self) -> bool:
        """Whether `upload_many` sends all of its files at the same time."""
        return True

    def upload_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Send several files: this one thread sends the small ones at once, each on its own connection."""
        answers: list[Exception | None] = []
        begun: list[PendingPut | None] = []
        for file in files:
            put, error = None, None
            try:
                if file.size > TINY or not self._check_key(file.key) <= self._stored_kinds:
                    self.upload(file)
                else:
                    put = self._objects.begin_put(file.key, cast(SourceFile, file).content(), self._headers.of(file.key))
            except Exception as caught:
                error = caught
            begun.append(put)
            answers.append(error)
        for number, put in enumerate(begun):
            if put is not None:
                try:
                    self._objects.finish_put(put)
                except TargetError as error:
                    answers[number] = error
        return answers

    def delete(self, file: File) -> None:
        """Delete one object."""
        if _is_key(file.key):
            self._objects.delete(file.key)
        elif file.key:
            self._raise_if_listed(file.key)

    def delete_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Delete up to 1,000 objects with each request. XML cannot carry control characters, so such keys go one by one."""
        answers: dict[str, Exception | None] = {file.key: None for file in files}
        by_one = [file for file in files if _CONTROL.search(file.key) or not _is_key(file.key)]
        for file in by_one:
            try:
                self.delete(file)
            except TargetError as error:
                answers[file.key] = error
        alone = {file.key for file in by_one}
        together = [file.key for file in files if file.key not in alone]
        for start in range(0, len(together), _DELETES_AT_ONCE):
            answers |= self._objects.delete_many(together[start : start + _DELETES_AT_ONCE])
        return [answers[file.key] for file in files]

    def can_match(self, listed: File) -> bool:
        """An ETag can be compared if it is an MD5, or an MD5 of MD5s of parts of our size."""
        found = _MD5.fullmatch(listed.etag or "")
        return found is not None and (found[1] is None or found[1] == str(sum(1 for _ in upload_ranges(listed.size))))

    def matches(self, file: File, etag: str) -> bool:
        """Compare with the ETag of an object of the same size."""
        source = cast(SourceFile, file)
        if not self.can_match(File(file.key, file.size, etag=etag)):
            return False
        plain, _, parts = etag.partition("-")
        if not parts:
            return md5_of(source) == plain
        whole = hashlib.md5(usedforsecurity=False)
        for offset, length in upload_ranges(source.size):
            whole.update(bytes.fromhex(md5_of(source, offset, length)))
        return whole.hexdigest() == plain

    def abandon(self, key: str, token: str) -> None:
        """Abort a multipart upload that was begun, or was about to be."""
        self._multipart.abandon(key, token)

    def clock_ahead(self) -> float:
        """Measured with a listing of one key. The error is half a second and half a round trip at most."""
        # The first request may make a connection, wait for credentials, or be sent twice; of two, the quicker counts.
        measured_at, first = self._clock_at_check
        if time.monotonic() - measured_at > _SAME_CLOCK:
            first = self._measure_clock()
        return min(first, self._measure_clock())[1]

    def _measure_clock(self) -> tuple[float, float]:
        """The round-trip time, and how far the server's clock is ahead, both in seconds."""
        return with_retry(lambda: self._objects.measure_clock(self._bucket))

    def close(self) -> None:
        """Close the connections; boto3 closes its own."""
        for opened in (self._prefetch, vars(self).get("_objects")):
            if opened is not None:
                opened.close()

    # The prefetch process

    def _check_here(self) -> None:
        self._clock_at_check = (time.monotonic(), self._measure_clock())

    def _check_result(self) -> dict[str, Any]:
        """Check the bucket in the prefetch process. Returns plain values, for `_adopt_check`."""
        try:
            self._check_here()
        except TargetError as error:
            return {"refused": isinstance(error, TargetRefused), "what": error.what, "cure": error.cure}
        return {"access": self._access.as_tuple(), "clock": self._clock_at_check}

    def _adopt_check(self, found: dict[str, Any]) -> None:
        """Use the result of the prefetch process.

        Raises:
            TargetError: the check failed there.
        """
        if "what" in found:
            raise (TargetRefused if found["refused"] else TargetError)(found["what"], found["cure"])
        self._clock_at_check = found["clock"]
        if found["access"] is not None:
            _received[self._access_key] = Access.from_tuple(found["access"])
        _ = self._objects  # made now if it could not be passed on, so that the workers that are forked from here inherit it

    def _rows(self, prefix: str) -> Iterator[tuple[Any, ...]]:
        return self._listings.rows(prefix)

    # Clients of the bucket; each is made when it is first needed

    @property
    def _access_key(self) -> tuple[str | None, ...]:
        """The options that decide how the bucket is reached."""
        return self.target_container, self.endpoint_url, self.profile, self.region

    @cached_property
    def _access(self) -> Access:
        if self._access_key in _received:
            return _received[self._access_key]
        from . import clients

        return clients.access(self._session, self._client, str(self.target_container))

    @cached_property
    def _objects(self) -> ObjectRequests:
        with translated(self._bucket, self._server):
            return self._access.objects(self._server, checksums=self.endpoint_url is None)

    @cached_property
    def _listings(self) -> Listings:
        return Listings(self._objects, str(self.target_container), self._server)

    @property
    def _session(self) -> boto3.Session:
        from . import clients

        return cast("boto3.Session", self._make_once("session", lambda: clients.session(self.profile, self.region)))

    @property
    def _client(self) -> Any:
        from . import clients

        return self._make_once("client", lambda: clients.client(self._session, str(self.target_container), self.endpoint_url))

    @cached_property
    def _multipart_requests(self) -> S3MultipartRequests:
        return S3MultipartRequests(self._objects, self._open_uploads, self._server)

    @cached_property
    def _multipart(self) -> MultipartUploader:
        return MultipartUploader(self._multipart_requests, LATEST)

    def _open_uploads(self, key: str) -> Iterator[OpenUpload]:
        from . import clients

        return clients.open_uploads(self._client, str(self.target_container), key)

    def _make_once(self, name: str, make: Callable[[], Any]) -> Any:
        """Make something when the first of many threads needs it."""
        with self._one_at_a_time:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]

    @property
    def _bucket(self) -> str:
        """The bucket, as the subject of error messages."""
        return f"bucket {self.target_container}"

    @property
    def _server(self) -> str:
        return self.endpoint_url or "Amazon S3"

    # Sending

    def _check_key(self, key: str) -> set[str]:
        """Check whether an object can have this key.

        Returns:
            The kinds of keys (see `_REWRITTEN`) to which it belongs, and which some servers store under another name.

        Raises:
            PermanentError: S3 has no such keys, or this server stores them under another name.
        """
        if not _is_key(key):
            raise PermanentError(f"{key!r} is not UTF-8; S3 has no such keys", "rename the file")
        length = len(key.encode())
        if length > _LONGEST_KEY:
            raise PermanentError(f"{key!r} has {length} bytes; S3 allows {_LONGEST_KEY}", "shorten the path or use --source-prefix")
        risks = _risks(key)
        if risks:
            self._raise_if_rewritten(key, risks)
        return risks

    def _put(self, file: SourceFile) -> None:
        key, content, headers = file.key, file.content(), self._headers.of(file.key)
        self._objects.finish_put(self._objects.begin_put(key, content, headers, file.limited_blocks))

    def _send_in_parts(self, file: SourceFile) -> None:
        headers = self._headers.of(file.key)
        self._multipart.send(file, upload_ranges(file.size), lambda: self._multipart_requests.create(file.key, headers))

    def _check_that_key_is_stored(self, key: str, kinds: set[str]) -> None:
        """List back one key of each risky kind, and refuse further ones if the server has stored it under another name.

        Every scan would find such a key missing, and send it again for ever. The prefix is shorter than the key: SeaweedFS lists an object
        whose whole key is the prefix, though it stores it under another name.
        """
        if kinds <= self._stored_kinds:
            return
        text = self._listings.fetch(key[:-1])
        with translated(key, self._server):
            found = set(any_page(text).keys)
            may_follow = token_after(text) is not None and all(name.startswith(key[:-1]) for name in found)
        if key not in found and not may_follow:
            self._rewritten_kinds |= kinds - self._stored_kinds
            self._raise_if_rewritten(key, kinds)
        self._stored_kinds |= kinds

    def _raise_if_listed(self, key: str) -> None:
        """Check that the server has no object with a key that is not UTF-8, since no request can name the object.

        Raises:
            PermanentError: the server lists the object.
        """
        text = self._listings.fetch(_NOT_UTF8.split(key, maxsplit=1)[0])
        with translated(self._bucket, self._server):
            keys = any_page(text).keys
        if key in keys:
            raise PermanentError(f"{key!r} at {self._server} cannot be deleted: it is not UTF-8", "delete the object with another program")

    def _raise_if_rewritten(self, key: str, kinds: set[str]) -> None:
        risks = kinds & self._rewritten_kinds
        if risks:
            raise PermanentError(
                f"this S3 server does not keep the key {key!r} as it is written ({', '.join(sorted(risks))})",
                "use --source-prefix or --target-prefix to make plain keys, or rename the file",
            )


def _is_key(name: str) -> bool:
    """Whether S3 has such keys. A request for an empty key would be one for the bucket."""
    return bool(name) and is_text(name)


def _risks(key: str) -> set[str]:
    """The kinds of `_REWRITTEN` to which a key belongs."""
    framed = f"/{key}/"
    if key.isprintable() and not ("//" in framed or "/./" in framed or "/../" in framed or "\\" in key):
        return _NONE  # nearly every key; this takes a fifth of the time of the expressions
    return {kind for kind, pattern in _REWRITTEN.items() if pattern.search(key)}
