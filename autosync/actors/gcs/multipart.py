"""The requests of multipart uploads: https://cloud.google.com/storage/docs/multipart-uploads"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import BinaryIO
from xml.sax.saxutils import escape

from ...errors import TargetError
from .._clock import parse_iso_time, seconds_ahead
from .._list_page import UnreadablePage, entries_of, text_of, times_of, unescaped, value_of
from .._multipart import OpenUpload
from .._object_client import ObjectClient
from .._page_tokens import PageTokens
from .list_page import decode_key

_UPLOAD_ID = re.compile(rb"<UploadId>([^<]+)</UploadId>")
_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_INITIATED = re.compile(rb"<Initiated>([^<]*)</Initiated>")
_NEXT_KEY = re.compile(rb"<NextKeyMarker>([^<]*)</NextKeyMarker>")
_NEXT_UPLOAD = re.compile(rb"<NextUploadIdMarker>([^<]*)</NextUploadIdMarker>")
_IS_TRUNCATED = b"<IsTruncated>true</IsTruncated>"
_IS_ENCODED = b"<EncodingType>url</EncodingType>"
_NOT_FOUND = 404


class GcsMultipartRequests:
    """The requests of multipart uploads to one bucket; see `MultipartRequests`.

    Args:
        client: sends the requests.
    """

    def __init__(self, client: ObjectClient) -> None:
        self._client = client

    def create(self, key: str, content_type: str) -> str:
        """Create an upload, with a request that is sent once. Returns its id."""
        response = self._client.send("POST", key, key, {"uploads": ""}, headers={"Content-Type": content_type})
        found = _UPLOAD_ID.search(self._client.checked(response, key).content)
        if found is None:
            raise self._client.error_of(response, key)
        return text_of(unescaped(found[1]))

    def send_part(self, key: str, upload_id: str, number: int, content: BinaryIO, size: int) -> str:
        """Send a part. Returns its ETag."""
        content.seek(0)
        response = self._client.send("PUT", key, key, {"partNumber": str(number), "uploadId": upload_id}, content, size)
        etag = self._client.checked(response, key).headers.get("ETag", "")
        if not etag:
            raise TargetError(f"{key} at {self._client.base_url}: a part was stored, and the response has no ETag")
        return etag

    def complete(self, key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Make an object of the parts. A response with status 200 may still contain an error."""
        parts = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etags[number])}</ETag></Part>" for number in sorted(etags))
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        response = self._client.send("POST", key, key, {"uploadId": upload_id}, body, headers={"Content-Type": "application/xml"})
        if b"CompleteMultipartUploadResult" not in self._client.checked(response, key).content:
            raise self._client.error_of(response, key)

    def abort(self, key: str, upload_id: str) -> None:
        """Abort an upload; it is no error if there is none."""
        response = self._client.send("DELETE", key, key, {"uploadId": upload_id})
        if response.status != _NOT_FOUND or self._client.code_of(response) != "NoSuchUpload":
            self._client.checked(response, key)

    def open_uploads(self, key: str) -> Iterator[OpenUpload]:
        """The open uploads of exactly this key."""
        query, tokens = {"uploads": "", "encoding-type": "url", "prefix": key}, PageTokens()
        while True:
            before = time.time()
            response = self._client.checked(self._client.send("GET", self._client.about, query=query), self._client.about)
            after = time.time()
            ahead = seconds_ahead(response.headers.get("Date", ""), before, after)
            page = response.content
            try:
                for upload_id, initiated in _uploads(page, key):
                    yield OpenUpload(upload_id, initiated - ahead, (after - before) / 2)
                markers = {"key-marker": _marker(page, _NEXT_KEY), "upload-id-marker": _marker(page, _NEXT_UPLOAD)}
            except UnreadablePage as error:
                what = f"{self._client.about} at {self._client.base_url}"
                raise TargetError(f"{what}: the list of open uploads cannot be read: {error}") from None
            if _IS_TRUNCATED not in page or query.items() >= markers.items() or tokens.fault("\0".join(markers.values())):
                return
            query |= markers


def _uploads(page: bytes, key: str) -> Iterator[tuple[str, float]]:
    """The UploadId of each upload of this key, and when it was initiated, in seconds since the epoch by the server's clock."""
    is_encoded = _IS_ENCODED in page
    for entry in entries_of(page, b"Upload", b"ListMultipartUploadsResult"):
        if decode_key(value_of(entry, _KEY, "Key"), is_encoded=is_encoded) == key:
            (initiated,) = times_of([value_of(entry, _INITIATED, "Initiated")], parse_iso_time)
            yield text_of(value_of(entry, _UPLOAD_ID, "UploadId")), initiated


def _marker(page: bytes, pattern: re.Pattern[bytes]) -> str:
    found = pattern.search(page)
    if found is None or not found[1]:
        return ""
    return decode_key(unescaped(found[1]), is_encoded=pattern is _NEXT_KEY and _IS_ENCODED in page)
