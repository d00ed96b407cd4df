"""What is said of an object beside its content: options, and patterns of the configuration file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_actors import by_proxy

from autosync.actor import Actor
from autosync.actors import load
from autosync.actors.s3 import SMALL
from autosync.actors.s3.headers import Headers
from autosync.errors import ConfigurationError
from autosync.testing import Content
from lab.buckets import Bucket, on_disk
from lab.programs import Programs

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
@pytest.mark.parametrize("way", ["direct", "by a proxy"])
def test_an_object_has_what_options_say(size: int, way: str, exact_bucket: Bucket, made: Callable[..., Actor], content: Content) -> None:
    actor = made(**ALL)
    if way == "by a proxy":
        by_proxy(actor, exact_bucket.server.url)

    actor.upload(content.file("a", b"x" * size))

    found = exact_bucket.client.head_object(Bucket=exact_bucket.name, Key="a")
    assert found["ContentLength"] == size
    assert (found["StorageClass"], found["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")
    assert (found["CacheControl"], found["ContentType"]) == ("max-age=60, public", "text/x-mine")
    assert found["Metadata"] == {"station": "WNYC", "note": "a b=c"}
    tags = exact_bucket.client.get_object_tagging(Bucket=exact_bucket.name, Key="a")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"kind": "music", "how much": "1 + 2=3"}
    grants = exact_bucket.client.get_object_acl(Bucket=exact_bucket.name, Key="a")["Grants"]
    assert any("AllUsers" in grant["Grantee"].get("URI", "") for grant in grants)


def test_a_server_that_checks_signatures_takes_them(bucket: Bucket, content: Content) -> None:
    actor = load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url, **{**ALL, "sse": None})
    files = [content.file("a", b"x"), content.file("b", b"x")]

    assert actor.upload_many(files) == [None, None]
    actor.upload(content.file("large", bytes(SMALL + 1)))

    for key in ("a", "b", "large"):
        found = bucket.client.head_object(Bucket=bucket.name, Key=key)
        assert (found["CacheControl"], found["ContentType"]) == ("max-age=60, public", "text/x-mine")
        assert {name.lower(): value for name, value in found["Metadata"].items()} == {"station": "WNYC", "note": "a b=c"}
    actor.close()


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


@pytest.mark.slow
def test_patterns_come_from_the_configuration_file(programs: Programs, exact_bucket: Bucket, tree: Path) -> None:
    for name in ("a.mp3", "b.txt", "large.mp3"):
        (tree / name).write_bytes(b"x" * (SMALL + 1 if name.startswith("large") else 5))
    config = tree.parent / "mirror.toml"
    config.write_text(
        f'paths = [{json.dumps(str(tree))}]\nsource-prefix = "{tree}/"\ntarget-container = "{exact_bucket.name}"\n'
        f'endpoint-url = "{exact_bucket.server.url}"\nmetadata = ["by=autosync"]\n'
        "[[pattern]]\nmatch = '.*mp3'\ncache-control = 'max-age=5'\ntag = ['kind=music']\n"
    )

    done = programs.run("autosync", f"--config={config}", "--once")

    assert done.returncode == 0, done.stderr
    assert exact_bucket.sizes() == on_disk(tree)
    for key, control, tags in (("a.mp3", "max-age=5", 1), ("large.mp3", "max-age=5", 1), ("b.txt", None, 0)):
        found = exact_bucket.client.head_object(Bucket=exact_bucket.name, Key=key)
        assert (found.get("CacheControl"), found["Metadata"]) == (control, {"by": "autosync"})
        assert len(exact_bucket.client.get_object_tagging(Bucket=exact_bucket.name, Key=key)["TagSet"]) == tags


@pytest.mark.parametrize(("line", "said"), [("pattern = 1", "no list of tables"), ("[[pattern]]\nmatch = '('", "no regular expression")])
def test_a_pattern_that_cannot_be_used_is_one_clear_line(line: str, said: str, programs: Programs, tree: Path) -> None:
    config = tree.parent / "mirror.toml"
    config.write_text(f'target-container = "x"\n{line}\n')

    done = programs.run("autosync", f"--config={config}", str(tree))

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr
