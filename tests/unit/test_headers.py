"""What is said of an object beside its content: options, and patterns of the configuration file."""

from __future__ import annotations

from typing import Any

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

    def said(key: str) -> dict[str, Any]:
        return {name: value for name, value in headers.of(key).parameters.items() if name != "ACL"}

    assert said("radio/x.mp3") == {"CacheControl": "first", "ContentType": "audio/mpeg"}
    assert said("radio/x.txt") == {"CacheControl": "second", "ContentType": "text/plain", "Metadata": {"a": "b"}}
    assert said("x.mp3.txt") == {"CacheControl": "general", "ContentType": "text/plain"}
    assert all(headers.of(key).parameters["ACL"] == "private" for key in ("radio/x.mp3", "radio/x", "y"))
    assert headers.of("radio/x").lines == ("x-amz-acl:private", "cache-control:second", "x-amz-meta-a:b")


def test_without_options_only_the_type_is_said() -> None:
    headers = Headers({}, [])
    assert headers.of("a.tar.gz") == ("application/x-tar", (), {"ContentType": "application/x-tar"})
    assert headers.of("a") == ("application/octet-stream", (), {"ContentType": "application/octet-stream"})


BAD = {
    "a line break": ({"cache_control": "a\nInjected: b"}, "cannot stand in a header"),
    "a letter": ({"metadata": ["a=ü"]}, "cannot stand in a header"),
    "a name": ({"metadata": ["a b=c"]}, "cannot be the name of a header"),
    "no pair": ({"metadata": ["abc"]}, "write NAME=VALUE"),
    "no name": ({"tag": ["=abc"]}, "write NAME=VALUE"),
    "too many tags": ({"tag": [f"{number}=x" for number in range(11)]}, "S3 takes 10 tags"),
    "no match": ({"pattern": [{"acl": "private"}]}, "pattern 1: 'match' is missing"),
    "no expression": ({"pattern": [{"match": "("}]}, "pattern 1: match '(' is no regular expression"),
    "another option": ({"pattern": [{"match": "x", "region": "y"}]}, "pattern 1: there is no 'region'"),
    "a number": ({"pattern": [{"match": "x", "cache_control": 7}]}, "pattern 1: --cache-control: 7 is no text"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_said_is_refused(case: str) -> None:
    settings, said = BAD[case]
    with pytest.raises(ConfigurationError) as caught:
        load("s3")(target_container="bucket", **settings)
    assert said in str(caught.value)
