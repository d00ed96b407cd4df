"""The actor for Swift, against OpenStack Swift itself; the identity services of versions 2 and 3 are a stand-in."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
import requests
import swiftclient.client

from autosync.actor import Actor, listing_of
from autosync.actors import load
from autosync.actors.swift import segments
from autosync.actors.swift.object_deleter import _parse_bulk_response
from autosync.actors.swift.segments import segment_ranges
from autosync.errors import ConfigurationError, FileChanged, PermanentError, SlowDown, TargetError, TargetRefused
from autosync.files import File
from autosync.source.source_file import SourceFile
from autosync.source.stable_read import StableReader
from autosync.testing import ActorContract, Content, DeletionContract, KeyContract, ListingContract, UploadContract, listed
from lab.faults import Proxy
from lab.fixed_response import Refusing
from lab.parts import running
from lab.swift import Keystone, Swift, new_container, swift_actor
from lab.swiftd import KEY, USER

MIB = 1 << 20
#: So many objects are on a page of a listing of the old Swift.
PAGE = 100



@pytest.fixture(scope="session")
def old_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    yield from running(lambda: Swift(tmp_path_factory.mktemp("old-swift"), "bulk", "slo", page=PAGE))


@pytest.fixture
def old_swift(old_server: Swift, monkeypatch: pytest.MonkeyPatch) -> Swift:
    """One without bulk deletion and large objects, and with short pages."""
    monkeypatch.setattr(segments, "_PAGE", PAGE)  # it refuses to list more at once
    return old_server


@pytest.fixture(scope="session")
def keystone(swift: Swift) -> Iterator[Keystone]:
    service = Keystone(swift)
    yield service
    service.close()


@pytest.fixture
def container(swift: Swift) -> str:
    """An empty container."""
    return new_container(swift)


@pytest.fixture
def actor(swift: Swift, container: str) -> Iterator[Actor]:
    one = swift_actor(swift, container)
    yield one
    one.close()


@pytest.fixture
def segments_of(swift: Swift, container: str) -> Callable[[], list[str]]:
    """The names of the segments that are there."""
    return lambda: swift.names(f"{container}_segments")


class TestSwift(ActorContract):
    """What every actor must do, with segments of 1 MiB. The other Swift has several pages of what is listed."""

    large = 3 * MIB + 7
    many = 50

    @pytest.fixture
    def actor(self, swift: Swift, container: str) -> Iterator[Actor]:
        one = swift_actor(swift, container)
        yield one
        one.close()


class TestSwiftWithoutSegments(UploadContract):
    """The same where what is large is sent in one request. Listing, deleting and keys do not depend on the size of segments: the actor asks
    for it in `upload` only."""

    @pytest.fixture
    def actor(self, swift: Swift, container: str) -> Iterator[Actor]:
        one = swift_actor(swift, container, segment_size=None)
        yield one
        one.close()


class TestOldSwift(KeyContract, ListingContract, UploadContract, DeletionContract):
    """The same with a Swift that can neither delete many at once nor make large objects, and has short pages. What is not in these parts
    (many threads, operations in random order) asks nothing of it that they do not."""

    many = 2 * PAGE + 50

    def test_a_listing_of_many_pages_is_complete(self, actor: Actor, content: Content, old_swift: Swift) -> None:
        super().test_a_listing_of_many_pages_is_complete(actor, content)
        assert len(old_swift.page(str(actor.target_container))) == PAGE, "there are several pages"

    @pytest.fixture
    def actor(self, old_swift: Swift) -> Iterator[Actor]:
        one = swift_actor(old_swift, new_container(old_swift), segment_size=None)
        yield one
        one.close()


# Logging in

def logins(swift: Swift, keystone: Keystone) -> dict[str, dict[str, str]]:
    user = {"user": Keystone.USER, "password": Keystone.PASSWORD}
    return {
        "1": {"auth_url": swift.url, "user": USER, "password": KEY},
        "2": {**user, "auth_url": f"{keystone.url}/v2.0", "project": Keystone.PROJECT},
        "2, by option": {**user, "auth_url": keystone.url, "project": Keystone.PROJECT, "auth_version": "2"},
        "3": {**user, "auth_url": f"{keystone.url}/v3", "project": Keystone.PROJECT},
        "3, by default": {**user, "auth_url": f"{keystone.url}/", "project": Keystone.PROJECT, "region": "one", "interface": "internal"},
        "3, application credential": {
            "auth_url": keystone.url, "application_credential": Keystone.CREDENTIAL, "application_credential_secret": Keystone.SECRET,
        },
        "rackspace": {
            "auth_url": f"{keystone.url}/v2.0/", "auth_version": "rackspace", "user": Keystone.USER, "password": Keystone.API_KEY,
            "region": "ONE",
        },
    }  # fmt: skip


WAYS = ["1", "2", "2, by option", "3", "3, by default", "3, application credential", "rackspace"]


@pytest.mark.smoke  # versions of keystoneauth1 and swiftclient differ in what autosync calls
@pytest.mark.parametrize("variant", WAYS)
def test_each_way_to_log_in_can_do_everything(variant: str, swift: Swift, keystone: Keystone, container: str, content: Content) -> None:
    actor = load("swift")(target_container=container, segment_size=1, **logins(swift, keystone)[variant])
    before = keystone.tokens_issued

    actor.check()
    actor.upload(content.file("a", b"x"))
    actor.upload(content.file("large", bytes(MIB + 1)))
    assert listed(actor) == {"a": 1, "large": MIB + 1}
    actor.delete(File("a"))
    assert actor.delete_many([File("large"), File("never")]) == [None, None]

    assert listed(actor) == {}
    assert keystone.tokens_issued - before == (0 if variant == "1" else 1), "a token is used until it ends"
    actor.close()


def test_rackspace_is_recognized_by_its_name() -> None:
    from autosync.actors.swift.identity import Login, _ApiKey, identity_of

    found = identity_of(Login("https://identity.api.rackspacecloud.com/v2.0", user="u", password="k"))

    assert isinstance(found, _ApiKey)
    assert found.auth_url == "https://identity.api.rackspacecloud.com/v2.0"


@pytest.mark.parametrize("variant", ["1", "2", "3", "3, application credential", "rackspace"])
def test_a_wrong_secret_is_refused_in_one_line_that_does_not_have_it(
    variant: str, swift: Swift, keystone: Keystone, container: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    login = logins(swift, keystone)[variant]
    login["application_credential_secret" if "application" in variant else "password"] = "wr0ng-s3cret"
    actor = load("swift")(target_container=container, **login)

    for do in (actor.check, lambda: listed(actor), lambda: actor.delete(File("a"))):
        with pytest.raises(TargetRefused, match=r"the login at http.*check --user, --password") as refused:
            do()
        assert "\n" not in str(refused.value)
        assert "wr0ng-s3cret" not in str(refused.value)
        error = refused.value.__cause__
        assert error is None, "what it was made of has the request"
    assert "wr0ng-s3cret" not in caplog.text


def test_no_secret_and_no_token_is_in_the_log_where_everything_is(
    swift: Swift, keystone: Keystone, container: str, content: Content, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = set()
    for variant in WAYS:
        login = logins(swift, keystone)[variant]
        actor = load("swift")(target_container=container, **login)
        actor.upload(content.file("a", b"x"))
        tokens.add(actor._access._token())  # type: ignore[attr-defined]

    assert "If-None-Match" in caplog.text, "the requests are there"
    assert tokens
    for secret in (KEY, Keystone.PASSWORD, Keystone.SECRET, Keystone.API_KEY, *(token[:14] for token in tokens)):
        assert secret not in caplog.text.replace(USER, "")


def test_a_token_that_is_refused_is_made_anew_once_for_all_threads(
    swift: Swift, keystone: Keystone, container: str, content: Content
) -> None:
    actor = load("swift")(target_container=container, segment_size=1, **logins(swift, keystone)["3"])
    actor.check()
    auth = actor._access._auth.auth  # type: ignore[attr-defined]
    auth.auth_ref._auth_token = "gone"
    before = keystone.tokens_issued
    files = [content.file(f"{number:02}", b"x") for number in range(20)]

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(actor.upload, files))
    assert len(listed(actor)) == 20
    assert keystone.tokens_issued - before == 1
    auth.auth_ref._auth_token = "gone again"
    actor.upload(content.file("large", bytes(2 * MIB)))
    assert keystone.tokens_issued - before == 2
    actor.close()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"target_container": "no-such-container"}, TargetRefused, "404 .*create the container"),
        ({"auth_url": "http://127.0.0.1:1/v3", "project": "p"}, TargetError, "the login at .*cannot be reached"),
        ({"auth_url": "http://127.0.0.1:1/auth/v1.0"}, TargetError, "the login at .*cannot be reached"),
        ({"storage_url": "http://127.0.0.1:1/v1/AUTH_lab"}, TargetError, "ConnectionError: .*refused"),
        ({"auth_version": "3", "project": "p"}, TargetRefused, "no identity service of this version.*check --auth-url"),
        ({"user": "lab:reader"}, TargetRefused, "403 .*they need the right to list"),
    ],
    ids=lambda value: " ".join(map(str, value.values()))[:40] if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_reported_in_one_clear_line(
    change: dict[str, str], kind: type[TargetError], message: str, swift: Swift, container: str, content: Content
) -> None:
    actor = swift_actor(swift, container, **change)

    for do in (actor.check, lambda: listed(actor), lambda: actor.upload(content.file("a", b"x")),
               lambda: actor.upload(content.file("a", bytes(MIB + 1)))):  # fmt: skip
        with pytest.raises(kind, match=message) as refused:
            do()
        assert type(refused.value) is kind
        assert "\n" not in str(refused.value)
    if change != {"target_container": "no-such-container"}:
        (response,) = actor.delete_many([File("a")])
        assert type(response) is kind


def test_a_region_that_the_catalog_does_not_have_is_refused(swift: Swift, keystone: Keystone, container: str) -> None:
    with pytest.raises(TargetRefused, match=r"no object store for this login .*three region.*check --region"):
        load("swift")(target_container=container, **logins(swift, keystone)["3"], region="three").check()
    with pytest.raises(TargetError, match=r"ConnectionError.*refused"):
        load("swift")(target_container=container, **logins(swift, keystone)["3"], region="two").check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"auth_url": None}, "--auth-url is missing"),
        ({"auth_url": "keystone.example.org"}, "--auth-url cannot be used"),
        ({"storage_url": "https://u:secret@example.org/v1/x"}, "--storage-url cannot be used"),
        ({"user": None}, "--user is missing"),
        ({"password": None}, "--password is missing"),
        ({"auth_version": "3"}, "--project is missing"),
        ({"auth_version": "2"}, "--project is missing"),
        ({"application_credential": "x", "auth_version": "3"}, "--application-credential-secret is missing"),
        ({"application_credential": "x", "application_credential_secret": "y"}, "application credentials need version 3"),
        ({"target_container": "a/b"}, "cannot be the name of a container"),
        ({"target_container": None}, "--target-container is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_cannot_be_used_are_refused(change: dict[str, str | None], message: str) -> None:
    good = {"target_container": "c", "auth_url": "http://127.0.0.1:1/auth/v1.0", "user": "u", "password": "secret"}
    load("swift")(**good)

    with pytest.raises(ConfigurationError, match=message) as refused:
        load("swift")(**{**good, **change})
    assert "secret" not in str(refused.value).replace("credential-secret", "")


# Keys

STRANGE = ["./dot", "a/../b", "..", "", "nul\0", "not-\udcffutf8", "y" * 1025, "ü" * 513]


@pytest.mark.parametrize("key", STRANGE, ids=lambda key: ascii(key)[:20])
def test_a_key_that_swift_cannot_have_is_refused_for_good(key: str, actor: Actor, swift: Swift, container: str, content: Content) -> None:
    swift.put(container, "b", b"x")

    with pytest.raises(PermanentError, match="cannot be a key in Swift") as refused:
        actor.upload(content.file(key, b"new"))
    assert "\n" not in str(refused.value)
    assert actor.delete_many([File(key)]) == [None]

    assert swift.names(container) == ["b"]


def test_what_another_program_put_under_a_name_with_dots_is_listed_and_deleted(actor: Actor, swift: Swift, container: str) -> None:
    for key in ("a/../b", "./c", "b", "c"):
        swift.put(container, key, b"x")
    assert set(listed(actor)) == {"a/../b", "./c", "b", "c"}

    assert actor.delete_many([File("a/../b"), File("./c")]) == [None, None]

    assert swift.names(container) == ["b", "c"]


@pytest.mark.parametrize(("status", "result"), [(204, None), (404, None), (400, None), (500, TargetError)])
def test_a_longer_name_than_that_of_any_upload_is_deleted_where_swift_has_it(
    status: int, result: type[TargetError] | None, refusing: Callable[..., Refusing], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = refusing(status)
    monkeypatch.setattr("autosync.actors.swift.identity.Access._token", lambda _: "token")
    login = {"auth_url": "http://127.0.0.1:1/v3", "user": "u", "password": "p", "project": "p"}
    actor = load("swift")(target_container="c", storage_url=server.url, **login)

    (error,) = actor.delete_many([File("y" * 1025)])
    (with_dots,) = actor.delete_many([File(f"a/../{'y' * 1025}")])

    assert isinstance(with_dots, PermanentError)
    assert server.methods == ["DELETE"]
    assert (error and type(error)) is result


def test_keys_are_exact_to_the_byte(actor: Actor, swift: Swift, container: str, content: Content) -> None:
    keys = ["/slash", "//two", "a//b", "a/b", "a-b", "a", "dir/", "é", "per%41cent", "pl+us sp ace", "q?#&=;", "new\nline", "\x01", "\x7f",
            "\ue000", "\U0001f600", "\uffff", " lead", "trail ", "x" * 1024]  # fmt: skip
    for key in keys:
        actor.upload(content.file(key, b"x"))

    assert swift.names(container) == sorted(keys)
    assert [file.key for file in listing_of(actor, "")] == sorted(keys)
    assert actor.delete_many([File(key) for key in keys]) == [None] * len(keys)
    assert swift.names(container) == []


# Listing

@pytest.mark.parametrize(("moment", "meta_mtime"), [(10**18 + 5, "1000000000.000000005"), (-1_500_000_000, "-1.500000000")])
@pytest.mark.parametrize(("name", "size", "kind"), [("page.html", 1, "text/html"), ("film.mp4", MIB + 1, "video/mp4")])
def test_an_object_has_type_and_times(
    name: str, size: int, kind: str, moment: int, meta_mtime: str, actor: Actor, swift: Swift, container: str, content: Content
) -> None:
    path = content.path(content.file(name, bytes(size)))
    os.utime(path, ns=(moment, moment))
    file = SourceFile(name, os.open(path, os.O_RDONLY))
    before = time.time()
    actor.upload(file)
    file.close()
    (found,) = listing_of(actor, name)

    headers = swift.read(container, name).headers
    assert headers["Content-Type"] == kind
    assert headers["X-Object-Meta-Mtime"] == meta_mtime
    assert before - 1 < found.mtime < time.time() + 1
    actor.delete(File(name))
    assert swift.names(f"{container}_segments") == []


def test_etags_compare_content_also_of_large_objects(swift: Swift, container: str, content: Content) -> None:
    actor = swift_actor(swift, container)
    small, large = content.file("a", b"content"), content.file("b", os.urandom(2 * MIB + 9))
    actor.upload(small)
    actor.upload(large)
    first, second = listing_of(actor, "")

    assert first.etag == hashlib.md5(b"content").hexdigest()
    assert actor.can_match(first)
    assert actor.matches(small, first.etag)
    assert not actor.matches(content.file("a", b"CONTENT"), first.etag)
    assert second.etag is not None
    assert second.etag.endswith("-slo")
    assert actor.can_match(second)
    assert actor.matches(large, second.etag)
    assert not actor.matches(content.file("b", os.urandom(2 * MIB + 9)), second.etag)
    assert not swift_actor(swift, container, segment_size=2).matches(large, second.etag), "it cannot be compared"


# Large objects

def test_a_large_file_is_made_of_segments_which_go_with_it(
    actor: Actor, swift: Swift, container: str, content: Content, segments_of: Callable[[], list[str]]
) -> None:
    data = os.urandom(3 * MIB + 7)
    actor.upload(content.file("d/large", data))

    response = swift.read(container, "d/large")
    assert response.content == data
    assert response.headers["X-Static-Large-Object"] == "True"
    first = segments_of()
    assert len(first) == 4
    assert all(name.startswith("autosync/d/large/") for name in first)
    actor.upload(content.file("d/large", data[::-1]))
    assert len(segments_of()) == 4
    assert not set(first) & set(segments_of())
    assert swift.read(container, "d/large").content == data[::-1]
    actor.upload(content.file("d/large", b"small"))
    assert segments_of() == []
    actor.upload(content.file("d/large", data))
    actor.delete(File("d/large"))
    assert segments_of() == []
    assert swift.names(container) == []


def test_a_file_that_is_streamed_in_one_request_removes_the_segments_of_what_it_replaces(
    swift: Swift, container: str, content: Content, segments_of: Callable[[], list[str]]
) -> None:
    swift_actor(swift, container).upload(content.file("a", bytes(9 * MIB)))
    assert len(segments_of()) == 9

    swift_actor(swift, container, segment_size=100).upload(content.file("a", bytes(9 * MIB + 1)))

    assert segments_of() == []
    assert listed(swift_actor(swift, container)) == {"a": 9 * MIB + 1}


def test_segments_of_similar_keys_are_distinguished(
    actor: Actor, swift: Swift, container: str, content: Content, segments_of: Callable[[], list[str]]
) -> None:
    token = "1-2-0123456789abcdef"
    keys = ["a", "a/b", f"a/{token}/00000001", "a0", "a-", "b"]
    for key in keys:
        actor.upload(content.file(key, bytes(MIB + 1)))
    swift.put(f"{container}_segments", "a/somebody/else", b"x")
    swift.put(f"{container}_segments", "autosync/a/strange", b"x")
    before = set(segments_of())
    assert len(before) == 2 * len(keys) + 2

    actor.delete(File("a"))

    left = {name for name in before if not name.startswith("autosync/a/") or name.count("/") != 3} | {"autosync/a/strange"}
    assert set(segments_of()) == left
    assert len(before) - len(left) == 2
    assert actor.delete_many([File(key) for key in ("b", "a/b", f"a/{token}/00000001")]) == [None] * 3
    assert listed(actor) == {"a0": MIB + 1, "a-": MIB + 1}
    for key in ("a0", "a-"):
        assert swift.read(container, key).content == bytes(MIB + 1)
    assert len(segments_of()) == 4 + 2


def test_segments_of_keys_far_apart_are_found_without_listing_what_is_between(
    actor: Actor, swift: Swift, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "_PAGE", 5)
    swift.create(f"{container}_segments")
    token = "1-2-0123456789abcdef"
    for key in [f"k{number:02}" for number in range(30)]:
        for number in range(3):
            swift.put(f"{container}_segments", f"autosync/{key}/{token}/{number:08}", b"x")
    found = actor._segments  # type: ignore[attr-defined]
    requested: list[str] = []
    page = found._page

    def counted(after: str, before: str) -> list[str]:
        requested.append(after)
        names: list[str] = page(after, before)
        return names

    monkeypatch.setattr(found, "_page", counted)

    names = [one.name for one in found.of(["k28", "k02", "absent", "k15", "zz"])]

    assert names == [f"autosync/{key}/{token}/{number:08}" for key in ("k02", "k15", "k28") for number in range(3)]
    assert len(requested) <= 6


@pytest.mark.parametrize("other", ["a/-x", "a/z", "a-", "a/1", "b"])
def test_segments_of_a_key_and_of_one_below_it_are_both_found(
    other: str, actor: Actor, container: str, content: Content, segments_of: Callable[[], list[str]]
) -> None:
    for key in ("a", other):
        actor.upload(content.file(key, bytes(MIB + 1)))
    assert len(segments_of()) == 4

    assert actor.delete_many([File("a"), File(other)]) == [None, None]

    assert segments_of() == []


def test_a_container_for_segments_is_made_with_the_policy_of_the_other(swift: Swift, content: Content) -> None:
    name = f"t{uuid.uuid4().hex[:16]}"
    swift.create(name, X_Storage_Policy="silver")
    actor = swift_actor(swift, name)
    actor.upload(content.file("small", b"x"))
    assert swift.names(f"{name}_segments") == []
    with pytest.raises(requests.HTTPError):
        swift.request("HEAD", f"{name}_segments")

    actor.upload(content.file("large", bytes(MIB + 1)))

    assert swift.request("HEAD", f"{name}_segments").headers["X-Storage-Policy"] == "silver"


def test_what_was_begun_by_a_killed_process_is_abandoned_and_what_is_complete_is_not(
    actor: Actor, swift: Swift, container: str, content: Content, segments_of: Callable[[], list[str]]
) -> None:
    actor.upload(content.file("a", bytes(2 * MIB)))
    (live,) = {name.split("/")[2] for name in segments_of()}
    dead = "1-2-0123456789abcdef"
    for number in (1, 2, 3):
        swift.put(f"{container}_segments", f"autosync/a/{dead}/{number:08}", b"x")
        swift.put(f"{container}_segments", f"autosync/new/{dead}/{number:08}", b"x")

    actor.abandon("a", dead)
    assert len(segments_of()) == 2 + 3
    actor.abandon("new", dead)
    assert len(segments_of()) == 2
    swift.put(f"{container}_segments", f"autosync/a/{dead}/00000001", b"x")
    actor.abandon("a", live)
    assert {name.split("/")[2] for name in segments_of()} == {live}, "it was complete, and what it had replaced was left"
    assert swift.read(container, "a").content == bytes(2 * MIB)
    actor.abandon("never", dead)


def test_a_large_object_whose_content_is_compressed_is_no_obstacle(
    actor: Actor, swift: Swift, container: str, content: Content, segments_of: Callable[[], list[str]]
) -> None:
    """Somebody else's: its manifest comes with the Content-Encoding of its content."""
    actor.upload(content.file("a", bytes(2 * MIB)))
    (token,) = {name.split("/")[2] for name in segments_of()}
    there = [{"path": f"/{container}_segments/{name}"} for name in segments_of()]
    swift.request("PUT", f"{container}/a?multipart-manifest=put", json.dumps(there).encode(), Content_Encoding="gzip")

    actor.abandon("a", token)
    assert len(segments_of()) == 2
    actor.abandon("a", "1-2-0123456789abcdef")
    assert len(segments_of()) == 2


def test_a_torn_or_stopped_large_upload_leaves_no_segments(
    actor: Actor, swift: Swift, container: str, content: Content, segments_of: Callable[[], list[str]]
) -> None:
    actor.upload(content.file("a", b"old"))
    seen: list[str] = []

    def meanwhile(count: int) -> None:
        if not seen and segments_of():
            seen.extend(segments_of())
            os.utime(content.path(file), (1, 1))

    file = content.file("a", bytes(8 * MIB), meanwhile)
    with pytest.raises(FileChanged):
        actor.upload(file)

    assert seen, "it was torn while it was on its way"
    assert segments_of() == []
    assert swift.read(container, "a").content == b"old"
    assert content.open == set()


def test_a_large_file_that_never_rests_is_sent_as_one_version(actor: Actor, swift: Swift, container: str, content: Content) -> None:
    file = content.file("a", os.urandom(3 * MIB))
    path = content.path(file)
    read, changes = 0, 0

    def meanwhile(count: int) -> None:
        nonlocal read, changes
        read += count
        if read > 2 * MIB and not changes:
            changes += 1
            with open(path, "r+b") as other:
                other.seek(7)
                other.write(b"changed")

    changing = SourceFile("a", os.open(path, os.O_RDONLY), meanwhile)
    actor.upload(StableReader(changing))
    changing.close()

    assert changes == 1
    assert swift.read(container, "a").content == path.read_bytes()


