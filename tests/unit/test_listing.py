"""What is read of the pages of an S3 listing, and what is left to boto3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from autosync.actors.s3.listing import next_token, read
from autosync.files import Page
from benchmarks.target import Metadata

OBJECT = (
    "<Contents><Key>{key}</Key><LastModified>2020-01-01T00:00:00.500Z</LastModified><ETag>&quot;abc&quot;</ETag><Size>3</Size>"
    "<StorageClass>STANDARD</StorageClass></Contents>"
)


def written(*objects: str, encoded: bool = True, more: str = "<IsTruncated>false</IsTruncated>") -> str:
    encoding = "<EncodingType>url</EncodingType>" if encoded else ""
    return f"<?xml version='1.0'?>\n<ListBucketResult>{encoding}{more}{''.join(objects)}</ListBucketResult>"


def test_the_four_things_that_count_are_read() -> None:
    other = (
        "<Contents>\n <Owner><ID>x</ID></Owner> <Size>5</Size>\n<ETag>x-1</ETag><LastModified>2020-01-01T01:00:00+01:00</LastModified>"
        "<Key>b</Key><ChecksumType>FULL_OBJECT</ChecksumType></Contents>"
    )
    empty = OBJECT.format(key="c").replace("&quot;abc&quot;", "&#34;&#34;")

    page = read(written(OBJECT.format(key="a"), other, empty))

    assert page == Page(["a", "b", "c"], [3, 5, 3], [1577836800.5, 1577836800.0, 1577836800.5], ["abc", "x-1", None])


@pytest.mark.parametrize(
    ("key", "encoded", "meant"),
    [
        ("a%20b+c%2B%25", True, "a b c+%"),
        ("%01%0A", True, "\x01\n"),
        ("%C3%A9", True, "é"),
        ("a%20+b", False, "a%20+b"),
        ("a&amp;lt;&lt;&quot;&apos;", False, "a&lt;<\"'"),
    ],
)
def test_keys_are_read_as_they_are_meant(key: str, encoded: bool, meant: str) -> None:
    page = read(written(OBJECT.format(key=key), encoded=encoded))

    assert page is not None
    assert page.keys == [meant]


def test_a_page_without_objects_is_one() -> None:
    assert read(written()) == Page([], [], [], [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>Log in first</html>",
        written(OBJECT.format(key="a")).removesuffix("</ListBucketResult>"),
        written(OBJECT.format(key="a"), more=""),
        written(OBJECT.format(key="a"), more="<IsTruncated>true</IsTruncated>"),
        written(OBJECT.format(key="a").replace("<Contents>", "<Contents xmlns='x'>")),
        written(OBJECT.format(key="a"), OBJECT.format(key="b").replace("<Size>3</Size>", "")),
        written(OBJECT.format(key="a"), OBJECT.format(key="b").replace("<ETag>&quot;abc&quot;</ETag>", "")),
        written(OBJECT.format(key="<![CDATA[a]]>")),
        written(OBJECT.format(key="")),
        written(OBJECT.format(key="a&#1;"), encoded=False),
        written(OBJECT.format(key="a").replace("2020-01-01T00:00:00.500Z", "yesterday")),
        written(OBJECT.format(key="a").replace("500Z", "500")),
    ],
)
def test_what_is_not_understood_is_left_to_boto3(text: str) -> None:
    assert read(text) is None


def test_the_next_page_is_asked_for_only_if_there_is_one() -> None:
    token = "<NextContinuationToken>1/x+y=</NextContinuationToken>"

    assert next_token(written(more=f"<IsTruncated>true</IsTruncated>{token}")) == "1/x+y="
    assert next_token(written(more=f"<IsTruncated>false</IsTruncated>{token}")) is None
    assert next_token(written(more="<IsTruncated>true</IsTruncated>")) is None


# A process of its own for the first listing

COUNT = 12_500
#: Lists a bucket twice, with that process and without, and tells how many pages came from there.
LISTED_TWICE = """
import json, os, signal, sys
from autosync.actors import load
from autosync.actors.s3 import listing
from autosync.apart import Apart

url, bucket, trouble = sys.argv[1:]
actor = load("s3")(target_container=bucket, endpoint_url=url)

came, children = [], []
given, understood = Apart.items, listing.read

def items(self, argument):
    children.append(self._child.pid())
    for item in given(self, argument):
        came.append(item)
        yield item
        if trouble == "it is killed":
            os.kill(self._child.pid(), signal.SIGKILL)

def read(text):
    return None if "000005500" in text else understood(text)

Apart.items = items
if trouble == "a page that is not understood":
    listing.read = read
actor.stand_by()
actor.check()
found = [file.key for file in actor.list()]
Apart.items, listing.read = given, understood
again = [file.key for file in actor.list()]
actor.close()
by_boto3 = "botocore" in sys.modules
print(json.dumps({"same": found == again, "keys": len(found), "pages": len(came), "processes": len(children), "boto3": by_boto3}))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metadata]:
    made = Metadata(tmp_path_factory.mktemp("server"))
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def bucket(server: Metadata, tmp_path_factory: pytest.TempPathFactory) -> str:
    tree = tmp_path_factory.mktemp("tree")
    for number in range(COUNT):
        (tree / f"{number:09}").touch()
    made = server.empty("listed")
    server.fill(made, tree)
    return made


@pytest.mark.parametrize(
    ("trouble", "pages"),
    [("none", range(13, 14)), ("it is killed", range(1, 12)), ("a page that is not understood", range(5, 6))],
)
def test_the_first_listing_comes_from_a_process_of_its_own_and_goes_on_without_it(
    server: Metadata, bucket: str, trouble: str, pages: range
) -> None:
    server.delay(0.02 if trouble == "it is killed" else 0.0)  # there is more to come when it is killed
    try:
        said = subprocess.run(
            [sys.executable, "-c", LISTED_TWICE, server.url, bucket, trouble],
            env={**os.environ, **server.environment()}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        server.delay(0.0)

    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    assert (found["same"], found["keys"], found["processes"]) == (True, COUNT, 1)
    assert found["boto3"] == (trouble == "a page that is not understood"), "what it decides on, the other process has told"
    assert found["pages"] in pages
