"""The requests of multipart uploads.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from html import unescape
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from ....errors import TargetError
from ..errors import translated
from ..headers import ObjectHeaders
from .requests import ObjectRequests

_UPLOAD_ID = re.compile(r"<UploadId>([^<]+)</UploadId>")
_NOT_FOUND = 404


class OpenUpload(NamedTuple):
    """An upload that was neither completed nor aborted.

    Attributes:
        upload_id: of the upload.
        initiated: when it was initiated, by this host's clock, in seconds since the epoch.
        uncertainty: how far that time may be off, in seconds.
    """

    upload_id: str
    initiated: float
    uncertainty: float


class MultipartRequests:
    """The requests of multipart uploads to one bucket, over the connections of its small objects. Each raises `TargetError` if it fails.

    Args:
        objects: sends the requests.
        open_uploads: returns the open uploads of exactly one key.
        server: name of the server in error messages.
    """

    def __init__(self, objects: ObjectRequests, open_uploads: Callable[[str], Iterator[OpenUpload]], server: str) -> None:
        self._objects = objects
        self._open_uploads = open_uploads
        self._server = server

    def create(self, key: str, headers: ObjectHeaders) -> str:
        """Create an upload. The request is sent only once, so there is no second upload.

        Returns:
            Its UploadId.

        Raises:
            NothingSent: no upload was created for certain.
        """
        response = self._objects.send_once("POST", key, content_type=headers.content_type, query="uploads=", headers=headers.lines)
        self._objects.raise_for_status(key, response)
        found = _UPLOAD_ID.search(response.text)
        if found is None:
            raise self._objects.error_of(key, response)
        return unescape(found[1])

    def send_part(self, key: str, upload_id: str, number: int, content: BinaryIO, size: int) -> str:
        """Send a part, only once. Returns its ETag."""
        response = self._objects.stream(key, content, size, {"partNumber": str(number), "uploadId": upload_id})
        self._objects.raise_for_status(key, response)
        if not response.etag:
            raise TargetError(f"{key} at {self._server}: a part was taken without an ETag")
        return response.etag

    def complete(self, key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Make an object of the parts, whose ETags are given by part number. A response with status 200 may still contain an error."""
        parts = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etags[number]}</ETag></Part>" for number in sorted(etags))
        content = f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{parts}</CompleteMultipartUpload>'.encode()
        response = self._objects.send_once("POST", key, content, "application/xml", query=f"uploadId={quote(upload_id, safe='')}")
        self._objects.raise_for_status(key, response)
        if "CompleteMultipartUploadResult" not in response.text:
            raise self._objects.error_of(key, response)

    def abort(self, key: str, upload_id: str) -> None:
        """Abort an upload; it is no error if there is none."""
        response = self._objects.send_repeatable("DELETE", key, query=f"uploadId={quote(upload_id, safe='')}")
        if response.status != _NOT_FOUND or "NoSuchUpload" not in response.text:
            self._objects.raise_for_status(key, response)

    def open_uploads(self, key: str) -> Iterator[OpenUpload]:
        """The open uploads of exactly this key."""
        with translated(key, self._server):
            yield from self._open_uploads(key)