def test_a_key_too_long_for_segments_is_refused_only_for_a_large_file(actor: Actor, content: Content) -> None:
    key = "k" * 1000
    actor.upload(content.file(key, b"small"))

    with pytest.raises(PermanentError, match="its segments could not be named"):
        actor.upload(content.file(key, bytes(MIB + 1)))
    assert listed(actor) == {key: 5}


@pytest.mark.parametrize(
    ("size", "step", "count"), [(MIB + 1, MIB, 2), (1000 * MIB, MIB, 1000), (1000 * MIB + 1, MIB, 501), (4 << 40, MIB, 1000)]
)
def test_a_file_has_no_more_segments_than_swift_allows(size: int, step: int, count: int) -> None:
    chunks = [*segment_ranges(size, step)]

    assert len(chunks) == count
    assert sum(length for _, length in chunks) == size
    assert all(offset + length == later for (offset, length), (later, _) in pairwise(chunks))
    assert max(length for _, length in chunks) <= 5 << 30


def test_a_swift_without_large_objects_raises_before_anything_is_sent(old_swift: Swift, content: Content) -> None:
    name = new_container(old_swift)
    actor = swift_actor(old_swift, name)
    actor.upload(content.file("a", b"old"))

    with pytest.raises(PermanentError, match=r"this Swift has no large objects.*--segment-size"):
        actor.upload(content.file("a", bytes(MIB + 1)))

    assert old_swift.read(name, "a").content == b"old"
    assert old_swift.names(f"{name}_segments") == []


