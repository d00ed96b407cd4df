"""The requests of multipart uploads.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from html import unescape
from typing import BinaryIO
from urllib.parse import quote

from ....errors import TargetError
from ..._multipart import OpenUpload
from ..._parts import PartRange, part_ranges
from ..errors import translated
from ..headers import ObjectHeaders
from .http import CONNECT_SECONDS, READ_SECONDS
from .requests import ObjectRequests

#: Size of a part in bytes, and the most parts that S3 allows; files with more parts than that have larger ones.
PART_BYTES, _MOST_PARTS = 8 << 20, 10_000
#: How long after the intention an upload may be initiated, in seconds: clocks differ a little, a proxy may be slow, and boto3, which made
#: the request in earlier versions, tried twice.
LATEST = 2.0 * (CONNECT_SECONDS + READ_SECONDS) + 5.0
_UPLOAD_ID = re.compile(r"<UploadId>([^<]+)</UploadId>")
_NOT_FOUND = 404


class S3MultipartRequests:
    """The requests of multipart uploads to one bucket, over the connections of its small objects; see `MultipartRequests`.

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
            raise TargetError(f"{key} at {self._server}: a part was stored without an ETag")
        return response.etag

    def complete(self, key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Make an object of the parts, from their ETags by part number. A response with status 200 may still contain an error."""
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


def upload_ranges(size: int) -> Iterator[PartRange]:
    """The parts of a file of this size (in bytes)."""
    return part_ranges(size, PART_BYTES, _MOST_PARTS)
