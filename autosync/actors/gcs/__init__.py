"""Google Cloud Storage: https://cloud.google.com/storage/docs/xml-api/overview"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import ClassVar, cast

import click

from ...files import File
from ...source.source_file import SourceFile
from .._content import guess_content_type, md5_of
from .._multipart import MultipartUploader
from .._object_client import CONNECT_SECONDS, READ_SECONDS, Dialect
from .._object_store import SMALL, ListedPage, ObjectStoreActor
from .._parts import part_ranges
from .credentials import GoogleTokens
from .list_page import page_query, parse_page
from .multipart import GcsMultipartRequests

if find_spec("google.auth") is None:  # loaded when the first token is needed; that it is missing shows now
    raise ModuleNotFoundError("No module named 'google.auth'", name="google.auth")

_GOOGLE = "https://storage.googleapis.com"
#: https://cloud.google.com/storage/docs/objects#naming
_LONGEST_KEY = 1024
_RESERVED = ".well-known/acme-challenge/"
#: https://cloud.google.com/storage/quotas#requests
_MOST_PARTS = 10_000
#: https://cloud.google.com/storage/docs/hashes-etags: the ETag of an object that was sent in one request is its MD5. Those of others do not
#: look like one; and whatever equals the MD5 of a content was made of it.
_MD5 = re.compile(r"[0-9a-f]{32}")


class GcsActor(ObjectStoreActor):
    """Objects in a bucket."""

    container_is: ClassVar[str] = "bucket"
    container_name: ClassVar[re.Pattern[str]] = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
    options: ClassVar[Sequence[click.Option]] = (
        click.Option(
            ["--service-account"], metavar="FILE",
            help="JSON file with the key of a service account; without it, application default credentials are used.",
        ),
        click.Option(["--endpoint-url"], metavar="URL", help=f"Server to use instead of {_GOOGLE}"),
    )  # fmt: skip
    server: ClassVar[str] = "Google Cloud Storage"
    #: The codes: cloud.google.com, XML API error codes.
    dialect: ClassVar[Dialect] = Dialect(
        container_is="bucket",
        cure="check --service-account, or the application default credentials (gcloud auth application-default login)",
        no_container="NoSuchBucket",
        refused=frozenset({"InvalidBucketName", "UserProjectAccountProblem"}),
        permanent=frozenset({"EntityTooLarge", "KeyTooLongError"}),
        # Of parts: the next try sends all of them again.
        passing=frozenset({"InvalidPart", "InvalidPartOrder", "NoSuchKey", "NoSuchUpload"}),
    )

    service_account: str | None = None

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        if self.service_account:
            self.service_account = os.path.abspath(self.service_account)
        self._connect(GoogleTokens(self.service_account, self.base_url, self.dialect.cure))
        self._requests = GcsMultipartRequests(self._client)
        self._multipart = MultipartUploader(self._requests, CONNECT_SECONDS + READ_SECONDS + 5.0)

    @property
    def base_url(self) -> str:
        """URL of the server."""
        return (self.endpoint_url or _GOOGLE).rstrip("/")

    def can_match(self, listed: File) -> bool:
        """An ETag can be compared if it is an MD5."""
        return _MD5.fullmatch(listed.etag or "") is not None

    def matches(self, file: File, etag: str) -> bool:
        """Compare the MD5 of an object that was sent in one request."""
        return self.can_match(File(file.key, etag=etag)) and md5_of(cast(SourceFile, file)) == etag

    def abandon(self, key: str, token: str) -> None:
        """Abort a multipart upload that was begun, or was about to be."""
        self._multipart.abandon(key, token)

    def _fetch_page(self, prefix: str, token: str, limit: int | None = None) -> ListedPage:
        response = self._client.send("GET", self._client.about, query=page_query(prefix, token, limit))
        return parse_page(self._client.checked(response, self._client.about).content)

    def _put(self, key: str, content: bytes, content_type: str) -> None:
        self._client.checked(self._client.send("PUT", key, key, body=content, headers={"Content-Type": content_type}), key)

    def _send_in_parts(self, file: SourceFile) -> None:
        create = partial(self._requests.create, file.key, guess_content_type(file.key))
        self._multipart.send(file, part_ranges(file.size, SMALL, _MOST_PARTS), create)

    def _refusal(self, key: str) -> str | None:
        if "\r" in key or "\n" in key:
            return "it has a line break"
        length = len(key.encode())
        if length > _LONGEST_KEY:
            return f"it has {length:,} bytes, and {_LONGEST_KEY:,} are allowed"
        return f"it begins with {_RESERVED}" if key.startswith(_RESERVED) else None
