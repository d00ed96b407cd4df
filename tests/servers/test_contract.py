"""What every actor must do, asked of those that need nothing but a bucket or a directory. The others have a module of their own each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.actor import Actor
from autosync.actors import load
from autosync.actors.s3.key_checks import kinds_of
from autosync.errors import PermanentError
from autosync.testing import ActorContract, Content
from lab.buckets import Bucket
from lab.servers import Moto


class TestFile(ActorContract):
    many = 120  # a directory has no pages

    def spelt(self, key: str) -> str:
        return re.sub("/+", "/", key).lstrip("/")

    @pytest.fixture
    def actor(self, tmp_path: Path) -> Iterator[Actor]:
        (tmp_path / "target").mkdir()
        made = load("file")(target_container=str(tmp_path / "target"))
        yield made
        made.close()

    def test_a_listing_does_not_leave_the_container(self, actor: Actor, tmp_path: Path) -> None:
        (tmp_path / "beside").mkdir()
        (tmp_path / "beside/a").touch()
        for prefix in ("../", "../beside/", "x/../../beside/"):
            assert list(actor.list(prefix)) == []


class TestSeaweed(ActorContract):
    """A server that lists as a file system does, and keeps some keys under other names: the first of each kind stays there."""

    sorts = False
    odd_keys = tuple(key for key in ActorContract.odd_keys if not kinds_of(key))

    @pytest.fixture
    def actor(self, bucket: Bucket) -> Iterator[Actor]:
        made = load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url)
        yield made
        made.close()


class TestExact(ActorContract):
    """A server that keeps keys and lists them as Amazon does."""

    many = 2 * Moto.PAGE + 50
    odd_keys = tuple(key for key in ActorContract.odd_keys if key != "new\nline")  # its router finds no such path

    @pytest.fixture
    def actor(self, exact_bucket: Bucket) -> Iterator[Actor]:
        made = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)
        yield made
        made.close()


@pytest.mark.parametrize("key", ["/slash", "//two", "a//b", "./dot", "a/./b", "a/../../up", "back\\slash"])
def test_a_key_that_a_server_stores_under_another_name_is_refused_for_good(key: str, bucket: Bucket, tmp_path: Path) -> None:
    actor = load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url)
    content = Content(tmp_path)
    with pytest.raises(PermanentError, match=r"key|Request"):
        actor.upload(content.file(key, b"x"))
    content.close()
    actor.close()
