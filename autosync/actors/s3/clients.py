"""How a bucket is reached: boto3 decides on credentials, region and address."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from ...errors import TargetRefused
from .objects import Objects
from .parts import CONNECT_SECONDS, READ_SECONDS
from .wire import Wire

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
    """Makes plain dicts of the descriptions, which keep their order as well and are made in half the time."""

    def _load_file(self, full_path: str, open_method: Callable[..., Any]) -> Any:
        if not os.path.isfile(full_path):
            return None
        with open_method(full_path, "rb") as file:
            return json.loads(file.read())


@cache
def _descriptions(path: str | None) -> Any:
    """What botocore knows of S3, and how it finds endpoints. Read once, and by processes that are forked from this one not at all."""
    loader = botocore.loaders.create_loader(path)
    loader.file_loader = _PlainFiles()
    # Whether there is an S3 it would learn by looking into the folders of all other services too.
    loader.list_available_services = lambda type_name: [
        name for place in filter(os.path.isdir, loader.search_paths) for name in os.listdir(place)
    ]
    return loader


def client(of: boto3.Session, bucket: str, endpoint_url: str | None) -> Any:
    """A client for one bucket.

    Args:
        of: a session.
        bucket: its name.
        endpoint_url: a server to use instead of Amazon's.

    Raises:
        TargetRefused: it cannot be made of what the user wrote.
    """
    # Servers that are not Amazon's often do not know the checksums that are sent unasked.
    checksums = "when_required" if endpoint_url else "when_supported"
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=32,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        # For URLs boto3 would take version 2 in the oldest regions and on other servers than Amazon's. Many of these refuse that, and
        # so does Amazon where the bucket is encrypted with KMS.
        signature_version="s3v4",
    )
    try:
        with _one_at_a_time:  # sessions are not made for threads
            made = of.client("s3", endpoint_url=endpoint_url, config=config)
            if endpoint_url is None:
                made = _in_its_region(of, made, bucket, config)
                region = made.meta.region_name
                if made.meta.endpoint_url == f"https://s3.{region}.amazonaws.com":
                    # For its URLs boto3 would take Amazon's global endpoint, which does not lead to younger regions, nor at once to new
                    # buckets in others; it takes the region's own if it is told how the bucket is addressed.
                    made = of.client("s3", region_name=region, config=config.merge(Config(s3={"addressing_style": "virtual"})))
        made.meta.events.register("before-sign.s3.DeleteObjects", _add_md5)
        return made
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise TargetRefused(f"S3 cannot be set up: {error}", "check --endpoint-url, --region and the AWS configuration") from error


def base(by: Any, bucket: str) -> str:
    """The URL in front of every key, addressed (by path or by host name) as boto3 does it.

    Args:
        by: a client.
        bucket: its name.
    """
    signed: str = by.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "x"})
    return signed.partition("?")[0].removesuffix("/x")


def objects(of: boto3.Session, by: Any, address: str, where: str, *, is_amazon: bool) -> Objects | None:
    """The quick way to small objects, or None where a proxy stands in between.

    Args:
        of: the session.
        by: the client.
        address: the bucket's URL, see `base`.
        where: the server, for people.
        is_amazon: whether it is Amazon's own.

    Raises:
        OSError: the certificates that are to be trusted cannot be read.
    """
    if get_environ_proxies(address).get(urlsplit(address).scheme):
        return None
    trusted = get_cert_path(of._session.get_config_variable("ca_bundle") or True)
    wire = Wire(address, cert_path=trusted, connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS)
    given = of.get_credentials()
    return Objects(wire, address, by.meta.region_name or "us-east-1", given and given.get_frozen_credentials, where, checksums=is_amazon)


def _in_its_region(of: boto3.Session, made: Any, bucket: str, config: Config) -> Any:
    """boto3 follows Amazon's redirects to the region of a bucket; the quick ways do not, so the region is settled here."""
    with suppress(botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
        said = made.head_bucket(Bucket=bucket)
        region = said.get("BucketRegion")
        if region and region != made.meta.region_name:
            return of.client("s3", region_name=region, config=config)
    return made


def _add_md5(request: Any, **_: Any) -> None:
    """Many servers insist on the checksum that S3 once insisted on, which boto3 does not send any more."""
    if "Content-MD5" not in request.headers:
        request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode()
