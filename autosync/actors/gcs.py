"""Google Cloud Storage."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import click
from obstore.store import GCSStore, ObjectStore

from ..files import File
from ..source.source_file import SourceFile
from ._content import md5_of
from ._obstore import ObstoreActor

_GOOGLE = "https://storage.googleapis.com"
#: https://cloud.google.com/storage/docs/objects#naming
_LONGEST_KEY = 1024
_RESERVED = ".well-known/acme-challenge/"
#: https://cloud.google.com/storage/quotas#requests
_MOST_PARTS = 10_000
#: https://cloud.google.com/storage/docs/hashes-etags: the ETag of an object that was sent in one request is its MD5. Those of others do not
#: look like one; and whatever equals the MD5 of a content was made of it.
_MD5 = re.compile(r"[0-9a-f]{32}")


class GcsActor(ObstoreActor):
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
    identify: ClassVar[str] = "check --service-account, or the application default credentials (gcloud auth application-default login)"
    most_parts: ClassVar[int] = _MOST_PARTS

    service_account: str | None = None
    endpoint_url: str | None = None

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        if self.service_account:
            self.service_account = os.path.abspath(self.service_account)

    @property
    def base_url(self) -> str:
        """The server."""
        return (self.endpoint_url or _GOOGLE).rstrip("/")

    def _open(self, **how: Any) -> ObjectStore:
        given: Any = {"service_account": self.service_account} if self.service_account else {}
        return GCSStore(str(self.target_container), base_url=self.base_url, **given, **how)

    def _refusal(self, key: str) -> str | None:
        length = len(key.encode())
        if length > _LONGEST_KEY:
            return f"it has {length:,} bytes, and {_LONGEST_KEY:,} are allowed"
        return f"it begins with {_RESERVED}" if key.startswith(_RESERVED) else None

    def can_match(self, listed: File) -> bool:
        """An ETag can be compared if it is an MD5."""
        return _MD5.fullmatch(listed.etag or "") is not None

    def matches(self, file: File, etag: str) -> bool:
        """Compare the MD5 of an object that was sent in one request."""
        return self.can_match(File(file.key, etag=etag)) and md5_of(cast(SourceFile, file)) == etag
