"""Any S3. boto3 decides (sessions, profiles, credentials, regions: clients.py) and is asked for everything rare.

What is frequent does not need boto3: small objects (fast/), listings (listing.py), multipart uploads (multipart.py).
boto3 is loaded when it is needed first; a process that is told what another one's has decided (access.py) seldom needs its own.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import click

from ...actor import Actor
from ...errors import PermanentError, TargetError, TargetRefused
from ...files import File, Listing, PagedListing
from ...process.forked import ForkedGenerator
from ...source.source_file import SourceFile
from .._clock import seconds_ahead
from .._content import md5_of
from .._memory import TINY, Memory
from .._names import is_text
from .access import Access
from .errors import answered, translated
from .fast.multipart import DirectMultipartRequests
from .fast.requests import ObjectRequests, PendingPut
from .headers import Headers
from .headers import options as _header_options
from .listing import Listings
from .multipart import MultipartUploader, upload_ranges

if TYPE_CHECKING:
    import boto3

#: Files up to this size are sent in one request, from memory.
SMALL = 8 << 20
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_LONGEST_KEY = 1024
_DELETES_AT_ONCE = 1000
#: What was told of a clock is good for so many seconds: either may be set meanwhile.
_SAME_CLOCK = 5.0

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
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
#: What S3 makes an ETag of where it is a checksum: the MD5 of the content, or of the MD5s of so many parts.
_MD5 = re.compile(r"[0-9a-f]{32}(?:-([0-9]+))?")

#: What this process was told of the ways to buckets, by what decides on them; those that are forked from it know it too.
_heard: dict[tuple[str | None, ...], Access] = {}


class S3Actor(Actor):
    """Amazon S3, and servers that speak its protocol."""

    container_is: ClassVar[str] = "bucket"
    options: ClassVar[Sequence[click.Option]] = (
        click.Option(["--endpoint-url"], metavar="URL", help="S3 server to use instead of Amazon's."),
        click.Option(["--profile"], help="Profile of the AWS configuration files to take credentials and region from."),
        click.Option(["--region"], help="Region of the bucket, where the AWS configuration does not say it."),
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
        #: When `check` asked for the time, and what it was told.
        self._clock_at_check = (float("-inf"), (0.0, 0.0))
        self._scout: ForkedGenerator | None = None
        self._made: dict[str, Any] = {}
        self._one_at_a_time = threading.RLock()
        self._kept: set[str] = set()
        self._not_kept: set[str] = set()

    # What the door asks

    def check(self) -> None:
        """See that the bucket is there, may be listed, and that the credentials are right."""
        found = self._scout.found() if self._scout is not None else None
        if found is None:
            self._scout = None
            self._check_here()
        else:
            self._hear(found)

    def stand_by(self) -> None:
        """Have a process that checks the bucket, and then reads the first listing."""
        self._scout = ForkedGenerator.stands_by("autosync-list", self._rows, self._scouted)

    def list(self, prefix: str = "") -> Listing:
        """Every object below the prefix. S3 lists in byte order; servers that do not are found out while comparing."""
        has_keys = not prefix or is_text(prefix)
        scout, self._scout = self._scout, None
        return PagedListing(self._listings.pages(prefix, scout) if has_keys else (), already_sorted=True)

    def upload(self, file: File) -> None:
        """Send one file: in one request if it is small, in parts if not."""
        risks = self._refuse(file.key)
        if file.size > SMALL:
            self._multipart.send(cast(SourceFile, file), self._headers.of(file.key))
        else:
            with self._memory.of(file.size):
                self._put(cast(SourceFile, file))
        if risks:
            self._see_that_it_is_kept(file.key, risks)

    @property
    def sends_together(self) -> bool:
        """Unless a proxy stands between."""
        return self._objects is not None

    def upload_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Send several files: the small ones all at once, each on a connection of its own, from this one thread."""
        answers: list[Exception | None] = []
        begun: list[PendingPut | None] = []
        for file in files:
            put, error = None, None
            try:
                if self._objects is None or file.size > TINY or not self._refuse(file.key) <= self._kept:
                    self.upload(file)
                else:
                    put = self._objects.begin_put(file.key, cast(SourceFile, file).content(), self._headers.of(file.key))
            except Exception as caught:
                error = caught
            begun.append(put)
            answers.append(error)
        for number, put in enumerate(begun):
            if put is not None and self._objects is not None:
                try:
                    self._objects.finish_put(put)
                except TargetError as error:
                    answers[number] = error
        return answers

    def delete(self, file: File) -> None:
        """Delete one object."""
        if not _is_key(file.key):
            return  # S3 has no such keys
        if self._objects is not None:
            self._objects.delete(file.key)
        else:
            with translated(file.key, self._where):
                self._client.delete_object(Bucket=self.target_container, Key=file.key)

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
            answers |= self._delete_page(together[start : start + _DELETES_AT_ONCE])
        return [answers[file.key] for file in files]

    def _delete_page(self, keys: Sequence[str]) -> dict[str, TargetError]:
        """What went wrong, by key."""
        if self._objects is not None:
            return self._objects.delete_many(keys)
        with translated(keys[0], self._where):
            said = self._client.delete_objects(
                Bucket=self.target_container, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        return {
            wrong["Key"]: answered(wrong["Key"], wrong.get("Code", ""), wrong.get("Message", ""), self._where)
            for wrong in said.get("Errors", ())
        }

    def can_match(self, listed: File) -> bool:
        """An ETag can be compared if it is an MD5, or an MD5 of MD5s of parts of our size. Others tell nothing."""
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
        """End an upload in parts that was begun, or was about to be."""
        self._multipart.abandon(key, token)

    def clock_ahead(self) -> float:
        """Asked for with a listing of one key. Off by half a second and half a round trip at most."""
        # The first request may make a connection, wait for credentials, or be sent twice; the quicker of two is believed.
        asked, first = self._clock_at_check
        if time.monotonic() - asked > _SAME_CLOCK:
            first = self._measure_clock()
        return min(first, self._measure_clock())[1]

    def _measure_clock(self) -> tuple[float, float]:
        """The round trip, and by how much the server's clock is ahead, both in seconds."""
        about = f"bucket {self.target_container}"
        with translated(about, self._where):
            objects = self._objects  # certificates that cannot be read show here
        if objects is not None:
            with suppress(TargetError):  # boto3 asks twice, and says best what is wrong
                return objects.measure_clock(about)
        return self._measure_clock_by_boto3(about)

    def _measure_clock_by_boto3(self, about: str) -> tuple[float, float]:
        with translated(about, self._where):
            client = self._client  # making it takes longer than asking it
            before = time.time()
            said = client.list_objects_v2(Bucket=self.target_container, MaxKeys=1)
            after = time.time()
        from .clients import date_of

        return after - before, seconds_ahead(date_of(said), before, after)

    def close(self) -> None:
        """Close the connections; boto3 closes its own."""
        for held in (self._scout, self._made.get("multipart"), vars(self).get("_objects")):
            if held is not None:
                held.close()

    # What another process finds out

    def _check_here(self) -> None:
        self._clock_at_check = (time.monotonic(), self._measure_clock())

    def _scouted(self) -> dict[str, Any]:
        """What the scout has found out, for `_hear`."""
        try:
            self._check_here()
        except TargetError as error:
            return {"refused": isinstance(error, TargetRefused), "what": error.what, "cure": error.cure}
        return {"access": self._access.told(), "clock": self._clock_at_check}

    def _hear(self, found: dict[str, Any]) -> None:
        """Know what the scout knows.

        Raises:
            TargetError: what it has met with.
        """
        if "what" in found:
            raise (TargetRefused if found["refused"] else TargetError)(found["what"], found["cure"])
        self._clock_at_check = found["clock"]
        if found["access"] is not None:
            _heard[self._which] = Access.heard(found["access"])
        with translated(f"bucket {self.target_container}", self._where):
            _ = self._objects  # what it could not tell is found out now, and known to the workers that are forked from here

    def _rows(self, prefix: str) -> Iterator[tuple[Any, ...]]:
        return self._listings.rows(prefix)

    # How the bucket is reached; each is made when it is first needed

    @property
    def _which(self) -> tuple[str | None, ...]:
        """What decides on the way to the bucket."""
        return self.target_container, self.endpoint_url, self.profile, self.region

    @cached_property
    def _access(self) -> Access:
        if self._which in _heard:
            return _heard[self._which]
        from . import clients

        return clients.access(self._session, self._client, str(self.target_container))

    @cached_property
    def _objects(self) -> ObjectRequests | None:
        return self._access.objects(self._where, checksums=self.endpoint_url is None)

    @cached_property
    def _listings(self) -> Listings:
        return Listings(lambda: self._client, self._objects, str(self.target_container), self._where)

    @property
    def _session(self) -> boto3.Session:
        from . import clients

        return cast("boto3.Session", self._once("session", lambda: clients.session(self.profile, self.region)))

    @property
    def _client(self) -> Any:
        from . import clients

        return self._once("client", lambda: clients.client(self._session, str(self.target_container), self.endpoint_url))

    @property
    def _multipart(self) -> MultipartUploader:
        return cast(MultipartUploader, self._once("multipart", self._make_multipart))

    def _make_multipart(self) -> MultipartUploader:
        bucket = str(self.target_container)
        if self._objects is not None:
            return MultipartUploader(DirectMultipartRequests(self._objects, lambda: self._client, bucket, self._where))
        from .proxied import ProxiedMultipartRequests

        return MultipartUploader(ProxiedMultipartRequests(self._client, bucket, self._where))

    def _once(self, what: str, make: Callable[[], Any]) -> Any:
        """What is made when the first of many threads needs it."""
        with self._one_at_a_time:
            if what not in self._made:
                self._made[what] = make()
            return self._made[what]

    @property
    def _where(self) -> str:
        return self.endpoint_url or "Amazon S3"

    # Sending

    def _refuse(self, key: str) -> set[str]:
        """What some servers would not keep of this key. Raises `PermanentError` if this one will not, or S3 has no such keys."""
        if not _is_key(key):
            raise PermanentError(f"{key!r} is not UTF-8; S3 has no such keys", "rename the file")
        length = len(key.encode())
        if length > _LONGEST_KEY:
            raise PermanentError(f"{key!r} has {length} bytes; S3 allows {_LONGEST_KEY}", "shorten the path or use --source-prefix")
        risks = _risks(key)
        if risks:
            self._refuse_rewritten(key, risks)
        return risks

    def _put(self, file: SourceFile) -> None:
        key, content, said = file.key, file.content(), self._headers.of(file.key)
        if self._objects is not None:
            self._objects.finish_put(self._objects.begin_put(key, content, said, file.at_pace))
        else:
            for _ in file.at_pace(content):
                pass  # boto3 sends it as a whole
            with translated(key, self._where):
                self._client.put_object(Bucket=self.target_container, Key=key, Body=content, **said.parameters)

    def _see_that_it_is_kept(self, key: str, kinds: set[str]) -> None:
        """A server that stores a key under another name would show it as missing at every look, and it would be sent again for ever. So
        one key of each risky kind is listed back, and if it is not there, no other is sent. It is asked for by less than all of it: to one
        that is given whole SeaweedFS says yes, and lists it under another name."""
        if kinds <= self._kept:
            return
        with translated(key, self._where):
            said = self._client.list_objects_v2(Bucket=self.target_container, Prefix=key[:-1])
        found = {one["Key"] for one in said.get("Contents", ())}
        is_behind_these = said["IsTruncated"] and all(name.startswith(key[:-1]) for name in found)
        if key not in found and not is_behind_these:
            self._not_kept |= kinds - self._kept
            self._refuse_rewritten(key, kinds)
        self._kept |= kinds

    def _refuse_rewritten(self, key: str, kinds: set[str]) -> None:
        risks = kinds & self._not_kept
        if risks:
            raise PermanentError(
                f"this S3 server does not keep the key {key!r} as it is written ({', '.join(sorted(risks))})",
                "use --source-prefix or --target-prefix to make plain keys, or rename the file",
            )


def _is_key(name: str) -> bool:
    """What is asked of an empty name is asked of the bucket."""
    return bool(name) and is_text(name)


def _risks(key: str) -> set[str]:
    """Of which of the kinds above a key is."""
    framed = f"/{key}/"
    if key.isprintable() and not ("//" in framed or "/./" in framed or "/../" in framed or "\\" in key):
        return _NONE  # nearly every key; this takes a fifth of the time of the expressions
    return {kind for kind, pattern in _REWRITTEN.items() if pattern.search(key)}
