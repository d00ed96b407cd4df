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
from .clients import open_uploads
from .errors import NothingSent, error_from_code, translated
from .fast.http import CONNECT_SECONDS, READ_SECONDS
from .headers import ObjectHeaders
from .multipart import OpenUpload

#: With these, nothing has reached the server.
_NOT_SENT = (EndpointConnectionError, ConnectTimeoutError)


class ProxiedMultipartRequests:
    """The requests of multipart uploads to one bucket.

    Args:
        client: boto3's for S3.
        bucket: its name.
        server: name of the server in error messages.
    """

    def __init__(self, client: Any, bucket: str, server: str) -> None:
        self._client = client
        self._bucket = bucket
        self._server = server
        self._http = session(64)

    def create(self, key: str, headers: ObjectHeaders) -> tuple[str, bool]:
        """Create an upload. If boto3 has sent the request twice, there may be a second one."""
        try:
            with translated(key, self._server):
                response = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, **headers.parameters)
        except TargetError as error:
            if isinstance(error.__cause__, _NOT_SENT):
                raise NothingSent(error.what, error.cure) from error
            raise
        return response["UploadId"], bool(response["ResponseMetadata"].get("RetryAttempts"))

    def send_part(self, key: str, upload_id: str, number: int, content: BinaryIO, size: int) -> str:
        """Send a part. Returns its ETag."""
        with translated(key, self._server):
            url = self._client.generate_presigned_url("upload_part", Params=self._parameters(key, upload_id) | {"PartNumber": number})
            response = self._http.put(url, data=content, timeout=(CONNECT_SECONDS, READ_SECONDS), headers={"Content-Length": str(size)})
            if response.status_code != requests.codes.ok:
                code = re.search(r"<Code>(\w+)</Code>", response.text)
                raise error_from_code(key, code[1] if code else str(response.status_code), response.reason, self._server)
            return response.headers["ETag"]

    def complete(self, key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Make an object of the parts."""
        parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
        with translated(key, self._server):
            self._client.complete_multipart_upload(**self._parameters(key, upload_id), MultipartUpload={"Parts": parts})

    def abort(self, key: str, upload_id: str) -> None:
        """Abort an upload; it is no error if there is none."""
        with translated(key, self._server), suppress(self._client.exceptions.NoSuchUpload):
            self._client.abort_multipart_upload(**self._parameters(key, upload_id))

    def open_uploads(self, key: str) -> Iterator[OpenUpload]:
        """The open uploads of exactly this key."""
        with translated(key, self._server):
            yield from open_uploads(self._client, self._bucket, key)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _parameters(self, key: str, upload_id: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": key, "UploadId": upload_id}