def test_a_swift_that_only_reports_large_objects_raises(old_swift: Swift, content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    name = new_container(old_swift)
    actor = swift_actor(old_swift, name)
    monkeypatch.setattr(actor._access, "has_middleware", lambda _: True)  # type: ignore[attr-defined]

    with pytest.raises(PermanentError, match="this Swift has no large objects"):
        actor.upload(content.file("a", bytes(MIB + 1)))

    assert listed(actor) == {}
    assert old_swift.names(f"{name}_segments") == []


# Errors

@pytest.mark.parametrize("status", [429, 498, 503])
def test_a_target_that_demands_fewer_requests_is_not_tried_again(
    status: int, refusing: Callable[..., Refusing], swift: Swift, content: Content
) -> None:
    server = refusing(status, b"slow down")
    actor = swift_actor(swift, "container", storage_url=f"{server.url}/v1/AUTH_lab")

    with pytest.raises(SlowDown, match=f"{status} slow down"):
        actor.upload(content.file("a", b"x"))
    assert server.methods == ["PUT"]
    large = content.file("b", bytes(9 * MIB))
    for do in (actor.check, lambda: listed(actor), lambda: actor.delete(File("a")), lambda: actor.upload(large)):
        with pytest.raises(SlowDown):
            do()


def test_a_login_that_may_use_the_container_only_can_do_what_needs_no_segments(swift: Swift, content: Content) -> None:
    name = f"t{uuid.uuid4().hex[:16]}"
    swift.create(name, X_Container_Write="lab:reader", X_Container_Read="lab:reader,.rlistings")
    actor = swift_actor(swift, name, user="lab:reader")
    actor.check()
    for text in (b"x", b"new", bytes(200_000)):
        actor.upload(content.file("a", text))
    actor.upload(content.file("b", b"x"))

    with pytest.raises(TargetRefused, match=r"403 .*in the container for segments too"):
        actor.upload(content.file("large", bytes(MIB + 1)))
    actor.delete(File("a"))
    assert listed(actor) == {"b": 1}
    assert actor.delete_many([File("b"), File("c")]) == [None, None]
    assert listed(actor) == {}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, TargetError), (408, TargetError), (409, TargetError), (422, TargetError), (507, TargetError), (400, PermanentError),
     (405, PermanentError), (413, PermanentError), (403, TargetRefused), (404, TargetRefused), (401, TargetRefused)],
)  # fmt: skip
def test_other_answers_are_tried_again_or_not(
    status: int, kind: type[TargetError], refusing: Callable[..., Refusing], swift: Swift, content: Content
) -> None:
    server = refusing(status, b"<html>Not for you</html>")
    actor = swift_actor(swift, "container", storage_url=f"{server.url}/v1/AUTH_lab")

    with pytest.raises(TargetError, match=f"a at {server.url}/v1/AUTH_lab: {status}") as refused:
        actor.upload(content.file("a", b"x"))

    assert type(refused.value) is kind
    assert "html" not in str(refused.value)
    assert len(server.methods) == (2 if status == 401 else 1)


