"""Uploads in parts through a proxy: boto3 makes the requests, and the URLs with which requests sends the parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import requests
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

from ...errors import TargetError
from .._sessions import session
from .clients import uploads_of
from .errors import NothingSent, answered, translated
from .fast.http import CONNECT_SECONDS, READ_SECONDS
from .headers import ObjectHeaders
from .parts import Begun

#: With these, nothing has reached the server.
_NOT_SENT = (EndpointConnectionError, ConnectTimeoutError)


class ProxiedUploads:
    """Uploads in parts to one bucket.

    Args:
        client: boto3's for S3.
        bucket: its name.
        where: the server, for people.
    """

    def __init__(self, client: Any, bucket: str, where: str) -> None:
        self._client = client
        self._bucket = bucket
        self._where = where
        self._http = session(64)

    def begin(self, key: str, about: ObjectHeaders) -> tuple[str, bool]:
        """Begin one. If boto3 has asked twice, there may be two."""
        try:
            with translated(key, self._where):
                said = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, **about.parameters)
        except TargetError as error:
            if isinstance(error.__cause__, _NOT_SENT):
                raise NothingSent(error.what, error.cure) from error
            raise
        return said["UploadId"], bool(said["ResponseMetadata"].get("RetryAttempts"))

    def send(self, key: str, upload: str, number: int, content: BinaryIO, size: int) -> str:
        """Send one part. Returns its ETag."""
        with translated(key, self._where):
            url = self._client.generate_presigned_url("upload_part", Params=self._names(key, upload) | {"PartNumber": number})
            answer = self._http.put(url, data=content, timeout=(CONNECT_SECONDS, READ_SECONDS), headers={"Content-Length": str(size)})
            if answer.status_code != requests.codes.ok:
                code = re.search(r"<Code>(\w+)</Code>", answer.text)
                raise answered(key, code[1] if code else str(answer.status_code), answer.reason, self._where)
            return answer.headers["ETag"]

    def complete(self, key: str, upload: str, etags: Mapping[int, str]) -> None:
        """Make an object of the parts."""
        parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
        with translated(key, self._where):
            self._client.complete_multipart_upload(**self._names(key, upload), MultipartUpload={"Parts": parts})

    def abort(self, key: str, upload: str) -> None:
        """End one; that there is none is no error."""
        with translated(key, self._where), suppress(self._client.exceptions.NoSuchUpload):
            self._client.abort_multipart_upload(**self._names(key, upload))

    def begun(self, key: str) -> Iterator[Begun]:
        """Those that are open."""
        with translated(key, self._where):
            yield from uploads_of(self._client, self._bucket, key)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _names(self, key: str, upload: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": key, "UploadId": upload}
