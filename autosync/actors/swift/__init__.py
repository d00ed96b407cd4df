"""OpenStack Swift, and Rackspace Cloud Files."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC
from functools import partial
from typing import Any, BinaryIO, ClassVar, cast

import click
import swiftclient.client

from ...actor import Actor, SecretOption
from ...errors import ConfigurationError, PermanentError, TargetError
from ...files import File, Listing, Page, PagedListing
from ...source.source_file import SourceFile
from .._clock import parse_iso_time, seconds_ahead
from .._content import guess_content_type, md5_of
from .._key_checks import is_text
from .._memory_budget import Memory
from .._page_tokens import PageTokens
from .._parts import send_one_version, tried
from .._server_text import one_line
from .._sessions import in_blocks
from .._urls import check_url
from .errors import status_of
from .identity import VERSIONS, Access, Login
from .keys import can_exist, check_key, is_long
from .object_deleter import AT_ONCE, ObjectDeleter
from .segments import Md5Reader, Segments, etag_of, segment_ranges

#: Files up to this size are read once, into memory.
_SMALL = 8 << 20
_READ = 1 << 20
_NOT_FOUND, _PRECONDITION_FAILED = 404, 412
#: Appended to the ETag of a large object.
_LARGE = "-slo"
_MD5 = re.compile(r"[0-9a-f]{32}(?:-slo)?")


class SwiftActor(Actor):
    """Objects in a container."""

    container_is: ClassVar[str] = "container"
    options: ClassVar[Sequence[click.Option]] = (
        click.Option(["--auth-url"], metavar="URL", help="Identity service: https://keystone.example.org/v3"),
        click.Option(["--auth-version"], type=click.Choice(VERSIONS), help="Version of the identity service, if its URL has none."),
        click.Option(["--user"], metavar="NAME", help="User. Of version 1: ACCOUNT:USER."),
        SecretOption(["--password"], help="Password of the user; of Rackspace: the API key."),
        click.Option(["--project"], metavar="NAME", help="Project (tenant) that the container is in."),
        click.Option(["--user-domain"], metavar="NAME", default="Default", show_default=True, help="Domain of the user."),
        click.Option(["--project-domain"], metavar="NAME", default="Default", show_default=True, help="Domain of the project."),
        click.Option(["--application-credential"], metavar="ID", help="Application credential to use in place of a user."),
        SecretOption(["--application-credential-secret"], help="Secret of the application credential."),
        click.Option(["--region"], metavar="NAME", help="Region, if the catalog has several."),
        click.Option(
            ["--interface"], type=click.Choice(["public", "internal", "admin"]), default="public", show_default=True,
            help="Which of the addresses in the catalog; internal is Rackspace's ServiceNet.",
        ),
        click.Option(["--storage-url"], metavar="URL", help="Address of the account in place of that in the catalog."),
        click.Option(
            ["--segment-size"], metavar="MIB", type=click.IntRange(1, 5120), default=256, show_default=True,
            help="Larger files are sent as segments of this size.",
        ),
    )  # fmt: skip

    auth_url: str | None = None
    auth_version: str | None = None
    user: str | None = None
    password: str | None = None
    project: str | None = None
    user_domain: str | None = None
    project_domain: str | None = None
    application_credential: str | None = None
    application_credential_secret: str | None = None
    region: str | None = None
    interface: str | None = None
    storage_url: str | None = None
    segment_size: int | None = None

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        for option in ("auth_url", "storage_url"):
            if (url := getattr(self, option)) is not None:
                check_url(f"--{option.replace('_', '-')}", url, "https://keystone.example.org/v3")
        if not self.auth_url:
            raise ConfigurationError("--auth-url is missing", "give the URL of the identity service")
        self._name = str(self.target_container)
        if "/" in self._name or len(self._name.encode()) > 256 - len("_segments"):
            raise ConfigurationError(
                f"--target-container {self._name} cannot be the name of a container", "names are short and have no slash"
            )
        self._access = Access(self._login(self.auth_url), self.region, self.interface or "public", self.storage_url)
        self._segment_size = (self.segment_size or 256) << 20
        self._deleter = ObjectDeleter(self._access)
        self._segments = Segments(self._access, self._name, _object_headers, self._deleter)
        self._memory = Memory()

    def _login(self, url: str) -> Login:
        credential = None
        if self.application_credential:
            if not self.application_credential_secret:
                raise ConfigurationError("--application-credential-secret is missing", "give it as @FILE, or in the environment")
            credential = (self.application_credential, self.application_credential_secret)
        domains = {"user_domain": self.user_domain or "Default", "project_domain": self.project_domain or "Default"}
        return Login(url, self.auth_version, self.user, self.password, self.project, **domains, credential=credential)

    # The interface of an actor

    def check(self) -> None:
        """Check that the login works and that the container exists."""
        self._access.request(self._container, partial(_listed, container=self._name, prefix="", after="", limit=1))

    def check_key(self, key: str) -> None:
        """See `Actor.check_key`."""
        check_key(key)

    def list(self, prefix: str = "") -> Listing:
        """Objects by pages, in the order of bytes."""
        return PagedListing(self._pages(prefix) if is_text(prefix) else (), already_sorted=True)

    def _pages(self, prefix: str) -> Iterator[Page]:
        # Swift computes the name that follows the prefix, and fails for the last character. Keys that do not match are ignored later.
        prefix = prefix.rstrip(chr(sys.maxunicode))
        after, tokens = "", PageTokens()
        while found := self._access.request(self._container, partial(_listed, container=self._name, prefix=prefix, after=after)):
            try:
                page = Page(
                    [one["name"] for one in found],
                    [one["bytes"] for one in found],
                    [parse_iso_time(one["last_modified"], UTC) for one in found],
                    [_etag(one) for one in found],
                )
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                what = f"{self._container}: a page of the listing cannot be read: {type(error).__name__}: {one_line(str(error))}"
                raise TargetError(what) from None
            yield page
            after = page.keys[-1]
            fault = tokens.fault(after)
            if fault:
                raise TargetError(f"{self._container}: {fault}")

    def upload(self, file: File) -> None:
        """Send one file: with one request, or in segments if it is large."""
        source = cast(SourceFile, file)
        check_key(source.key)
        if source.size > self._segment_size:
            self._send_segments(source)
        elif source.size > _SMALL:
            self._send_stream(source)
        else:
            with self._memory.of(source.size):
                self._send(source)

    def delete(self, file: File) -> None:
        """Delete one object and its segments."""
        (error,) = self.delete_many([file])
        if error is not None:
            raise error

    def delete_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Delete several objects. Their segments are deleted first, so that no segments without an object are left."""
        keys = [file.key for file in files if can_exist(file.key)]
        results = self._delete_long([file.key for file in files if is_long(file.key)])
        for start in range(0, len(keys), AT_ONCE):
            results |= self._delete_page(keys[start : start + AT_ONCE])
        return [results.get(file.key) for file in files]

    def can_match(self, listed: File) -> bool:
        """See `Actor.can_match`. An ETag is an MD5: of the content, or, for a large object, of the ETags of its segments."""
        return _MD5.fullmatch(listed.etag or "") is not None

    def matches(self, file: File, etag: str) -> bool:
        """See `Actor.matches`. The ETag of a large object is computed for segments of today's size."""
        source = cast(SourceFile, file)
        if etag.endswith(_LARGE):
            return etag_of(md5_of(source, *segment) for segment in segment_ranges(source.size, self._segment_size)) + _LARGE == etag
        return md5_of(source) == etag

    def abandon(self, key: str, token: str) -> None:
        """Remove the segments of an upload. If the object consists of them by now, remove those of other uploads instead."""
        if self._segments.is_live(key, token):
            self._segments.remove(key, keep_token=token)
        else:
            self._deleter.all(self._segments.container, [one.name for one in self._segments.of([key]) if one.token == token])

    def clock_ahead(self) -> float:
        """See `Actor.clock_ahead`; from the Date of a response."""

        def do(url: str, token: str, connection: Any) -> str:
            return str(swiftclient.client.head_container(url, token, self._name, http_conn=connection).get("date", ""))

        self._access.request(self._container, do)  # so that the time of the login does not count
        before = time.time()
        date = self._access.request(self._container, do)
        return seconds_ahead(date, before, time.time())

    def close(self) -> None:
        """Close the connections."""
        self._access.close()

    # Uploading

    def _send(self, file: SourceFile) -> None:
        """Send a small file. The first request succeeds only if the object is new; then no segments of an older one can exist."""
        content = file.content()
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        file.wait_for_bandwidth(content)
        if self._put(file, content, etag, new=True):
            return
        file.wait_for_request()
        file.wait_for_bandwidth(content)
        self._put(file, content, etag)
        file.wait_for_request()
        self._segments.remove(file.key)

    def _send_stream(self, file: SourceFile) -> None:
        """Send a file that is too large for memory. Whether the object exists is checked before, so that the body is sent only once."""
        file.wait_for_request()
        existed = self._exists(file.key)
        self._put(file, file.open())
        if existed:
            file.wait_for_request()
            self._segments.remove(file.key)

    def _put(self, file: SourceFile, content: bytes | BinaryIO, etag: str = "", *, new: bool = False) -> bool:
        """Store an object with one request.

        Args:
            file: that is sent.
            content: the bytes of the file.
            etag: the MD5 of `content`, if that is bytes.
            new: store it only if there is no such object.

        Returns:
            Whether the object was stored.
        """
        headers = _object_headers(file.key, file.mtime_ns) | ({"If-None-Match": "*"} if new else {})

        def do(url: str, token: str, connection: Any) -> None:
            put = partial(swiftclient.client.put_object, url, token, self._name, file.key, headers=headers, http_conn=connection)
            if isinstance(content, bytes):
                found = put(contents=in_blocks(content), content_length=len(content), etag=etag, chunk_size=_READ if content else None)
                if found != etag:
                    raise TargetError(f"{file.key}: the ETag is not that of the content that was sent")
                return
            content.seek(0)
            body = Md5Reader(content)
            body.check_etag(file.key, put(contents=body, content_length=file.size, chunk_size=_READ))

        try:
            self._access.request(file.key, do)
        except PermanentError as error:
            if new and status_of(error) == _PRECONDITION_FAILED:
                return False
            raise
        return True

    def _exists(self, key: str) -> bool:
        def do(url: str, token: str, connection: Any) -> bool:
            try:
                swiftclient.client.head_object(url, token, self._name, key, http_conn=connection)
            except swiftclient.client.ClientException as error:
                if error.http_status == _NOT_FOUND:
                    return False
                raise
            return True

        return self._access.request(key, do)

    def _send_segments(self, file: SourceFile) -> None:
        token = self._segments.begin(file)
        file.begun(token)
        try:
            send = partial(self._segments.send, file.key, token)
            etags = send_one_version(file, segment_ranges(file.size, self._segment_size), send)
            tried(file, lambda: self._complete(file, token, etags))
        except BaseException:
            self._abort(file, token)
            raise
        file.ended(token)

    def _complete(self, file: SourceFile, token: str, etags: dict[int, str]) -> None:
        file.wait_for_request()
        self._segments.complete(file.key, token, etags)

    def _abort(self, file: SourceFile, token: str) -> None:
        try:
            self.abandon(file.key, token)
        except Exception:  # noqa: S110 - the caller raises the first error; the next transfer abandons the upload
            pass
        else:
            file.ended(token)

    # Deleting

    def _delete_long(self, keys: Sequence[str]) -> dict[str, TargetError | None]:
        """Delete objects whose names are longer than those of uploads; a Swift may allow more. They have no segments of ours."""
        results: dict[str, TargetError | None] = {}
        for key in keys:
            try:
                self._deleter.one(self._name, key)
            except TargetError as error:
                results[key] = error
        return results

    def _delete_page(self, keys: Sequence[str]) -> dict[str, TargetError | None]:
        try:
            segments = [*self._segments.of(keys)]
            failed = self._deleter.each(self._segments.container, [one.name for one in segments])
        except TargetError as error:
            return dict.fromkeys(keys, error)
        results: dict[str, TargetError | None] = {one.key: failed[one.name] for one in segments if one.name in failed}
        try:
            return results | self._deleter.each(self._name, [key for key in keys if key not in results])
        except TargetError as error:
            return dict.fromkeys(keys, error) | results

    @property
    def _container(self) -> str:
        return f"{self.container_is} {self._name}"


def _listed(url: str, token: str, connection: Any, *, container: str, prefix: str, after: str, limit: int | None = None) -> Any:
    """One page of a listing."""
    return swiftclient.client.get_container(
        url, token, container, marker=after or None, prefix=prefix or None, limit=limit, http_conn=connection
    )[1]


def _object_headers(key: str, mtime_ns: int) -> dict[str, str]:
    """The headers of an object: media type, and modification time in the form of rclone and swift(1)."""
    seconds, rest = divmod(abs(mtime_ns), 10**9)
    return {"Content-Type": guess_content_type(key), "X-Object-Meta-Mtime": f"{'-' if mtime_ns < 0 else ''}{seconds}.{rest:09}"}


def _etag(one: dict[str, Any]) -> str | None:
    large = one.get("slo_etag")
    return large.strip('"') + _LARGE if large else one.get("hash")
