"""Large objects: their segments stand in a container of their own, and a manifest, which lists them, in their place.

https://docs.openstack.org/swift/latest/overview_large_objects.html (static large objects). A segment is called `autosync/KEY/TOKEN/NUMBER`:
the token is of one upload, and neither it nor the number has a slash, so a name says whose it is. Nothing else there is touched.
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
from .deletions import Deletions
from .errors import answered_with
from .identity import Access
from .keys import LONGEST_NAME

_ABOVE = "autosync/"
_NAME = re.compile(r"autosync/(?P<key>.*)/(?P<token>-?[0-9]+-[0-9]+-[0-9a-f]{16})/[0-9]{8}", re.DOTALL)
#: Swift's own limits, which few change: segments of a manifest, bytes of a segment.
_MOST_SEGMENTS = 1000
_LARGEST = 5 << 30
_READ = 1 << 20
_FORBIDDEN, _NOT_FOUND = 403, 404
_PAGE = 1000


class Segment(NamedTuple):
    """A segment that is there."""

    name: str
    key: str
    token: str


def segment_ranges(size: int, segment_bytes: int) -> Iterator[PartRange]:
    """The segments of a file; see `part_ranges`. Both sizes are in bytes."""
    return part_ranges(size, segment_bytes, _MOST_SEGMENTS)


class Segments:
    """The segments of one container.

    Args:
        access: to Swift.
        container: whose segments they are.
        described: gives the headers of an object, by its key and the time of the file in nanoseconds.
        deletions: delete what is not needed any more.
    """

    def __init__(self, access: Access, container: str, described: Callable[[str, int], dict[str, str]], deletions: Deletions) -> None:
        self._access = access
        self._container = container
        self.container = f"{container}_segments"
        self._described = described
        self._deletions = deletions
        self._is_ready = False

    def begin(self, file: SourceFile) -> str:
        """What the segments of a new upload are called by.

        Raises:
            PermanentError: they cannot be.
        """
        token = f"{file.mtime_ns}-{file.size}-{secrets.token_hex(8)}"
        if len(_name(file.key, token, 0).encode()) > LONGEST_NAME:
            raise PermanentError(f"{file.key}: too long a key for a large file: its segments could not be named", "rename the file")
        if file.size > _MOST_SEGMENTS * _LARGEST:
            raise PermanentError(f"{file.key}: {file.size:,} bytes are more than Swift can store", "split the file")
        self._make_ready()
        return token

    def send(self, key: str, token: str, number: int, content: BinaryIO, size: int) -> str:
        """Send one. Returns its ETag."""

        def do(url: str, token_: str, connection: Any) -> str:
            content.seek(0)
            summed = Summed(content)
            found = swiftclient.client.put_object(
                url, token_, self.container, _name(key, token, number), summed, size, http_conn=connection, chunk_size=_READ
            )
            summed.check_etag(key, found)
            return str(found)

        try:
            return self._access.ask(key, do)
        except TargetRefused as error:
            if answered_with(error) != _NOT_FOUND:
                raise
            self._is_ready = False  # somebody has removed the container; it is made again
            raise TargetError(error.what) from error

    def complete(self, key: str, token: str, etags: Mapping[int, str]) -> None:
        """Make the object of its segments, and remove those of older ones.

        Raises:
            TargetError: it is not made, or some are left.
        """
        listed = [{"path": f"/{self.container}/{_name(key, token, number)}", "etag": etags[number]} for number in sorted(etags)]
        expected = etag_of(etags[number] for number in sorted(etags))
        headers = self._described(key, int(token.rsplit("-", 2)[0]))

        def do(url: str, token_: str, connection: Any) -> str:
            return str(
                swiftclient.client.put_object(
                    url, token_, self._container, key, json.dumps(listed).encode(), headers=headers, http_conn=connection,
                    query_string="multipart-manifest=put", chunk_size=None,
                )
            )  # fmt: skip

        try:
            found = self._access.ask(key, do)
        except PermanentError as error:
            if answered_with(error) == 400:  # a segment is gone or another one: the next try sends them anew
                raise TargetError(error.what) from error
            raise
        if found != expected:
            self._check_manifest(key)
        self.remove(key, but=token)

    def _check_manifest(self, key: str) -> None:
        """The ETag is not that of a large object: see whether it is one. Where a manifest is no more to Swift than its text, it goes."""

        def do(url: str, token: str, connection: Any) -> bool:
            said = swiftclient.client.head_object(url, token, self._container, key, http_conn=connection)
            return bool(said.get("x-static-large-object", "").lower() == "true")

        if self._access.ask(key, do):
            raise TargetError(f"{key}: something else has arrived than was sent")
        self._deletions.all(self._container, [key])
        raise self._no_manifests(key)

    def is_live(self, key: str, token: str) -> bool:
        """Whether the object is made of the segments of this upload."""

        def do(url: str, token_: str, connection: Any) -> bytes:
            said, found = swiftclient.client.get_object(
                url, token_, self._container, key, http_conn=connection, query_string="multipart-manifest=get", resp_chunk_size=_READ,
                headers={"X-Newest": "true"},
            )  # fmt: skip
            is_one = said.get("x-static-large-object", "").lower() == "true"
            content = b"".join(found) if is_one else b"[]"
            found.close()
            return content

        try:
            content = self._access.ask(key, do)
        except TargetRefused as error:
            if answered_with(error) == _NOT_FOUND:
                return False
            raise
        prefix = f"/{self.container}/{_ABOVE}{key}/{token}/"
        return any(str(one.get("name", "")).startswith(prefix) for one in json.loads(content))

    def remove(self, key: str, but: str = "") -> None:
        """Remove the segments of a key, but for those of one upload."""
        self._deletions.all(self.container, [one.name for one in self.of([key]) if one.token != but])

    def of(self, keys: Collection[str]) -> Iterator[Segment]:
        """The segments of these keys."""
        wanted = {*keys}
        ahead = sorted(wanted, reverse=True)
        after, end = "", max(map(_behind, wanted), default="")
        while ahead:
            # What stands between the keys is jumped over, however much it is.
            after = max(after, _ABOVE + ahead[-1])
            names = self._page(after, end)
            for name in names:
                found = _NAME.fullmatch(name)
                if found and found["key"] in wanted:
                    yield Segment(name, found["key"], found["token"])
            if len(names) < _PAGE:
                return
            after = names[-1]
            while ahead and _behind(ahead[-1]) <= after:
                ahead.pop()

    def _page(self, after: str, before: str) -> list[str]:
        def do(url: str, token: str, connection: Any) -> list[str]:
            _, found = swiftclient.client.get_container(
                url, token, self.container, marker=after, end_marker=before, limit=_PAGE, http_conn=connection
            )
            return [one["name"] for one in found]

        try:
            return self._access.ask(self.container, do)
        except TargetRefused as error:
            if answered_with(error) in (_FORBIDDEN, _NOT_FOUND):
                return []  # there is none, or none that this login could ever have filled
            raise

    def _make_ready(self) -> None:
        """See that there can be large objects, and a container for their segments, of the same storage policy."""
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

        if not self._access.can("slo"):
            raise self._no_manifests(self._container)
        self._access.ask(self.container, do)
        self._is_ready = True

    def _no_manifests(self, about: str) -> PermanentError:
        return PermanentError(
            f"{about}: this Swift has no large objects",
            "its middleware `slo` is missing; or send smaller files, or with a larger --segment-size",
        )


class Summed:
    """A stream whose MD5 is taken while it is read."""

    def __init__(self, content: BinaryIO) -> None:
        self._content = content
        self._digest = hashlib.md5(usedforsecurity=False)

    def read(self, size: int = -1) -> bytes:
        data = self._content.read(size)
        self._digest.update(data)
        return data

    def check_etag(self, key: str, etag: str) -> None:
        """Raises `TargetError` if this is not the ETag of what was read."""
        if etag != self._digest.hexdigest():
            raise TargetError(f"{key}: something else has arrived than was sent")


def etag_of(etags: Iterator[str]) -> str:
    """The ETag of a large object whose segments have these."""
    return hashlib.md5("".join(etags).encode(), usedforsecurity=False).hexdigest()


def _behind(key: str) -> str:
    """What comes in a listing behind all segments of a key: 0 is what follows a slash in ASCII."""
    return f"{_ABOVE}{key}0"


def _name(key: str, token: str, number: int) -> str:
    return f"{_ABOVE}{key}/{token}/{number:08}"