def test_of_several_deletions_each_has_its_own_result() -> None:
    names = ["a", "b/ü", "d"]

    found = _parse_bulk_response("c", names, "400 Bad Request", [["/c/b/%C3%BC", "503 Service Unavailable"]], 2)
    assert ({name: type(error) for name, error in found.failed.items()}, found.undone) == ({"b/ü": SlowDown}, [])
    found = _parse_bulk_response("c", names, "413 Max delete failures exceeded", [["/c/a", "409 Conflict"]], 0)
    assert ({name: type(error) for name, error in found.failed.items()}, found.undone) == ({"a": TargetError}, ["b/ü", "d"])
    found = _parse_bulk_response("c", names, "400 Bad Request", [], 0)
    assert (found.failed, found.undone) == ({}, names)
    assert _parse_bulk_response("c", ["a"], "200 OK", [], 1) == ({}, [])
    for status, kind in (("502 Bad Gateway", TargetError), ("401 Unauthorized", TargetError), ("429 Too Many", SlowDown)):
        found = _parse_bulk_response("c", ["a", "b"], status, [], 1)
        assert {name: type(error) for name, error in found.failed.items()} == {"a": kind, "b": kind}


def test_long_keys_in_other_scripts_are_deleted_with_others(
    actor: Actor, swift: Swift, container: str, content: Content, segments_of: Callable[[], list[str]]
) -> None:
    """Swift reads the list of names in blocks of 1,282 bytes, and refuses it as a whole if a line is longer than two of them."""
    keys = ["a", *(letter * 500 for letter in "бвгд"), *(f"{letter} " * 340 for letter in "жзик"), " " * 1000, "z"]
    large = "ю" * 450
    for key in keys:
        actor.upload(content.file(key, b"x"))
    for data in (bytes(MIB + 1), b"1" * (MIB + 1)):
        actor.upload(content.file(large, data))
    assert len(segments_of()) == 2

    assert actor.delete_many([File(key) for key in [*keys, large]]) == [None] * (len(keys) + 1)

    assert swift.names(container) == []
    assert segments_of() == []


