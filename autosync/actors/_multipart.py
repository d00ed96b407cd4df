"""Multipart uploads of large files. An upload is completed only if the parts that were sent are of one version of the file.

Before an upload may exist in the target, it is noted in the ledger: first the intention to begin one, since the response with its id may be
lost, then the id. If a worker is killed, the next one aborts exactly the uploads that were noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import BinaryIO, NamedTuple, Protocol

from ..errors import PermanentError, SlowDown, TargetError
from ..source.source_file import SourceFile
from ._parts import PartRange, send_one_version, tried

#: Prefix of the note of an intention, before its time in seconds since the epoch.
_INTENTION = "begins "
#: An intended upload was initiated at most so much before the intention, in seconds: clocks differ a little.
_EARLIEST = -2.0


class NothingSent(TargetError):  # noqa: N818 - a finding about an error
    """No connection was made, so the server has not received the request."""


class OpenUpload(NamedTuple):
    """An upload that was neither completed nor aborted.

    Attributes:
        upload_id: the server's id of the upload.
        initiated: when it was initiated, by this host's clock, in seconds since the epoch.
        uncertainty: how far that time may be off, in seconds.
    """

    upload_id: str
    initiated: float
    uncertainty: float


class MultipartRequests(Protocol):
    """The requests of multipart uploads. Each raises `TargetError` if it fails."""

    def send_part(self, key: str, upload_id: str, number: int, content: BinaryIO, size: int) -> str:
        """Send a part. Returns its ETag."""

    def complete(self, key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Make an object of the parts, whose ETags are given by part number."""

    def abort(self, key: str, upload_id: str) -> None:
        """Abort an upload; it is no error if there is none."""

    def open_uploads(self, key: str) -> Iterator[OpenUpload]:
        """The open uploads of exactly this key."""


class MultipartUploader:
    """Sends large files to one bucket.

    Args:
        requests: sends the requests to its server.
        latest: an intended upload was initiated at most so much after the intention, in seconds: as long as the request may take.
    """

    def __init__(self, requests: MultipartRequests, latest: float) -> None:
        self._requests = requests
        self._latest = latest

    def send(self, file: SourceFile, ranges: Iterable[PartRange], create: Callable[[], str]) -> None:
        """Send one file.

        Args:
            file: the file to send.
            ranges: the byte ranges of its parts.
            create: creates an upload, with a request that is sent once, and returns its id.

        Raises:
            TargetError: a request failed.
            FileChanged: the file changed.
        """
        upload_id = self._create(file, create)
        try:
            etags = send_one_version(file, ranges, partial(self._requests.send_part, file.key, upload_id))
            tried(file, lambda: self._complete(file, upload_id, etags))
        except BaseException:
            self._try_to_abort(file, upload_id)
            raise
        file.ended(upload_id)

    def abandon(self, key: str, token: str) -> None:
        """Abort what an earlier transfer left open (see `Actor.abandon`).

        Args:
            key: the object's key.
            token: the id of an upload, which is aborted; or the time of an intention: uploads of this key from around then are aborted.
        """
        if token.startswith(_INTENTION):
            for upload_id in [*self._initiated_around(key, float(token.removeprefix(_INTENTION)))]:
                self._requests.abort(key, upload_id)
        else:
            self._requests.abort(key, token)

    def _create(self, file: SourceFile, create: Callable[[], str]) -> str:
        intention = f"{_INTENTION}{time.time():.3f}"
        file.begun(intention)
        try:
            upload_id = create()
        except (PermanentError, SlowDown, NothingSent):
            file.ended(intention)
            raise
        try:
            file.begun(upload_id, intention)
        except BaseException:
            self._try_to_abort(file, upload_id)
            raise
        return upload_id

    def _complete(self, file: SourceFile, upload_id: str, etags: Mapping[int, str]) -> None:
        file.wait_for_request()
        self._requests.complete(file.key, upload_id, etags)

    def _try_to_abort(self, file: SourceFile, upload_id: str) -> None:
        with suppress(Exception):  # the caller raises the first error; an upload that stays open is aborted by the next transfer
            self._requests.abort(file.key, upload_id)
            file.ended(upload_id)

    def _initiated_around(self, key: str, when: float) -> Iterator[str]:
        """The ids of the uploads of this key that were initiated at that time, in seconds since the epoch by this host's clock."""
        for found in self._requests.open_uploads(key):
            if _EARLIEST - found.uncertainty <= found.initiated - when <= self._latest + found.uncertainty:
                yield found.upload_id
