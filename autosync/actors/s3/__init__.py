"""Any S3 server. boto3 decides on credentials, region, address and proxy (clients.py), and the client in own_client/ sends the requests.

boto3 is loaded when it is first needed; a process that has its decisions from another one (connection_settings.py) seldom loads it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import click

from ...actor import Actor
from ...errors import TargetError, TargetRefused
from ...files import File, Listing, PagedListing
from ...process.forked import ForkedGenerator
from ...source.source_file import SourceFile
from .._content import md5_of
from .._key_checks import is_text
from .._memory_budget import TINY, Memory
from .bucket_clients import BucketClients
from .headers import Headers
from .headers import options as _header_options
from .key_checks import CONTROL, KeyChecks, is_key
from .own_client.multipart import upload_ranges
from .own_client.requests import PendingPut, with_retry

#: Files up to this size are sent in one request, from memory.
SMALL = 8 << 20
_DELETES_AT_ONCE = 1000
#: How long a measurement of the server's clock is used, in seconds: either clock may be set meanwhile.
_SAME_CLOCK = 5.0

#: An ETag that is a checksum: the MD5 of the content, or the MD5 of the parts' MD5s and the number of parts.
_MD5 = re.compile(r"[0-9a-f]{32}(?:-([0-9]+))?")


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
        self._clients = BucketClients(self.target_container, self.endpoint_url, self.profile, self.region)
        self._key_checks = KeyChecks(self._clients)

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

    def check_key(self, key: str) -> None:
        """See `Actor.check_key`. A key may have `..`: that a server stores it under another name shows with the first object."""
        self._key_checks.check(key)

    def list(self, prefix: str = "") -> Listing:
        """Every object below the prefix. S3 lists in byte order; the comparison notices servers that do not."""
        has_keys = not prefix or is_text(prefix)
        prefetch, self._prefetch = self._prefetch, None
        return PagedListing(self._clients.listings.pages(prefix, prefetch) if has_keys else (), already_sorted=True)

    def upload(self, file: File) -> None:
        """Send one file: in one request if it is small, in parts if not."""
        unproven = self._key_checks.check(file.key)
        if file.size > SMALL:
            self._send_in_parts(cast(SourceFile, file))
        else:
            with self._memory.of(file.size):
                self._put(cast(SourceFile, file))
        if unproven:
            self._key_checks.check_stored(file.key, unproven)

    @property
    def sends_together(self) -> bool:
        """Whether `upload_many` sends all of its files at the same time."""
        return True

    def upload_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Send several files: this one thread sends the small ones at once, each on its own connection."""
        results: list[Exception | None] = []
        begun: list[PendingPut | None] = []
        for file in files:
            put, error = None, None
            try:
                if file.size > TINY or self._key_checks.check(file.key):
                    self.upload(file)
                else:
                    put = self._clients.objects.begin_put(file.key, cast(SourceFile, file).content(), self._headers.of(file.key))
            except Exception as caught:
                error = caught
            begun.append(put)
            results.append(error)
        for number, put in enumerate(begun):
            if put is not None:
                try:
                    self._clients.objects.finish_put(put)
                except TargetError as error:
                    results[number] = error
        return results

    def delete(self, file: File) -> None:
        """Delete one object."""
        if is_key(file.key):
            self._clients.objects.delete(file.key)
        elif file.key:
            self._key_checks.raise_if_listed(file.key)

    def delete_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Delete up to 1,000 objects with each request. XML cannot carry control characters, so such keys go one by one."""
        results: dict[str, Exception | None] = {file.key: None for file in files}
        by_one = [file for file in files if CONTROL.search(file.key) or not is_key(file.key)]
        for file in by_one:
            try:
                self.delete(file)
            except TargetError as error:
                results[file.key] = error
        alone = {file.key for file in by_one}
        together = [file.key for file in files if file.key not in alone]
        for start in range(0, len(together), _DELETES_AT_ONCE):
            results |= self._clients.objects.delete_many(together[start : start + _DELETES_AT_ONCE])
        return [results[file.key] for file in files]

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
        self._clients.multipart.abandon(key, token)

    def clock_ahead(self) -> float:
        """Measured with a listing of one key. The error is half a second and half a round trip at most."""
        # The first request may make a connection, wait for credentials, or be sent twice; of two, the quicker counts.
        measured_at, first = self._clock_at_check
        if time.monotonic() - measured_at > _SAME_CLOCK:
            first = self._measure_clock()
        return min(first, self._measure_clock())[1]

    def _measure_clock(self) -> tuple[float, float]:
        """The round-trip time, and how far the server's clock is ahead, both in seconds."""
        return with_retry(lambda: self._clients.objects.measure_clock(self._clients.about))

    def close(self) -> None:
        """Close the connections; boto3 closes its own."""
        if self._prefetch is not None:
            self._prefetch.close()
        self._clients.close()

    # The prefetch process

    def _check_here(self) -> None:
        self._clock_at_check = (time.monotonic(), self._measure_clock())

    def _check_result(self) -> dict[str, Any]:
        """Check the bucket in the prefetch process. Returns plain values, for `_adopt_check`."""
        try:
            self._check_here()
        except TargetError as error:
            return {"refused": isinstance(error, TargetRefused), "what": error.what, "cure": error.cure}
        return {"access": self._clients.access.as_tuple(), "clock": self._clock_at_check}

    def _adopt_check(self, found: dict[str, Any]) -> None:
        """Use the result of the prefetch process.

        Raises:
            TargetError: the check failed there.
        """
        if "what" in found:
            raise (TargetRefused if found["refused"] else TargetError)(found["what"], found["cure"])
        self._clock_at_check = found["clock"]
        self._clients.adopt(found["access"])

    def _rows(self, prefix: str) -> Iterator[tuple[Any, ...]]:
        return self._clients.listings.rows(prefix)

    # Sending

    def _put(self, file: SourceFile) -> None:
        key, content, headers = file.key, file.content(), self._headers.of(file.key)
        self._clients.objects.finish_put(self._clients.objects.begin_put(key, content, headers, file.limited_blocks))

    def _send_in_parts(self, file: SourceFile) -> None:
        headers = self._headers.of(file.key)
        self._clients.multipart.send(file, upload_ranges(file.size), lambda: self._clients.multipart_requests.create(file.key, headers))
