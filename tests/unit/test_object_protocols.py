"""Azure's protocol: pages of listings, signatures, and the order of credentials. Google's pages are read by the same functions."""

from __future__ import annotations

import contextlib
import hashlib
import tracemalloc

import pytest

from autosync.actors._clock import seconds_ahead
from autosync.actors._list_page import UnreadablePage
from autosync.actors._page_tokens import PageTokens
from autosync.actors.azure.credentials import Principal, credentials_of
from autosync.actors.azure.list_page import parse_page
from autosync.actors.azure.shared_key import string_to_sign
from autosync.actors.gcs.list_page import parse_page as parse_google_page
from autosync.files import Page


def page_of(*blobs: str, marker: str = "") -> bytes:
    found = "".join(f"<Blob>{blob}</Blob>" for blob in blobs)
    head = "\ufeff<?xml version='1.0' encoding='utf-8'?><EnumerationResults ServiceEndpoint='https://a/' ContainerName='c'>"
    return f"{head}<Blobs>{found}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>".encode()


def blob_of(name: str, properties: str = "", size: str = "5", when: str = "Mon, 01 Jan 2024 00:00:00 GMT") -> str:
    inside = f"<Last-Modified>{when}</Last-Modified><Etag>0x8D</Etag><Content-Length>{size}</Content-Length>{properties}"
    return f"<Name>{name}</Name><Properties>{inside}</Properties><OrMetadata />"


def test_a_page_as_azure_writes_it_is_read() -> None:
    """Azurite marks no names, and has no directories."""
    marked = blob_of("a%EF%BF%BE%25b").replace("<Name>", '<Name Encoded="true">')
    directory = blob_of("directory", "<ResourceType>directory</ResourceType>")
    small = blob_of("&lt;&#x10FFFF;&amp;amp;&#233;", "<Content-MD5>XrY7u+Ae7tCTyyK7j1rNww==</Content-MD5><ResourceType>file</ResourceType>")

    page, token = parse_page(page_of(marked, directory, small, blob_of("c", "<Content-MD5 />"), marker="2!next&amp;"))

    assert page.keys == ["a\ufffe%b", "<\U0010ffff&amp;é", "c"]
    assert page.sizes == [5, 5, 5]
    assert page.times == [1704067200.0] * 3
    assert page.etags == ["0x8D", hashlib.md5(b"hello world").hexdigest(), "0x8D"]
    assert token == "2!next&"
    assert parse_page(page_of()) == (Page([], [], [], []), "")


@pytest.mark.parametrize(
    "page",
    [
        b"", page_of()[:-1], page_of(blob_of("")), page_of(blob_of("a", size="x")), page_of(blob_of("a", when="yesterday")),
        page_of(blob_of("a").replace("Name>", "name>")), page_of(blob_of("&entity;")), page_of(blob_of("&#xD800;")),
        page_of(blob_of("&#x110000;")), page_of(blob_of("a").replace("Last-Modified", "x")), page_of("<Blob>"),
        page_of().replace(b"<NextMarker></NextMarker>", b""), page_of(*["<x/>"] * 30_000), page_of(blob_of("a" * 40_000)),
        page_of(blob_of("\0")).replace(b"\0", b"\xff"), page_of(blob_of("a")).replace(b"<Blobs>", b"<Blobs><!-- <Blob> -->"),
        page_of(blob_of("a", when="Mon, 02 Jan 99999999999999999999 03:04:05 GMT")), page_of(blob_of("a", when="")),
        page_of(blob_of("a", size="-1")),
    ],
)  # fmt: skip
def test_a_page_that_is_none_is_an_error(page: bytes) -> None:
    with pytest.raises(UnreadablePage):
        parse_page(page)


