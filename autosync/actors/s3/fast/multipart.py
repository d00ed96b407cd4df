"""The requests of an upload in parts, each signed here, so that a worker that sends large files need not load boto3.

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
from ..parts import Begun
from .requests import Objects

_UPLOAD = re.compile(r"<UploadId>([^<]+)</UploadId>")
_NOT_FOUND = 404


class Uploads:
    """Uploads in parts to one bucket, over the connections of its small objects.

    Args:
        objects: the quick way to the bucket.
        client: gives boto3's for S3, which lists what is open.
        bucket: its name.
        where: the server, for people.
    """

    def __init__(self, objects: Objects, client: Callable[[], Any], bucket: str, where: str) -> None:
        self._objects = objects
        self._client = client
        self._bucket = bucket
        self._where = where

    def begin(self, key: str, said: ObjectHeaders) -> tuple[str, bool]:
        """Begin one; asked for once only."""
        answer = self._objects.ask_once("POST", key, content_type=said.content_type, query="uploads=", more=said.lines)
        self._objects.insist(key, answer)
        found = _UPLOAD.search(answer.text)
        if found is None:
            raise self._objects.error(key, answer)
        return unescape(found[1]), False

    def send(self, key: str, upload: str, number: int, content: BinaryIO, size: int) -> str:
        """Send one part; asked for once only. Returns its ETag."""
        answer = self._objects.stream(key, content, size, {"partNumber": str(number), "uploadId": upload})
        self._objects.insist(key, answer)
        if not answer.etag:
            raise TargetError(f"{key} at {self._where}: a part was taken without an ETag")
        return answer.etag

    def complete(self, key: str, upload: str, etags: Mapping[int, str]) -> None:
        """Make an object of the parts. The server may say that it has failed behind a status that says that it has not."""
        parts = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etags[number]}</ETag></Part>" for number in sorted(etags))
        content = f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{parts}</CompleteMultipartUpload>'.encode()
        answer = self._objects.ask_once("POST", key, content, "application/xml", query=f"uploadId={quote(upload, safe='')}")
        self._objects.insist(key, answer)
        if "CompleteMultipartUploadResult" not in answer.text:
            raise self._objects.error(key, answer)

    def abort(self, key: str, upload: str) -> None:
        """End one; that there is none is no error."""
        answer = self._objects.ask("DELETE", key, query=f"uploadId={quote(upload, safe='')}")
        if answer.status != _NOT_FOUND or "NoSuchUpload" not in answer.text:
            self._objects.insist(key, answer)

    def begun(self, key: str) -> Iterator[Begun]:
        """Those that are open."""
        from ..clients import uploads_of

        with translated(key, self._where):
            yield from uploads_of(self._client(), self._bucket, key)

    def close(self) -> None:
        """The connections are those of the small objects."""
