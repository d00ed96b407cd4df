"""The clients of one bucket. Each is made when it is first needed, and what another process has decided is used if there is anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from .._multipart import MultipartUploader, OpenUpload
from .connection_settings import ConnectionSettings
from .errors import translated
from .listing import Listings
from .own_client.multipart import LATEST, S3MultipartRequests
from .own_client.requests import ObjectRequests

if TYPE_CHECKING:
    import boto3

#: What another process has decided on buckets, by the options that decide it; processes that are forked from this one inherit it.
_received: dict[tuple[str | None, ...], ConnectionSettings] = {}


class BucketClients:
    """What is needed to reach one bucket. Safe to use from many threads.

    Args:
        bucket: the bucket's name.
        endpoint_url: the server's URL; None: Amazon's.
        profile: the name of a profile in the AWS configuration files.
        region: the bucket's region.

    Attributes:
        server: the server's URL, or Amazon's name, for error messages.
        about: the bucket, as the subject of error messages.
    """

    def __init__(self, bucket: str | None, endpoint_url: str | None, profile: str | None, region: str | None) -> None:
        self._bucket = str(bucket)
        self._endpoint_url = endpoint_url
        self._profile = profile
        self._region = region
        self._options = bucket, endpoint_url, profile, region
        self._made: dict[str, Any] = {}
        self._one_at_a_time = threading.RLock()
        self.server = endpoint_url or "Amazon S3"
        self.about = f"bucket {bucket}"

    def adopt(self, access: tuple[Any, ...] | None) -> None:
        """Use what another process has decided on the bucket.

        Args:
            access: by `ConnectionSettings.as_tuple`; None: it could not be passed on, so it is decided now, and processes that are forked
                from here inherit it.
        """
        if access is not None:
            _received[self._options] = ConnectionSettings.from_tuple(access)
        _ = self.objects

    def close(self) -> None:
        """Close the connections; boto3 closes its own."""
        objects = vars(self).get("objects")
        if objects is not None:
            objects.close()

    @cached_property
    def access(self) -> ConnectionSettings:
        """Address, credentials, region and proxy of the bucket."""
        if self._options in _received:
            return _received[self._options]
        from . import clients

        return clients.access(self._session, self.boto3_client, self._bucket)

    @cached_property
    def objects(self) -> ObjectRequests:
        """The requests for objects."""
        with translated(self.about, self.server):
            return self.access.objects(self.server, checksums=self._endpoint_url is None)

    @cached_property
    def listings(self) -> Listings:
        """The listings of the bucket."""
        return Listings(self.objects, self._bucket, self.server)

    @cached_property
    def multipart_requests(self) -> S3MultipartRequests:
        """The requests for uploads in parts."""
        return S3MultipartRequests(self.objects, self._open_uploads, self.server)

    @cached_property
    def multipart(self) -> MultipartUploader:
        """Sends files in parts."""
        return MultipartUploader(self.multipart_requests, LATEST)

    @property
    def boto3_client(self) -> Any:
        """boto3's client, for rare calls."""
        from . import clients

        return self._make_once("client", lambda: clients.client(self._session, self._bucket, self._endpoint_url))

    @property
    def _session(self) -> boto3.Session:
        from . import clients

        return cast("boto3.Session", self._make_once("session", lambda: clients.session(self._profile, self._region)))

    def _open_uploads(self, key: str) -> Iterator[OpenUpload]:
        from . import clients

        return clients.open_uploads(self.boto3_client, self._bucket, key)

    def _make_once(self, name: str, make: Callable[[], Any]) -> Any:
        """Make something when the first of many threads needs it."""
        with self._one_at_a_time:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]
