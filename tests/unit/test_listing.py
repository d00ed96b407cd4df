"""What is read of the pages of an S3 listing, and what is left to boto3."""

from __future__ import annotations

import pytest

from autosync.actors.s3.fast.list_page import next_token, parse_page
from autosync.files import Page

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

    page = parse_page(written(OBJECT.format(key="a"), other, empty))

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
    page = parse_page(written(OBJECT.format(key=key), encoded=encoded))

    assert page is not None
    assert page.keys == [meant]


def test_a_page_without_objects_is_one() -> None:
    assert parse_page(written()) == Page([], [], [], [])


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
    assert parse_page(text) is None


def test_the_next_page_is_asked_for_only_if_there_is_one() -> None:
    token = "<NextContinuationToken>1/x+y=</NextContinuationToken>"

    assert next_token(written(more=f"<IsTruncated>true</IsTruncated>{token}")) == "1/x+y="
    assert next_token(written(more=f"<IsTruncated>false</IsTruncated>{token}")) is None
    assert next_token(written(more="<IsTruncated>true</IsTruncated>")) is None


# A process of its own for the first listing
