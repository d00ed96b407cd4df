"""boto3's sessions and clients, which decide on credentials, region, URL and proxy of a bucket.

They send two kinds of requests: HeadBucket, for the region, and ListMultipartUploads, where a worker was killed while it began an upload.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.credentials
import botocore.exceptions
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from ...errors import TargetRefused
from .._clock import seconds_ahead
from .._multipart import OpenUpload
from .._responses import BODY_BYTES, PAGE_BYTES, BoundedBody, ResponseError, encoding_of
from .connection_settings import ConnectionSettings
from .own_client.http import CONNECT_SECONDS, READ_SECONDS

_one_at_a_time = threading.Lock()


def session(profile: str | None, region: str | None) -> boto3.Session:
    """A session: profile, region and credentials.

    Raises:
        TargetRefused: there is no such profile.
    """
    core = botocore.session.get_session()
    if profile is not None:
        core.set_config_variable("profile", profile)
    try:
        core.register_component("data_loader", _descriptions(core.get_config_variable("data_path")))
        return boto3.Session(botocore_session=core, region_name=region)
    except botocore.exceptions.ProfileNotFound as error:
        raise TargetRefused(str(error), "see ~/.aws/config") from error


class _PlainFiles(botocore.loaders.JSONFileLoader):  # type: ignore[misc]
    """Loads the descriptions as plain dicts, which keep their order as well and are built in half the time."""

    def _load_file(self, full_path: str, open_method: Callable[..., Any]) -> Any:
        if not os.path.isfile(full_path):
            return None
        with open_method(full_path, "rb") as file:
            return json.loads(file.read())


class _BoundedSession:
    """Sends botocore's requests, and reads of their responses no more than a bound; botocore would read each to its end.

    Args:
        session: botocore's HTTP session.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        """Send a request, and return its response with the body read, up to the bound."""
        request.stream_output = True  # so that nothing of it has been read yet
        response = self._session.send(request)
        is_error = not 200 <= response.status_code < 300
        most = PAGE_BYTES if request.method == "GET" and not is_error else BODY_BYTES
        encoding = encoding_of(response.headers.get("Content-Encoding"))
        response.raw = BoundedBody(response.raw, most, is_error=is_error, encoding=encoding)
        try:
            _ = response.content
        except ResponseError:
            raise
        except Exception as error:  # botocore does the same with all that urllib3 may raise
            raise botocore.exceptions.HTTPClientError(error=error) from error
        return response

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


@cache
def _descriptions(path: str | None) -> Any:
    """botocore's descriptions of S3 and of endpoints. They are loaded once; processes that are forked from this one have them already."""
    loader = botocore.loaders.create_loader(path)
    loader.file_loader = _PlainFiles()
    # Without this, botocore would search the folders of all services to find out whether there is an S3.
    loader.list_available_services = lambda type_name: [
        name for folder in filter(os.path.isdir, loader.search_paths) for name in os.listdir(folder)
    ]
    return loader


def client(of: boto3.Session, bucket: str, endpoint_url: str | None) -> Any:
    """A client for one bucket.

    Args:
        of: a session.
        bucket: the bucket's name.
        endpoint_url: a server to use instead of Amazon's.

    Raises:
        TargetRefused: it cannot be made of what the user wrote.
    """
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 2},
        # Without this, boto3 makes URLs with version 2 in the oldest regions and for other servers than Amazon's.
        signature_version="s3v4",
    )
    try:
        with _one_at_a_time:  # sessions are not made for threads
            made = of.client("s3", endpoint_url=endpoint_url, config=config)
            if endpoint_url is None:
                _bound(made)
                made = _in_its_region(of, made, bucket, config)
                region = made.meta.region_name
                if made.meta.endpoint_url == f"https://s3.{region}.amazonaws.com":
                    # Without an addressing style, boto3 makes URLs with Amazon's global endpoint, which does not lead to younger regions,
                    # nor at once to new buckets in others.
                    made = of.client("s3", region_name=region, config=config.merge(Config(s3={"addressing_style": "virtual"})))
        _bound(made)
        return made
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise TargetRefused(f"S3 cannot be set up: {error}", "check --endpoint-url, --region and the AWS configuration") from error


def _bound(made: Any) -> None:
    """Bound what a client reads of responses. `_endpoint` is private: botocore has no public way to replace its HTTP session."""
    endpoint = made._endpoint
    if not isinstance(endpoint.http_session, _BoundedSession):
        endpoint.http_session = _BoundedSession(endpoint.http_session)


def access(of: boto3.Session, by: Any, bucket: str) -> ConnectionSettings:
    """How a bucket is reached.

    Args:
        of: the session.
        by: the client.
        bucket: the bucket's name.
    """
    address = _base(by, bucket)
    credentials = of.get_credentials()
    return ConnectionSettings(
        address,
        by.meta.region_name or "us-east-1",
        get_cert_path(of._session.get_config_variable("ca_bundle") or True),
        get_environ_proxies(address).get(urlsplit(address).scheme),
        credentials=credentials and credentials.get_frozen_credentials,
        lasting=type(credentials) is botocore.credentials.Credentials,
    )


def open_uploads(by: Any, bucket: str, key: str) -> Iterator[OpenUpload]:
    """The open multipart uploads of exactly this key."""
    before = time.time()
    for page in by.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key):
        after = time.time()
        ahead = seconds_ahead(page["ResponseMetadata"]["HTTPHeaders"].get("date", ""), before, after)
        for found in page.get("Uploads", ()):
            if found["Key"] == key:
                yield OpenUpload(found["UploadId"], found["Initiated"].timestamp() - ahead, (after - before) / 2)
        before = time.time()


def _in_its_region(of: boto3.Session, made: Any, bucket: str, config: Config) -> Any:
    """A client for the region of the bucket. boto3 would follow Amazon's redirects there; the own client does not."""
    with suppress(botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
        response = made.head_bucket(Bucket=bucket)
        region = response.get("BucketRegion")
        if region and region != made.meta.region_name:
            return of.client("s3", region_name=region, config=config)
    return made


def _base(by: Any, bucket: str) -> str:
    """The URL of the bucket, with its name in the path or the host name, as boto3 decides."""
    signed: str = by.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "x"})
    return signed.partition("?")[0].removesuffix("/x")
