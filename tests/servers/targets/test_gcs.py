"""The actor for Google Cloud Storage, against a stand-in; what it shares with that for Azure is in test_azure.py."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_azure import FOREIGN, NOT_KEPT, in_one_line, tried_twice  # noqa: F401

from autosync.actor import Actor, listing_of
from autosync.actors import load
from autosync.actors._multipart import NothingSent
from autosync.actors._object_store import SMALL
from autosync.actors._parts import tried
from autosync.errors import ConfigurationError, FileChanged, PermanentError, SlowDown, TargetError, TargetRefused
from autosync.files import File
from autosync.source.source_file import SourceFile
from autosync.testing import ActorContract, Content, listed
from lab.fixed_response import Refusing
from lab.gcs import PAGE, UPLOADS_PAGE, Gcs
from lab.parts import running


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gcs]:
    """The stand-in for the whole session."""
    yield from running(lambda: Gcs(tmp_path_factory.mktemp("gcs")))


@pytest.fixture
def bucket(gcs: Gcs) -> str:
    """An empty bucket."""
    name = f"t{uuid.uuid4().hex[:16]}"
    gcs.create(name)
    return name


def made(gcs: Gcs, bucket: str, **change: str | None) -> Actor:
    settings = {"target_container": bucket, "endpoint_url": gcs.url, "service_account": str(gcs.service_account)}
    return load("gcs")(**{**settings, **change})


class TestGcs(ActorContract):
    """What every actor must do."""

    many = 2 * PAGE + 50

    @pytest.fixture
    def actor(self, gcs: Gcs, bucket: str) -> Iterator[Actor]:
        one = made(gcs, bucket)
        yield one
        one.close()


@pytest.mark.parametrize("key", [*NOT_KEPT, "\r", "y" * 1025, "ü" * 513, ".well-known/acme-challenge/x"], ids=lambda key: ascii(key)[:20])
def test_a_key_that_the_server_would_change_is_refused_for_good_and_nothing_is_stored_or_deleted_in_its_place(
    key: str, gcs: Gcs, bucket: str, content: Content
) -> None:
    near = key.strip("/")
    if near != key and near.isprintable():
        gcs.put(bucket, near or "none", b"x")
    there = gcs.names(bucket)
    actor = made(gcs, bucket)

    with pytest.raises(PermanentError) as refused:
        actor.upload(content.file(key, b"new"))
    assert "\n" not in str(refused.value)
    actor.delete(File(key))

    assert gcs.names(bucket) == there


def test_keys_are_exact_to_the_byte(gcs: Gcs, bucket: str, content: Content) -> None:
    actor = made(gcs, bucket)
    keys = ["a/b", "a-b", "a", "é", "per%41cent", "%2e%2e/up", "pl+us sp ace", "q?#&=;", "back\\slash", "dot.", "\ue000", "\U0001f600",
            "/slash", "//two", "a//b", "dir/", "tab\t", "\x01", "\x7f", "\x85", "\uffff"]  # fmt: skip
    for key in keys:
        actor.upload(content.file(key, b"x"))

    assert gcs.names(bucket) == sorted(keys)
    assert [file.key for file in listing_of(actor, "")] == sorted(keys)
    for key in keys:
        actor.delete(File(key))
    assert gcs.names(bucket) == []


@pytest.mark.parametrize("foreign", [*FOREIGN, "\x01", "\ufffe", "new\nline", "\r"], ids=ascii)
def test_a_foreign_name_is_listed_as_it_is_and_breaks_no_listing(foreign: str, gcs: Gcs, bucket: str) -> None:
    for key in ("a", foreign, "z"):
        gcs.put(bucket, key, b"x")

    assert listed(made(gcs, bucket)) == {"a": 1, foreign: 1, "z": 1}


@pytest.mark.parametrize("foreign", ["a\nb", "\r", ".well-known/acme-challenge/t", "y" * 1025], ids=lambda key: ascii(key)[:20])
def test_a_foreign_object_is_deleted_also_under_a_key_that_is_not_sent(foreign: str, gcs: Gcs, bucket: str) -> None:
    for key in ("a", foreign, f"{foreign}x"):
        gcs.put(bucket, key, b"x")
    actor = made(gcs, bucket)

    actor.delete(File(foreign))
    actor.delete(File(foreign))

    assert gcs.names(bucket) == sorted(["a", f"{foreign}x"])


def test_a_foreign_object_that_no_request_reaches_is_an_error(gcs: Gcs, bucket: str) -> None:
    for key in ("b/../c", "c"):
        gcs.put(bucket, key, b"x")

    with pytest.raises(PermanentError, match="cannot be deleted: its path has"):
        made(gcs, bucket).delete(File("b/../c"))

    assert gcs.names(bucket) == ["b/../c", "c"]


def test_a_listing_across_pages_is_complete_and_in_order(gcs: Gcs, bucket: str, content: Content) -> None:
    one = content.file("shared", b"x")
    keys = sorted(f"{number % 13}/{number:05}" for number in range(6 * PAGE))
    files = [SourceFile(key, os.dup(one.descriptor)) for key in keys]
    actor = made(gcs, bucket)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda file: tried(file, lambda: actor.upload(file)), files))  # as a worker would
    for file in files:
        file.close()

    assert [file.key for file in listing_of(actor, "")] == keys
    assert [file.key for file in listing_of(actor, "1")] == [key for key in keys if key.startswith("1")]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: actor.delete(File(key)), keys))
    assert listed(actor) == {}


def test_what_was_sent_in_one_request_can_be_compared_and_what_was_sent_in_parts_cannot(
    gcs: Gcs, bucket: str, content: Content
) -> None:
    actor = made(gcs, bucket)
    small, large = content.file("a", b"content"), content.file("b", bytes(SMALL + 1))
    actor.upload(small)
    actor.upload(large)
    first, second = listing_of(actor, "")

    assert first.etag == hashlib.md5(b"content").hexdigest()
    assert actor.can_match(first)
    assert actor.matches(small, first.etag)
    assert not actor.matches(content.file("a", b"CONTENT"), first.etag)
    assert second.etag
    assert not actor.can_match(second)
    assert not actor.matches(large, second.etag)


@pytest.mark.parametrize("name", ["page.html", "what.unknown"])
@pytest.mark.parametrize("size", [1, SMALL + 1])
def test_an_object_has_the_type_of_its_name(name: str, size: int, gcs: Gcs, bucket: str, content: Content) -> None:
    made(gcs, bucket).upload(content.file(name, bytes(size)))

    answer = gcs.read(bucket, name)
    assert answer.headers["Content-Type"] == ("text/html" if name == "page.html" else "application/octet-stream")
    assert answer.content == bytes(size)


def test_a_torn_large_file_leaves_no_open_upload(gcs: Gcs, bucket: str, content: Content) -> None:
    actor = made(gcs, bucket)
    read, open_then = 0, list[str]()

    def meanwhile(count: int) -> None:
        nonlocal read
        read += count
        if read > 2 * SMALL and not open_then:
            open_then.extend(gcs.open_uploads(bucket))
            os.utime(content.path(file), (1, 1))

    file = content.file("torn", bytes(3 * SMALL + 7), meanwhile)
    with pytest.raises(FileChanged):
        actor.upload(file)

    assert set(open_then) == {"torn"}, "it was torn while it was on its way"
    assert gcs.open_uploads(bucket) == []
    assert gcs.names(bucket) == []


def test_uploads_that_a_killed_worker_left_are_ended_and_no_others(gcs: Gcs, bucket: str) -> None:
    actor = made(gcs, bucket)
    create = actor._requests.create  # type: ignore[attr-defined]
    noted, other = create("a", "text/plain"), create("a", "text/plain")
    for key in ("a/b", "b"):
        create(key, "text/plain")

    for _ in range(2):  # that it is not there any more is no error
        actor.abandon("a", noted)
        assert sorted(gcs.open_uploads(bucket)) == ["a", "a/b", "b"]
    assert other != noted


def test_uploads_that_a_killed_worker_was_about_to_begin_are_ended(gcs: Gcs, bucket: str) -> None:
    """The list of open uploads has several pages, and its keys are encoded."""
    actor = made(gcs, bucket)
    create = actor._requests.create  # type: ignore[attr-defined]
    key = "a b+%2B/\x01"
    now = time.time()
    for _ in range(2 * UPLOADS_PAGE + 1):
        create(key, "text/plain")
    create(f"{key}/longer", "text/plain")

    actor.abandon(key, f"begins {now - 1000:.3f}")
    actor.abandon(key, f"begins {now + 1000:.3f}")
    assert len(gcs.open_uploads(bucket)) == 2 * UPLOADS_PAGE + 2, "they were begun at another time"
    actor.abandon(key, f"begins {now:.3f}")

    assert gcs.open_uploads(bucket) == [f"{key}/longer"]


def test_what_may_be_open_is_noted_before_it_is(gcs: Gcs, bucket: str, content: Content) -> None:
    actor = made(gcs, bucket)
    seen: list[tuple[str, str, int]] = []
    file = content.file("large", bytes(SMALL + 1))
    file._begun = lambda token, instead: seen.append((token, instead, len(gcs.open_uploads(bucket))))
    ended: list[str] = []
    file._ended = ended.append

    actor.upload(file)

    (intention, nothing, before), (upload, replaced, after) = seen
    assert (nothing, before, replaced, after) == ("", 0, intention, 1)
    assert ended == [upload]


def test_nothing_stays_noted_where_no_upload_can_have_begun(gcs: Gcs, bucket: str, content: Content) -> None:
    actor = made(gcs, bucket, endpoint_url="http://127.0.0.1:1")

    with pytest.raises(NothingSent):
        actor.upload(content.file("large", bytes(SMALL + 1)))

    assert content.open == set()


@pytest.mark.parametrize("name", ["gcs", "azure"])
def test_a_redirect_is_not_followed(name: str, refusing: Callable[..., Refusing], gcs: Gcs, content: Content) -> None:
    there = refusing(200, b"")
    server = refusing(307, b"", Location=f"{there.url}/elsewhere")
    actor = made(gcs, "bucket", endpoint_url=server.url)
    if name == "azure":
        actor = load("azure")(target_container="container", endpoint_url=server.url, account="a", account_key="a2V5")

    for do in (actor.check, lambda: listed(actor), lambda: actor.upload(content.file("a", b"x")), lambda: actor.delete(File("a"))):
        with pytest.raises(TargetRefused, match=r"307: it leads elsewhere; correct --endpoint-url"):
            do()

    assert there.methods == []


# Errors

def account(text: str, directory: Path) -> str:
    path = directory / "account.json"
    path.write_text(text)
    return str(path)


@pytest.mark.usefixtures("tried_twice")
@pytest.mark.parametrize(
    ("change", "kind", "error_text"),
    [
        ({"target_container": "no-such-bucket"}, TargetRefused, "there is no such bucket; create it"),
        ({"service_account": "stranger"}, TargetRefused, "access is denied .*check --service-account"),
        ({"service_account": "/no/such/file"}, TargetRefused, "credentials cannot be used .*No such file.*check --service-account"),
        ({"service_account": '{"private_key": "sEcReT"}'}, TargetRefused, "credentials cannot be used .*check --service-account"),
        ({"service_account": '{"private_key": "sEcReT", "client_email": "x", "private_key_id": "y"}'}, TargetRefused, "be used .*PEM"),
        ({"service_account": '"sEcReT"'}, TargetRefused, "credentials cannot be used .*check --service-account"),
        ({"endpoint_url": "http://127.0.0.1:1"}, NothingSent, "Connection refused"),
    ],
    ids=lambda value: " ".join(value.values())[:30] if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_reported_in_one_clear_line_without_a_secret(
    change: dict[str, str], kind: type[TargetError], error_text: str, gcs: Gcs, bucket: str, content: Content,
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    given = change.get("service_account", "")
    if given == "stranger":
        change = {"service_account": str(gcs.stranger())}
    elif given.startswith(("{", '"')):
        change = {"service_account": account(given, tmp_path)}
    actor = made(gcs, bucket, **change)
    errors: list[TargetError] = []

    for do in (actor.check, lambda: listed(actor), lambda: actor.delete(File("a")),
               lambda: actor.upload(content.file("a", b"x")), lambda: actor.upload(content.file("a", bytes(SMALL + 1)))):  # fmt: skip
        with pytest.raises(kind, match=error_text) as refused:
            do()
        errors.append(refused.value)

    assert [type(error) for error in errors] == [kind] * 5
    assert all(map(in_one_line, errors))
    everything = "\n".join([*map(str, errors), caplog.text])
    assert everything.count("\n") == 5 + caplog.text.count("\n")
    assert not [secret for secret in ("sEcReT", "Bearer", "PRIVATE", "eyJ") if secret in everything]


@pytest.mark.usefixtures("tried_twice")
@pytest.mark.parametrize("status", [429, 503])
def test_a_target_that_demands_fewer_requests_is_not_tried_again(
    status: int, refusing: Callable[..., Refusing], gcs: Gcs, content: Content
) -> None:
    server = refusing(status, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
    actor = made(gcs, "bucket", endpoint_url=server.url)

    with pytest.raises(SlowDown, match=f"{status} SlowDown: Please reduce"):
        actor.upload(content.file("a", b"x"))
    assert server.methods == ["PUT"]
    with pytest.raises(SlowDown):
        actor.delete(File("a"))
    assert server.methods == ["PUT", "DELETE"]
    with pytest.raises(SlowDown):
        listed(actor)


def test_credentials_of_the_environment_are_used_where_no_option_has_any(
    gcs: Gcs, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(gcs.service_account))

    made(gcs, bucket, service_account=None).check()


def test_a_host_without_credentials_is_refused_at_the_start_and_tried_again_later(
    gcs: Gcs, bucket: str, content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    actor = made(gcs, bucket, service_account=None)

    with pytest.raises(TargetRefused, match=r"no credentials were found .*check --service-account"):
        actor.check()
    with pytest.raises(TargetError, match="no credentials were found") as caught:
        actor.upload(content.file("a", b"x"))
    assert not isinstance(caught.value, PermanentError)


def test_the_file_of_a_service_account_is_found_from_any_directory(
    gcs: Gcs, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(gcs.service_account.parent)
    actor = made(gcs, bucket, service_account=gcs.service_account.name)
    monkeypatch.chdir(tmp_path)

    actor.check()


@pytest.mark.parametrize("name", ["A", "a/b", "a?b", "..", "ab"])
def test_what_cannot_be_the_name_of_a_bucket_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a bucket"):
        load("gcs")(target_container=name)
