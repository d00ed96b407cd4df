"""The requests of multipart uploads, signed by `sigv4`, so that a worker that sends large files need not load boto3.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from html import unescape
from typing import Any, BinaryIO
from urllib.parse import quote

from ....errors import TargetError
from ..errors import translated
from ..headers import ObjectHeaders
from ..multipart import OpenUpload
from .requests import ObjectRequests

_UPLOAD_ID = re.compile(r"<UploadId>([^<]+)</UploadId>")
_NOT_FOUND = 404


class DirectMultipartRequests:
    """The requests of multipart uploads to one bucket, over the connections of its small objects.

    Args:
        objects: sends the requests.
        client: returns boto3's client for S3, which lists open uploads.
        bucket: its name.
        server: name of the server in error messages.
    """

    def __init__(self, objects: ObjectRequests, client: Callable[[], Any], bucket: str, server: str) -> None:
        self._objects = objects
        self._client = client
        self._bucket = bucket
        self._server = server

    def create(self, key: str, headers: ObjectHeaders) -> tuple[str, bool]:
        """Create an upload. The request is sent only once, so there is no second upload."""
        response = self._objects.send_once("POST", key, content_type=headers.content_type, query="uploads=", headers=headers.lines)
        self._objects.raise_for_status(key, response)
        found = _UPLOAD_ID.search(response.text)
        if found is None:
            raise self._objects.error_of(key, response)
        return unescape(found[1]), False

    def send_part(self, key: str, upload_id: str, number: int, content: BinaryIO, size: int) -> str:
        """Send a part, only once. Returns its ETag."""
        response = self._objects.stream(key, content, size, {"partNumber": str(number), "uploadId": upload_id})
        self._objects.raise_for_status(key, response)
        if not response.etag:
            raise TargetError(f"{key} at {self._server}: a part was taken without an ETag")
        return response.etag

    def complete(self, key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Make an object of the parts. A response with status 200 may still contain an error."""
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
        from ..clients import open_uploads

        with translated(key, self._server):
            yield from open_uploads(self._client(), self._bucket, key)

    def close(self) -> None:
        """Do nothing: `ObjectRequests` closes the connections."""