def test_a_token_that_ends_in_the_middle_of_a_deletion_makes_no_key_fail_for_good(
    swift: Swift, keystone: Keystone, container: str, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = load("swift")(target_container=container, **logins(swift, keystone)["3"])
    actor.upload(content.file("a", b"x"))
    with monkeypatch.context() as patch:
        patch.setattr(actor._segments, "of", lambda _: [])  # type: ignore[attr-defined]
        actor._access._auth.auth.auth_ref._auth_token = "gone"  # type: ignore[attr-defined]
        (response,) = actor.delete_many([File("a")])
    assert type(response) is TargetError, "the token was refused inside the answer, and the key is tried again"
    assert swift.names(container) == ["a"]

    assert actor.delete_many([File("a")]) == [None]
    assert swift.names(container) == []


def test_without_bulk_deletion_a_login_that_may_use_the_container_only_deletes_one_by_one(old_swift: Swift, content: Content) -> None:
    name = f"t{uuid.uuid4().hex[:16]}"
    old_swift.create(name, X_Container_Write="lab:reader", X_Container_Read="lab:reader,.rlistings")
    actor = swift_actor(old_swift, name, user="lab:reader")
    actor.upload(content.file("a", b"x"))

    assert actor.delete_many([File("a"), File("b")]) == [None, None]
    assert old_swift.names(name) == []


@pytest.mark.parametrize("size", [5, 9 * MIB])
def test_what_arrives_as_something_else_is_an_error(
    size: int, swift: Swift, container: str, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = swiftclient.client.put_object

    def spoiled(url: str, token: str, container: str, name: str, contents: Any, *more: Any, **named: Any) -> Any:
        put(url, token, container, name, contents, *more, **named)
        return hashlib.md5(b"other").hexdigest()

    monkeypatch.setattr(swiftclient.client, "put_object", spoiled)

    with pytest.raises(TargetError, match="the ETag is not that of the content") as refused:
        swift_actor(swift, container, segment_size=100).upload(content.file("a", b"x" * size))
    assert type(refused.value) is TargetError, "it is tried again"


def test_swift_refuses_what_does_not_have_the_sum_that_is_sent_with_it(
    actor: Actor, swift: Swift, container: str, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = swiftclient.client.put_object

    def spoiled(url: str, token: str, container: str, name: str, contents: Any, *more: Any, **named: Any) -> Any:
        return put(url, token, container, name, io.BytesIO(b"y" * len(contents.read())), *more, **named)

    monkeypatch.setattr(swiftclient.client, "put_object", spoiled)

    with pytest.raises(TargetError, match="422") as refused:
        actor.upload(content.file("a", b"content"))
    assert type(refused.value) is TargetError
    assert swift.names(container) == []


def test_a_large_object_with_an_etag_that_nobody_expects_is_left_and_tried_again(
    actor: Actor, swift: Swift, container: str, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = swiftclient.client.put_object

    def without_etag(*words: Any, **named: Any) -> Any:
        found = put(*words, **named)
        return "" if named.get("query_string") else found

    monkeypatch.setattr(swiftclient.client, "put_object", without_etag)
    monkeypatch.setattr("autosync.actors._parts._PART_TRIES", 1)

    with pytest.raises(TargetError, match="the ETag is not that of the content") as refused:
        actor.upload(content.file("a", bytes(MIB + 1)))
    assert type(refused.value) is TargetError
    assert swift.read(container, "a").content == bytes(MIB + 1)


def test_a_container_of_segments_that_somebody_removed_is_made_again(
    actor: Actor, swift: Swift, container: str, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosync.actors._parts._PART_TRIES", 1)
    actor.upload(content.file("a", bytes(MIB + 1)))
    actor.delete(File("a"))
    swift.request("DELETE", f"{container}_segments")

    with pytest.raises(TargetError) as refused:
        actor.upload(content.file("a", bytes(MIB + 1)))
    assert type(refused.value) is TargetError
    actor.upload(content.file("a", bytes(MIB + 1)))
    assert listed(actor) == {"a": MIB + 1}


def test_nothing_is_redirected(refusing: Callable[..., Refusing], swift: Swift, content: Content) -> None:
    server = refusing(302, b"", Location="/v1/AUTH_lab/page")
    actor = swift_actor(swift, "container", storage_url=f"{server.url}/v1/AUTH_lab")

    for do in (lambda: actor.upload(content.file("a", b"x")), lambda: actor.delete(File("a")), lambda: listed(actor)):
        server.methods.clear()
        with pytest.raises(TargetRefused, match=r"302 .*correct --storage-url"):
            do()
        assert len(server.methods) == 1


def test_an_answer_that_is_none_is_tried_again(refusing: Callable[..., Refusing], swift: Swift, content: Content) -> None:
    server = refusing(200, b"<html>Welcome</html>")
    actor = swift_actor(swift, "container", storage_url=f"{server.url}/v1/AUTH_lab/")

    for do in (actor.check, lambda: listed(actor), lambda: actor.upload(content.file("a", b"x"))):
        with pytest.raises(TargetError) as refused:
            do()
        assert type(refused.value) is TargetError
    assert actor._access.has_middleware("slo"), "the server does not list its middleware"  # type: ignore[attr-defined]


def test_a_quota_is_no_fault_of_the_key(refusing: Callable[..., Refusing], swift: Swift, content: Content) -> None:
    server = refusing(413, b"Upload exceeds quota.")

    with pytest.raises(TargetError, match="413 Upload exceeds quota") as refused:
        swift_actor(swift, "container", storage_url=f"{server.url}/v1/AUTH_lab").upload(content.file("a", b"x"))
    assert type(refused.value) is TargetError


@pytest.mark.parametrize("version", ["1", "2", "3", "rackspace"])
@pytest.mark.parametrize("status", [200, 408, 409, 413, 500, 503])
def test_a_request_to_an_identity_service_with_troubles_is_repeated(version: str, status: int, refusing: Callable[..., Refusing]) -> None:
    server = refusing(status, b"<html>Maintenance</html>")
    actor = load("swift")(
        target_container="c", auth_url=f"{server.url}/", auth_version=version, user="u", password="p", project="x"
    )

    with pytest.raises(TargetError, match="the login at") as refused:
        actor.check()
    assert type(refused.value) is TargetError
    assert "\n" not in str(refused.value)


def test_a_slash_behind_the_storage_url_does_no_harm(swift: Swift, container: str, content: Content) -> None:
    actor = swift_actor(swift, container, storage_url=swift.login()[1] + "/")
    actor.upload(content.file("a", b"x"))

    assert listed(actor) == {"a": 1}
    actor.delete(File("a"))
    assert listed(actor) == {}


def test_a_slow_line_has_time_for_each_block_and_not_for_the_whole(
    swift: Swift, container: str, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosync.actors.swift.identity._TIMEOUT", (1, 60))
    url = swift.login()[1]
    with Proxy(url.partition("/v1")[0]) as proxy:
        actor = swift_actor(swift, container, segment_size=100, storage_url=f"{proxy.url}/v1/AUTH_lab")
        proxy.speed = 4 * MIB  # the kernel takes 2.7 MiB at once, and the rest 1.3 s
        actor.upload(content.file("a", bytes(8 * MIB)))

        (put,) = [one for one in proxy.requests if one.method == "PUT"]
        assert put.ended - put.began > 1.5, "it took longer than a connection may"
    assert listed(swift_actor(swift, container)) == {"a": 8 * MIB}


class Counting:
    """Lets everything go at once, and counts it."""

    def __init__(self) -> None:
        self.bytes = self.requests = 0

    def block_size(self, most: int) -> int:
        return most

    def wait_for_bytes(self, size: int) -> None:
        self.bytes += size

    def wait_for_request(self) -> None:
        self.requests += 1

    def slow_down(self) -> None:
        pass

    def max_parts(self, most: int) -> int:
        return most


def test_what_is_sent_again_counts_again(actor: Actor, content: Content) -> None:
    for expected in (1000, 2000):
        file = content.file("a", bytes(1000))
        limiter = Counting()
        file.limiter = limiter
        actor.upload(file)
        assert limiter.bytes == expected


# As a whole
