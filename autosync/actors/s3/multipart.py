"""Multipart uploads of large files. An upload is completed only if the parts that were sent are of one version of the file.

Before an upload may exist in the bucket, it is noted in the ledger: first the intention to begin one, since the response with its UploadId
may be lost, then the UploadId. If a worker is killed, the next one aborts exactly the uploads that were noted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial

from ...errors import PermanentError, SlowDown
from ...source.source_file import SourceFile
from .._parts import PartRange, part_ranges, send_one_version, tried
from .errors import NothingSent
from .fast.http import CONNECT_SECONDS, READ_SECONDS
from .fast.multipart import MultipartRequests
from .headers import ObjectHeaders

#: Size of a part in bytes; larger files have larger parts, since S3 allows so many of them.
PART_BYTES, _MOST_PARTS = 8 << 20, 10_000
#: Prefix of the note of an intention, before its time in seconds since the epoch.
_INTENTION = "begins "
#: An intended upload was initiated between these times after the intention, in seconds: clocks differ a little, a proxy may take its time,
#: and boto3, which made the request in earlier versions, tried twice.
_EARLIEST, _LATEST = -2.0, 2.0 * (CONNECT_SECONDS + READ_SECONDS) + 5.0


class MultipartUploader:
    """Sends large files to one bucket.

    Args:
        requests: sends the requests to its server.
    """

    def __init__(self, requests: MultipartRequests) -> None:
        self._requests = requests

    def send(self, file: SourceFile, headers: ObjectHeaders) -> None:
        """Send one file.

        Raises:
            TargetError: a request failed.
            FileChanged: the file changed.
        """
        upload_id = self._create(file, headers)
        try:
            etags = send_one_version(file, upload_ranges(file.size), partial(self._requests.send_part, file.key, upload_id))
            tried(file, lambda: self._complete(file, upload_id, etags))
        except BaseException:
            self._try_to_abort(file, upload_id)
            raise
        file.ended(upload_id)

    def abandon(self, key: str, token: str) -> None:
        """Abort what an earlier transfer left open (see `Actor.abandon`).

        Args:
            key: of the object.
            token: an UploadId; or an intention, of which every upload of this key that was initiated around then is aborted.
        """
        if token.startswith(_INTENTION):
            for upload_id in self._initiated_around(key, float(token.removeprefix(_INTENTION))):
                self._requests.abort(key, upload_id)
        else:
            self._requests.abort(key, token)

    def _create(self, file: SourceFile, headers: ObjectHeaders) -> str:
        intention = f"{_INTENTION}{time.time():.3f}"
        file.begun(intention)
        try:
            upload_id = self._requests.create(file.key, headers)
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
        file.ask()
        self._requests.complete(file.key, upload_id, etags)

    def _try_to_abort(self, file: SourceFile, upload_id: str) -> None:
        with suppress(Exception):  # the caller raises the first error; an upload that stays open is aborted by the next transfer
            self._requests.abort(file.key, upload_id)
            file.ended(upload_id)

    def _initiated_around(self, key: str, when: float) -> Iterator[str]:
        """The UploadIds of this key whose uploads were initiated at that time, in seconds since the epoch by this host's clock."""
        for found in self._requests.open_uploads(key):
            if _EARLIEST - found.uncertainty <= found.initiated - when <= _LATEST + found.uncertainty:
                yield found.upload_id


def upload_ranges(size: int) -> Iterator[PartRange]:
    """The parts of a file of this size (in bytes)."""
    return part_ranges(size, PART_BYTES, _MOST_PARTS)
