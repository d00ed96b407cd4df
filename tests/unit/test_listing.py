"""What is read of the pages of an S3 listing: by expressions, and by expat where these find not all of it."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest

from autosync.actors._responses import PAGE_BYTES, ResponseError
from autosync.actors.s3.own_client.list_page import any_page, next_token, parse_page, token_after
from autosync.actors.s3.own_client.list_xml import parse_xml
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
        ("a&#1;&#x1F;&#x1f600;&#38;lt;&amp;#65;&quot;", False, "a\x01\x1f\U0001f600&lt;&#65;\""),
        ("a&#x20;%20+", True, "a   "),
    ],
)
def test_keys_are_read_as_they_are_meant(key: str, encoded: bool, meant: str) -> None:
    page = parse_page(written(OBJECT.format(key=key), encoded=encoded))

    assert page is not None
    assert page.keys == [meant]


def test_a_page_without_objects_is_one() -> None:
    assert parse_page(written()) == Page([], [], [], [])


#: Pages that are not of the usual form, and the keys in them.
UNUSUAL = {
    "attributes": (written(OBJECT.format(key="a").replace("<Contents>", "<Contents xmlns='x'>")), ["a"]),
    "no ETag": (written(OBJECT.format(key="a"), OBJECT.format(key="b").replace("<ETag>&quot;abc&quot;</ETag>", "")), ["a", "b"]),
    "CDATA": (written(OBJECT.format(key="<![CDATA[a<&b]]>c")), ["a<&bc"]),
    "prefixes": (written(OBJECT.format(key="a%2Fb")).replace("</", "</s3:").replace("<", "<s3:").replace("<s3:/s3:", "</s3:")
                 .replace("<s3:?xml", "<?xml").replace("<s3:ListBucketResult", "<s3:ListBucketResult xmlns:s3='x'"), ["a/b"]),
    "no IsTruncated": (written(OBJECT.format(key="a"), more=""), ["a"]),
    "a comment in a key": (written(OBJECT.format(key="a<!-- x -->b")), ["ab"]),
    "an ETag in references": (written(OBJECT.format(key="a").replace("&quot;abc&quot;", "&#x22;a&#98;c&#34;")), ["a"]),
    "another time zone, and spaces": (
        written(OBJECT.format(key=" a ").replace("2020-01-01T00:00:00.500Z", " 2020-01-01T01:00:00.500+01:00\n").replace("3<", " 3 <")),
        [" a "],
    ),
    "an empty key": (written(OBJECT.format(key="")), [""]),
    "bytes that are not UTF-8 beside it": (written(OBJECT.format(key="%FF").replace("<Contents>", "<Contents a='b'>")), ["\udcff"]),
    "names like those of values elsewhere": (
        written(
            OBJECT.format(key="a").replace("<ETag>", "<Owner><Key>x</Key><Size>1</Size></Owner><ETag>"),
            "<CommonPrefixes><Key>y</Key></CommonPrefixes>",
        ),
        ["a"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", UNUSUAL)
def test_a_page_in_another_form_is_read_by_expat(form: str) -> None:
    text, keys = UNUSUAL[form]

    assert parse_page(text) is None
    page = any_page(text)
    assert page.keys == keys
    assert (page.sizes, page.times) == ([3] * len(keys), [1577836800.5] * len(keys))
    assert page.etags == (["abc", None] if form == "no ETag" else ["abc"])
    assert token_after(text) is None


def test_both_ways_to_read_a_page_agree() -> None:
    for text in (
        written(OBJECT.format(key="a%20b+c"), OBJECT.format(key="b&amp;%C3%A9")),
        written(OBJECT.format(key="a&#x41;&#38;lt;&lt;%20"), encoded=False),
        written(),
    ):
        page = parse_page(text)
        assert page is not None
        assert parse_xml(text) == (page, None)


#: What is no page, and the error text.
BROKEN = {
    "nothing": ("", "no element found"),
    "a login": ("<html><body>Log in first</body></html>", "it is a 'html'"),
    "a broken login": ("<html>Log in first<br></html>", "it is a 'html'"),
    "an error": ("<Error><Code>InternalError</Code></Error>", "it is a 'Error'"),
    "the end is missing": (written(OBJECT.format(key="a")).removesuffix("</ListBucketResult>"), "no element found"),
    "the next token is missing": (written(OBJECT.format(key="a"), more="<IsTruncated>true</IsTruncated>"), "no NextContinuationToken"),
    "no size": (written(OBJECT.format(key="a"), OBJECT.format(key="b").replace("<Size>3</Size>", "")), "an object has no Size"),
    "no time": (written(OBJECT.format(key="a").replace("LastModified", "Modified")), "an object has no LastModified"),
    "no key": (written(OBJECT.replace("Key>", "Name>")), "an object has no Key"),
    "a strange time": (written(OBJECT.format(key="a").replace("2020-01-01T00:00:00.500Z", "yesterday")), "yesterday"),
    "a time without a zone": (written(OBJECT.format(key="a").replace("500Z", "500")), "no time zone"),
    "a strange size": (written(OBJECT.format(key="a").replace("<Size>3", "<Size>three")), "three"),
    "a document type": (f"<!DOCTYPE a [<!ENTITY b 'c'>]>{written(OBJECT.format(key='&b;<!-- -->'))[22:]}", "a document type"),
    "a negative size": (written(OBJECT.format(key="a").replace("<Size>3", "<Size>-3")), "a negative size"),
    "two values": (written(more="<IsTruncated>false</IsTruncated><IsTruncated>true</IsTruncated>"), "two values of IsTruncated"),
    "two values in two forms": (written(more="<IsTruncated a=''>true</IsTruncated><IsTruncated>false</IsTruncated>"), "two values of IsTr"),
    "two keys": (written(OBJECT.format(key="a").replace("<Size>", "<Key>b</Key><Size>")), "two values of Key"),
    "a document type that is not used": (written().replace("<ListBucketResult>", "<!DOCTYPE a><ListBucketResult>"), "a document type"),
    "too deep": (written("<a>" * 100_000 + "</a>" * 100_000 + "<Contents/>"), "inside each other"),
    "a tag without an end": (written(f"<Contents {'a' * 100_000}"), "a tag is longer"),
    "many attributes": (written("<Contents " + " ".join(f"a{number}='>'" for number in range(20_000)) + "/>"), "a tag is longer"),
    "a key without an end": (written(OBJECT.format(key="<![CDATA[" + "<" * 100_000 + "]]>")), "a text is longer"),
    "bytes that are not UTF-8": (written(OBJECT.format(key="\udcff").replace("<Contents>", "<Contents a='b'>")), "not well-formed"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_page_is_an_error_and_no_short_listing(kind: str) -> None:
    text, error_text = BROKEN[kind]

    assert parse_page(text) is None
    with pytest.raises(ResponseError, match=f"^a page of the listing cannot be read: .*{error_text}"):
        any_page(text)


def test_a_page_with_more_objects_than_any_server_sends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autosync.actors.s3.own_client.list_xml._OBJECTS", 2)
    objects = [OBJECT.format(key=key).replace("<Contents>", "<Contents a='b'>") for key in "abc"]

    assert any_page(written(*objects[:2])).keys == ["a", "b"]
    with pytest.raises(ResponseError, match="more than 2 objects"):
        any_page(written(*objects))


@pytest.mark.parametrize("hidden", ["<!-- {} -->", "<?x {}?>", "<A><![CDATA[{}]]></A>"])
def test_a_value_that_only_seems_to_be_one_does_not_end_a_listing(hidden: str) -> None:
    more = hidden.format("<IsTruncated>false</IsTruncated>")
    text = written(OBJECT.format(key="a"), more=f"{more}<IsTruncated>true</IsTruncated><NextContinuationToken>b</NextContinuationToken>")

    assert parse_page(text) is None
    assert any_page(text).keys == ["a"]
    assert next_token(text) is None
    assert token_after(text) == "b"


@pytest.mark.parametrize("text", ["", "<html/>", written(more="<IsTruncated>true</IsTruncated>"), written(more="<IsTruncated>maybe")])
def test_where_it_is_not_certain_whether_a_page_follows_there_is_an_error(text: str) -> None:
    with pytest.raises(ResponseError):
        token_after(text)


@pytest.mark.parametrize(
    "filling",
    [
        "<Contents a='b'/>",
        "<a b='c'/>",
        "<CommonPrefixes><Prefix>a</Prefix></CommonPrefixes>",
        "<Contents a='b'><Key>k</Key><Size>1</Size><LastModified>2020-01-01T00:00:00Z</LastModified></Contents>",
        f"<{'a' * 60_000}/>",
        f"<Contents><Key>{'<![CDATA[k]]>' * 5000}",
        "<![CDATA[" + "x" * 60_000 + "]]>",
        "<a " + " ".join(f"a{number}=''" for number in range(8000)) + "/>",
    ],
    ids=lambda text: text[:20],
)
def test_a_page_that_is_made_to_fill_memory_needs_no_multiple_of_its_length(filling: str) -> None:
    """What pyexpat itself takes is not traced: its own limits are the depth, and the length of a tag."""
    head = written(OBJECT.format(key="a").replace("<Contents>", "<Contents a='b'>"), more="").removesuffix("</ListBucketResult>")
    text = head + filling * (PAGE_BYTES // 16 // len(filling)) + "</ListBucketResult>"
    tracemalloc.start()
    try:
        with suppress(ResponseError):
            any_page(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4 * len(text)


def test_the_next_page_is_requested_only_if_there_is_one() -> None:
    token = "<NextContinuationToken>1/x+y=</NextContinuationToken>"

    assert next_token(written(more=f"<IsTruncated>true</IsTruncated>{token}")) == "1/x+y="
    assert next_token(written(more=f"<IsTruncated>false</IsTruncated>{token}")) is None
    assert next_token(written(more="<IsTruncated>true</IsTruncated>")) is None
    for more in (
        f"<IsTruncated>true</IsTruncated>{token}",
        f"<IsTruncated>true</IsTruncated>{token.replace('+y', '+&#x79;')}",
        f"<IsTruncated a='b'>true</IsTruncated>{token}",
    ):
        assert token_after(written(more=more)) == "1/x+y="
    assert token_after(written(more=f"<IsTruncated>false</IsTruncated>{token}")) is None


# A process of its own for the first listing