@pytest.mark.parametrize("what", [b"<Blob><Name></Name></Blob>", b"<Name>a</Name>", b"&amp;", b"<Blob>", "<\U0001f600>".encode()])
def test_a_large_page_needs_little_memory_beside_itself(what: bytes) -> None:
    """As text the last one would take four times as much, and a tree of elements of the others a hundred times as much."""
    size = 8 << 20
    head, tail = page_of(blob_of("a")).split(b"</Blobs>")
    page = head + what * (size // len(what)) + b"</Blobs>" + tail
    tracemalloc.start()
    try:
        with contextlib.suppress(UnreadablePage):
            parse_page(page)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < size // 2


OBJECT = "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag><Size>5</Size></Contents>"


def google_page(*objects: str, more: str = "<IsTruncated>false</IsTruncated>", encoding: str = "<EncodingType>url</EncodingType>") -> bytes:
    return f"<?xml version='1.0'?><ListBucketResult><Name>b</Name>{encoding}{more}{''.join(objects)}</ListBucketResult>".encode()


def test_a_page_of_googles_is_read_with_its_keys_encoded_or_not() -> None:
    objects = [OBJECT.format(key="a+b%2B%01/%C3%A9", etag="&quot;abc&quot;"), OBJECT.format(key="c", etag='"-CK="')]
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b</NextContinuationToken>"

    page, token = parse_google_page(google_page(*objects, more=more))
    assert page == Page(["a b+\x01/é", "c"], [5, 5], [1704067200.0] * 2, ["abc", "-CK="])
    assert token == "a&b"

    page, token = parse_google_page(google_page(OBJECT.format(key="a+b%2B&lt;", etag=""), encoding=""))
    assert page == Page(["a+b%2B<"], [5], [1704067200.0], [None])
    assert token == ""


@pytest.mark.parametrize(
    "page",
    [
        b"", google_page()[:-1], google_page(more=""), google_page(more="<IsTruncated>true</IsTruncated>"),
        google_page(OBJECT.format(key="", etag="")), google_page(OBJECT.format(key="%FF", etag="")), google_page("<Contents></Contents>"),
        google_page(OBJECT.format(key="a", etag="").replace("2024-01-01T00:00:00.000Z", "2024-01-01T00:00:00")),
    ],
)  # fmt: skip
def test_a_page_of_googles_that_is_none_is_an_error(page: bytes) -> None:
    with pytest.raises(UnreadablePage):
        parse_google_page(page)


def test_a_request_is_signed_as_microsoft_describes_it() -> None:
    """Its example of List Blobs, and of an upload (learn.microsoft.com, Authorize with Shared Key)."""
    headers = {"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-version": "2015-02-21"}
    query = {"restype": "container", "comp": "metadata", "Timeout": "20"}
    assert string_to_sign("GET", "/myaccount/mycontainer", query, headers) == (
        "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n"
        "/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
    )

    headers |= {"Content-Length": "11", "Content-Type": "text/plain", "x-ms-blob-type": "BlockBlob"}
    assert string_to_sign("PUT", "/a/c/k%20", {}, headers) == (
        "PUT\n\n\n11\n\ntext/plain\n\n\n\n\n\n\nx-ms-blob-type:BlockBlob\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\n"
        "x-ms-version:2015-02-21\n/a/c/k%20"
    )
    assert string_to_sign("PUT", "/a/c/k", {}, {**headers, "Content-Length": "0"}).startswith("PUT\n\n\n\n\ntext/plain")


def test_credentials_are_read_from_the_environment_in_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN")
    nothing = Principal(None, None, None, None)

    def kind() -> str:
        return type(credentials_of("a", None, None, nothing, "http://a", "cure")).__name__

    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert kind() == "EntraTokens"
    for name, expected in ((names[2], "Signature"), (names[1], "SharedKey"), (names[0], "SharedKey")):
        monkeypatch.setenv(name, "sig=x")
        assert kind() == expected
    assert type(credentials_of("a", None, None, Principal("cli", None, None, None), "http://a", "cure")).__name__ == "EntraTokens"


def test_a_page_of_googles_has_one_value_that_counts() -> None:
    page = google_page(more="<IsTruncated>false</IsTruncated><IsTruncated>true</IsTruncated>")
    with pytest.raises(UnreadablePage):
        parse_google_page(page)


@pytest.mark.parametrize("period", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("start", [0, 1, 5, 100])
def test_tokens_that_run_in_a_circle_are_found(start: int, period: int) -> None:
    tokens = PageTokens()
    faults = (tokens.fault(str(n if n < start else start + (n - start) % period)) for n in range(10_000))
    assert "followed by itself or by an earlier one" in next(filter(None, faults))


def test_a_long_listing_has_no_fault() -> None:
    tokens = PageTokens()
    assert not any(tokens.fault(str(n), is_empty=n % 1000 != 0) for n in range(5000))


def test_empty_pages_without_an_end_are_found() -> None:
    tokens = PageTokens()
    faults = [tokens.fault(str(n), is_empty=True) for n in range(1001)]
    assert not any(faults[:-1])
    assert "are empty" in faults[-1]


@pytest.mark.parametrize("date", ["Mon, 02 Jan 99999999999999999999 03:04:05 GMT", "", "x", "Mon, 99 Jan 2024 00:00:00 GMT"])
def test_a_server_with_an_impossible_date_has_no_clock(date: str) -> None:
    assert seconds_ahead(date, 0.0, 1.0) == 0.0
