"""moto's server of the laboratory keeps the versions that are in the bucket, and nothing of those that were deleted."""

from __future__ import annotations

import uuid

import psutil

from lab.chaos import Observer, versioned_bucket
from lab.chaos.book import Book
from lab.chaos.versions import digest
from lab.servers import Moto

_SIZE, _VERSIONS = 4 << 20, 25


def test_its_memory_does_not_grow_with_the_versions_that_it_had(moto: Moto) -> None:
    bucket, client, book = versioned_bucket(moto, f"grown-{uuid.uuid4().hex[:8]}"), moto.client(), Book()
    observer = Observer(moto, bucket, "", book)
    assert moto.process is not None
    server = psutil.Process(moto.process.pid)
    observer.check_versions()  # what it loads for its first request is loaded
    before = server.memory_info().rss

    for number in range(_VERSIONS):
        data = bytes([number]) * _SIZE
        book.will_have("a", digest(data))
        client.put_object(Bucket=bucket, Key="a", Body=data)
        observer.check_versions()

    assert (observer.versions, observer.violations) == (_VERSIONS, [])
    observer.check_versions()
    (left,) = client.list_object_versions(Bucket=bucket)["Versions"]
    assert left["IsLatest"]
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == data
    assert server.memory_info().rss - before < _VERSIONS * _SIZE / 2, "one version is left"
