"""Large objects: the segments are in a container of their own, and the object is a manifest that lists them.

https://docs.openstack.org/swift/latest/overview_large_objects.html (static large objects). The name of a segment is
`autosync/KEY/TOKEN/NUMBER`. Each upload has its own token. Neither token nor number has a slash, so the key can be read from the name.
Nothing else in that container is touched.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import swiftclient.client

from ...errors import PermanentError, TargetError, TargetRefused
from ...source.source_file import SourceFile
from .._parts import PartRange, part_ranges
from .errors import status_of
from .identity import Access
from .keys import LONGEST_NAME
from .object_deleter import ObjectDeleter

_ABOVE = "autosync/"
_NAME = re.compile(r"autosync/(?P<key>.*)/(?P<token>-?[0-9]+-[0-9]+-[0-9a-f]{16})/[0-9]{8}", re.DOTALL)
#: Swift's default limits: segments of a manifest, bytes of a segment. Few deployments change them.
_MOST_SEGMENTS = 1000
_LARGEST = 5 << 30
_READ = 1 << 20
_FORBIDDEN, _NOT_FOUND = 403, 404
_PAGE = 1000


class Segment(NamedTuple):
    """A segment in the container."""

    name: str
    key: str
    token: str


def segment_ranges(size: int, segment_bytes: int) -> Iterator[PartRange]:
    """The segments of a file; see `part_ranges`. Both sizes are in bytes."""
    return part_ranges(size, segment_bytes, _MOST_SEGMENTS)


class Segments:
    """The segments of one container.

    Args:
        access: the access to Swift.
        container: the container with the objects; the segments are in CONTAINER_segments.
        object_headers: makes the headers of an object from its key and the modification time of the file in nanoseconds.
        deleter: deletes segments.
    """

    def __init__(
        self, access: Access, container: str, object_headers: Callable[[str, int], dict[str, str]], deleter: ObjectDeleter
    ) -> None:
        self._access = access
        self._container = container
        self.container = f"{container}_segments"
        self._object_headers = object_headers
        self._deleter = deleter
        self._is_ready = False

    def begin(self, file: SourceFile) -> str:
        """Begin an upload in segments.

        Returns:
            The token in the names of its segments.

        Raises:
            PermanentError: the key is too long, or the file too large.
        """
        token = f"{file.mtime_ns}-{file.size}-{secrets.token_hex(8)}"
        if len(_name(file.key, token, 0).encode()) > LONGEST_NAME:
            raise PermanentError(f"{file.key}: too long a key for a large file: its segments could not be named", "rename the file")
        if file.size > _MOST_SEGMENTS * _LARGEST:
            raise PermanentError(f"{file.key}: {file.size:,} bytes are more than Swift can store", "split the file")
        self._make_ready()
        return token

    def send(self, key: str, token: str, number: int, content: BinaryIO, size: int) -> str:
        """Send one segment.

        Args:
            key: the object's key.
            token: the token of the upload.
            number: the segment's number, from 1 on.
            content: a stream of the segment's bytes.
            size: the segment's size in bytes.

        Returns:
            The ETag of the segment.

        Raises:
            TargetError: the segment was not stored.
        """

        def do(url: str, token_: str, connection: Any) -> str:
            content.seek(0)
            body = Md5Reader(content)
            found = swiftclient.client.put_object(
                url, token_, self.container, _name(key, token, number), body, size, http_conn=connection, chunk_size=_READ
            )
            body.check_etag(key, found)
            return str(found)

        try:
            return self._access.request(key, do)
        except TargetRefused as error:
            if status_of(error) != _NOT_FOUND:
                raise
            self._is_ready = False  # the container was removed meanwhile, and is made again
            raise TargetError(error.what) from error

    def complete(self, key: str, token: str, etags: Mapping[int, str]) -> None:
        """Make the object from its segments, and remove the segments of earlier uploads.

        Args:
            key: the object's key.
            token: the token of the upload.
            etags: the ETag of each segment, by number.

        Raises:
            TargetError: the object was not made, or old segments are left.
        """
        listed = [{"path": f"/{self.container}/{_name(key, token, number)}", "etag": etags[number]} for number in sorted(etags)]
        expected = etag_of(etags[number] for number in sorted(etags))
        headers = self._object_headers(key, int(token.rsplit("-", 2)[0]))

        def do(url: str, token_: str, connection: Any) -> str:
            return str(
                swiftclient.client.put_object(
                    url, token_, self._container, key, json.dumps(listed).encode(), headers=headers, http_conn=connection,
                    query_string="multipart-manifest=put", chunk_size=None,
                )
            )  # fmt: skip

        try:
            found = self._access.request(key, do)
        except PermanentError as error:
            if status_of(error) == 400:  # a segment is missing or differs: the next try sends all again
                raise TargetError(error.what) from error
            raise
        if found != expected:
            self._check_manifest(key)
        self.remove(key, keep_token=token)

    def _check_manifest(self, key: str) -> None:
        """Raise the error for an ETag that is not the expected one. If Swift stored the manifest as a plain object, delete it."""

        def do(url: str, token: str, connection: Any) -> bool:
            headers = swiftclient.client.head_object(url, token, self._container, key, http_conn=connection)
            return bool(headers.get("x-static-large-object", "").lower() == "true")

        if self._access.request(key, do):
            raise TargetError(f"{key}: the ETag is not that of the content that was sent")
        self._deleter.all(self._container, [key])
        raise self._no_manifests(key)

    def is_live(self, key: str, token: str) -> bool:
        """Whether the object consists of the segments of this upload."""

        def do(url: str, token_: str, connection: Any) -> bytes:
            headers, found = swiftclient.client.get_object(
                url, token_, self._container, key, http_conn=connection, query_string="multipart-manifest=get", resp_chunk_size=_READ,
                headers={"X-Newest": "true"},
            )  # fmt: skip
            is_large = headers.get("x-static-large-object", "").lower() == "true"
            content = b"".join(found) if is_large else b"[]"
            found.close()
            return content

        try:
            content = self._access.request(key, do)
        except TargetRefused as error:
            if status_of(error) == _NOT_FOUND:
                return False
            raise
        prefix = f"/{self.container}/{_ABOVE}{key}/{token}/"
        return any(str(one.get("name", "")).startswith(prefix) for one in json.loads(content))

    def remove(self, key: str, keep_token: str = "") -> None:
        """Remove the segments of a key, except those of the upload with the token `keep_token`."""
        self._deleter.all(self.container, [one.name for one in self.of([key]) if one.token != keep_token])

    def of(self, keys: Collection[str]) -> Iterator[Segment]:
        """The segments of these keys."""
        wanted = {*keys}
        ahead = sorted(wanted, reverse=True)
        after, end = "", max(map(_end_of_segments, wanted), default="")
        while ahead:
            # Names between two keys are skipped, however many they are.
            after = max(after, _ABOVE + ahead[-1])
            names = self._page(after, end)
            for name in names:
                found = _NAME.fullmatch(name)
                if found and found["key"] in wanted:
                    yield Segment(name, found["key"], found["token"])
            if len(names) < _PAGE:
                return
            after = names[-1]
            while ahead and _end_of_segments(ahead[-1]) <= after:
                ahead.pop()

    def _page(self, after: str, before: str) -> list[str]:
        def do(url: str, token: str, connection: Any) -> list[str]:
            _, found = swiftclient.client.get_container(
                url, token, self.container, marker=after, end_marker=before, limit=_PAGE, http_conn=connection
            )
            return [one["name"] for one in found]

        try:
            return self._access.request(self.container, do)
        except TargetRefused as error:
            if status_of(error) in (_FORBIDDEN, _NOT_FOUND):
                return []  # there is no such container, or this login can never have written to it
            raise

    def _make_ready(self) -> None:
        """Check that Swift has large objects, and create the container of segments with the storage policy of the target container."""
        if self._is_ready:
            return

        def do(url: str, token: str, connection: Any) -> None:
            policy = swiftclient.client.head_container(url, token, self._container, http_conn=connection).get("x-storage-policy")
            headers = {"X-Storage-Policy": policy} if policy else {}
            try:
                swiftclient.client.head_container(url, token, self.container, http_conn=connection)
            except swiftclient.client.ClientException as error:
                if error.http_status != _NOT_FOUND:
                    raise
                swiftclient.client.put_container(url, token, self.container, headers=headers, http_conn=connection)

        if not self._access.has_middleware("slo"):
            raise self._no_manifests(self._container)
        self._access.request(self.container, do)
        self._is_ready = True

    def _no_manifests(self, about: str) -> PermanentError:
        return PermanentError(
            f"{about}: this Swift has no large objects",
            "its middleware `slo` is missing; or send smaller files, or with a larger --segment-size",
        )


class Md5Reader:
    """Reads a stream and computes its MD5."""

    def __init__(self, content: BinaryIO) -> None:
        self._content = content
        self._digest = hashlib.md5(usedforsecurity=False)

    def read(self, size: int = -1) -> bytes:
        data = self._content.read(size)
        self._digest.update(data)
        return data

    def check_etag(self, key: str, etag: str) -> None:
        """Compare the ETag of a response with the MD5 of the bytes read.

        Raises:
            TargetError: they differ.
        """
        if etag != self._digest.hexdigest():
            raise TargetError(f"{key}: the ETag is not that of the content that was sent")


def etag_of(etags: Iterator[str]) -> str:
    """The ETag of a large object, from those of its segments."""
    return hashlib.md5("".join(etags).encode(), usedforsecurity=False).hexdigest()


def _end_of_segments(key: str) -> str:
    """The first name that a listing has behind all segments of a key: in ASCII, 0 follows the slash."""
    return f"{_ABOVE}{key}0"


def _name(key: str, token: str, number: int) -> str:
    return f"{_ABOVE}{key}/{token}/{number:08}"
