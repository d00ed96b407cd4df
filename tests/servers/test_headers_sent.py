"""The headers that options set, as objects of real servers have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from test_actors import by_proxy, proxy

from autosync.actor import Actor
from autosync.actors import load
from autosync.actors.s3 import SMALL
from autosync.testing import Content
from lab.buckets import Bucket
from lab.forward_proxy import ForwardProxy

__all__ = ["proxy"]

ALL = {
    "storage_class": "STANDARD_IA", "sse": "AES256", "acl": "public-read", "cache_control": "max-age=60,  public",
    "content_type": "text/x-mine", "metadata": ("Station=WNYC", "note=a  b=c"), "tag": ("kind=music", "how much=1 + 2=3"),
}  # fmt: skip


@pytest.fixture
def made(exact_bucket: Bucket) -> Iterator[Callable[..., Actor]]:
    """Makes actors."""
    actors: list[Actor] = []

    def make(**settings: Any) -> Actor:
        actors.append(load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url, **settings))
        return actors[-1]

    yield make
    for actor in actors:
        actor.close()


@pytest.mark.parametrize("size", [10, 100_000, SMALL + 1])
@pytest.mark.parametrize("variant", ["direct", "by a proxy"])
def test_an_object_has_the_headers_of_the_options(
    size: int, variant: str, exact_bucket: Bucket, made: Callable[..., Actor], content: Content, proxy: ForwardProxy
) -> None:
    actor = made(**ALL)
    if variant == "by a proxy":
        by_proxy(actor, proxy)

    actor.upload(content.file("a", b"x" * size))

    assert bool(proxy.requests) == (variant == "by a proxy")
    found = exact_bucket.client.head_object(Bucket=exact_bucket.name, Key="a")
    assert found["ContentLength"] == size
    assert (found["StorageClass"], found["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")
    assert (found["CacheControl"], found["ContentType"]) == ("max-age=60, public", "text/x-mine")
    assert found["Metadata"] == {"station": "WNYC", "note": "a b=c"}
    tags = exact_bucket.client.get_object_tagging(Bucket=exact_bucket.name, Key="a")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"kind": "music", "how much": "1 + 2=3"}
    grants = exact_bucket.client.get_object_acl(Bucket=exact_bucket.name, Key="a")["Grants"]
    assert any("AllUsers" in grant["Grantee"].get("URI", "") for grant in grants)


def test_a_server_that_checks_signatures_accepts_them(bucket: Bucket, content: Content) -> None:
    actor = load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url, **{**ALL, "sse": None})
    files = [content.file("a", b"x"), content.file("b", b"x")]

    assert actor.upload_many(files) == [None, None]
    actor.upload(content.file("large", bytes(SMALL + 1)))

    for key in ("a", "b", "large"):
        found = bucket.client.head_object(Bucket=bucket.name, Key=key)
        assert (found["CacheControl"], found["ContentType"]) == ("max-age=60, public", "text/x-mine")
        assert {name.lower(): value for name, value in found["Metadata"].items()} == {"station": "WNYC", "note": "a b=c"}
    actor.close()
