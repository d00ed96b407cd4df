"""The headers of an object: from options, and from patterns of the configuration file."""

from __future__ import annotations

import pytest

from autosync.actors import load
from autosync.actors.s3.headers import Headers
from autosync.errors import ConfigurationError


def test_the_first_pattern_that_a_key_matches_counts() -> None:
    headers = Headers(
        {"cache_control": "general", "acl": "private"},
        [
            {"match": r".*\.mp3", "content_type": "audio/mpeg", "cache_control": "first"},
            {"match": r"radio/.*", "cache_control": "second", "metadata": {"a": "b"}},
            {"match": r".*\.mp3", "cache_control": "never"},
        ],
    )

    def headers_of(key: str) -> tuple[str, ...]:
        content_type, (acl, *others) = headers.of(key)
        assert acl == "x-amz-acl:private"
        return content_type, *others

    assert headers_of("radio/x.mp3") == ("audio/mpeg", "cache-control:first")
    assert headers_of("radio/x.txt") == ("text/plain", "cache-control:second", "x-amz-meta-a:b")
    assert headers_of("x.mp3.txt") == ("text/plain", "cache-control:general")
    assert headers.of("radio/x").lines == ("x-amz-acl:private", "cache-control:second", "x-amz-meta-a:b")


def test_without_options_the_type_is_the_only_header() -> None:
    headers = Headers({}, [])
    assert headers.of("a.tar.gz") == ("application/x-tar", ())
    assert headers.of("a") == ("application/octet-stream", ())


def test_of_two_names_that_are_one_header_the_last_counts() -> None:
    """Two lines with one name would be signed as S3 does not read them."""
    headers = Headers({"metadata": ["Station=a", "station=b"], "tag": ["A=1", "a=2"]}, [])

    assert headers.of("a").lines == ("x-amz-meta-station:b", "x-amz-tagging:A=1&a=2")


BAD = {
    "a line break": ({"cache_control": "a\nInjected: b"}, "cannot stand in a header"),
    "a letter": ({"metadata": ["a=ü"]}, "cannot stand in a header"),
    "a name": ({"metadata": ["a b=c"]}, "cannot be the name of a header"),
    "no pair": ({"metadata": ["abc"]}, "write NAME=VALUE"),
    "no name": ({"tag": ["=abc"]}, "write NAME=VALUE"),
    "too many tags": ({"tag": [f"{number}=x" for number in range(11)]}, "S3 allows 10 tags"),
    "no match": ({"pattern": [{"acl": "private"}]}, "pattern 1: 'match' is missing"),
    "no expression": ({"pattern": [{"match": "("}]}, "pattern 1: match '(' is no regular expression"),
    "another option": ({"pattern": [{"match": "x", "region": "y"}]}, "pattern 1: there is no 'region'"),
    "a number": ({"pattern": [{"match": "x", "cache_control": 7}]}, "pattern 1: --cache-control: 7 is no text"),
}


@pytest.mark.parametrize("case", BAD)
def test_headers_that_cannot_be_sent_are_refused(case: str) -> None:
    settings, message = BAD[case]
    with pytest.raises(ConfigurationError) as caught:
        load("s3")(target_container="bucket", **settings)
    assert message in str(caught.value)
