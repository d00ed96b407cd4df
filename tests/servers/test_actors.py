"""What is special about the S3 actor and the one for files; what every actor must do is in test_contract.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import formatdate
from http.client import RemoteDisconnected
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from autosync.actor import Actor, can_delete_many, listing_of
from autosync.actors import file as file_actor
from autosync.actors import load, short_names
from autosync.actors._memory_budget import TINY, Memory
from autosync.actors._multipart import MultipartUploader, NothingSent
from autosync.actors.s3 import SMALL, clients
from autosync.actors.s3.own_client.http import PendingRequest
from autosync.actors.s3.own_client.multipart import S3MultipartRequests
from autosync.actors.s3.own_client.responses import Response
from autosync.errors import BrokerError, ConfigurationError, FileChanged, PermanentError, SlowDown, TargetError, TargetRefused
from autosync.files import File
from autosync.source.source_file import SourceFile
from lab.buckets import Bucket
from lab.fixed_response import Refusing
from lab.forward_proxy import ForwardProxy
from lab.servers import Moto, wait_until


class Content:
    """Makes source files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: list[SourceFile] = []

    def file(self, key: str, content: bytes, passing: object = None, **notes: Callable[..., object]) -> SourceFile:
        path = self._directory / f"source-{len(self._open)}"
        path.write_bytes(content)
        made = SourceFile(key, os.open(path, os.O_RDONLY), passing or (lambda count: None), **notes)  # type: ignore[arg-type]
        made.path = path  # type: ignore[attr-defined]
        self._open.append(made)
        return made

    def close(self) -> None:
        for file in self._open:
            file.close()


class Source(SourceFile):
    """A source file that remembers where it is."""

    path: Path


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Content]:
    monkeypatch.setattr("test_actors.SourceFile", Source)
    made = Content(tmp_path)
    yield made
    made.close()


@pytest.fixture
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried at once."""
    monkeypatch.setattr("autosync.actors._parts._PART_DELAY", 0.0)


def listed(actor: Actor, prefix: str = "") -> dict[str, int]:
    return {file.key: file.size for file in listing_of(actor, prefix)}


def test_several_files_are_uploaded_together_and_each_has_its_own_answer(exact_bucket: Bucket, content: Content) -> None:
    actor = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)
    torn = content.file("torn", b"old")
    torn.path.write_bytes(b"new content")  # type: ignore[attr-defined]
    files = [content.file(f"d/{number:02}", bytes([number]) * number) for number in range(20)]
    files += [torn, content.file("x" * 2000, b"too long"), content.file("medium", bytes(200_000)), content.file("odd \u00fc+%", b"odd")]

    answers = actor.upload_many(files)

    assert [type(answer) for answer in answers] == [type(None)] * 20 + [FileChanged, PermanentError, type(None), type(None)]
    assert listed(actor) == {**{f"d/{number:02}": number for number in range(20)}, "medium": 200_000, "odd \u00fc+%": 3}


def test_of_keys_that_some_servers_would_change_one_is_listed_back_and_the_others_go_together(
    exact_bucket: Bucket, content: Content
) -> None:
    actor = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)
    files = [content.file(f"/way/{number}", b"x") for number in range(10)]
    assert actor.upload_many(files) == [None] * 10
    assert len(listed(actor)) == 10
    begun: list[str] = []
    begin = actor._clients.objects.begin_put  # type: ignore[attr-defined]
    actor._clients.objects.begin_put = lambda key, *more: begun.append(key) or begin(key, *more)  # type: ignore[attr-defined, func-returns-value]
    ended: list[int] = []
    end = actor._clients.objects.finish_put  # type: ignore[attr-defined]
    actor._clients.objects.finish_put = lambda put: ended.append(len(begun)) or end(put)  # type: ignore[attr-defined, func-returns-value]

    assert actor.upload_many(files) == [None] * 10

    assert ended == [10] * 10, "all are on their way before one is waited for"
    actor.close()


def test_a_file_target_stays_in_its_container(tmp_path: Path, content: Content) -> None:
    container = tmp_path / "target"
    outside = tmp_path / "outside"
    container.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("x")
    (container / "way").symlink_to(outside)
    actor = load("file")(target_container=str(container))

    for key in ("../escape", "a/../../escape", ".", "a/./b", "a\0b", "dir/"):
        with pytest.raises(PermanentError):
            actor.upload(content.file(key, b"x"))
    with pytest.raises(TargetError):
        actor.upload(content.file("way/precious", b"overwritten"))
    actor.delete(File("way/precious"))  # no such object: what is behind the link is not in the container

    assert (outside / "precious").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("escape")) == []


def test_a_file_target_removes_the_directories_that_it_emptied_and_no_others(tmp_path: Path, content: Content) -> None:
    container = tmp_path / "target"
    (container / "mine").mkdir(parents=True)
    actor = load("file")(target_container=str(container))
    actor.upload(content.file("a/b/c/1", b"x"))
    actor.upload(content.file("a/2", b"x"))

    actor.delete(File("a/b/c/1"))

    assert sorted(str(path.relative_to(container)) for path in container.rglob("*")) == ["a", "a/2", "mine"]
    actor.delete(File("a/2"))
    assert sorted(path.name for path in container.iterdir()) == ["mine"]
    assert container.is_dir()


def test_a_file_target_leaves_no_temporary_file_when_it_fails(tmp_path: Path, content: Content) -> None:
    container = tmp_path / "target"
    (container / "name").mkdir(parents=True)
    (container / "name/inside").write_text("x")
    actor = load("file")(target_container=str(container))

    with pytest.raises(TargetError):
        actor.upload(content.file("name", b"a directory is in the way"))

    assert [path.name for path in container.iterdir()] == ["name"]


def test_a_file_target_preserves_the_modification_time(tmp_path: Path, content: Content) -> None:
    (tmp_path / "target").mkdir()
    actor = load("file")(target_container=str(tmp_path / "target"))
    source = content.file("a", b"x")
    os.utime(source.path, (1_000_000_000, 1_000_000_000))  # type: ignore[attr-defined]

    actor.upload(SourceFile("a", os.open(source.path, os.O_RDONLY)))  # type: ignore[attr-defined]

    assert (tmp_path / "target/a").stat().st_mtime == 1_000_000_000
    (found,) = listing_of(actor, "")
    assert found.mtime > 1_500_000_000, "a listing has the time at which the target changed, not the source's"


OURS = ".autosync-0123456789abcdef"
#: Names that only resemble those of temporary files.
NOT_OURS = [
    ".autosync-notes", ".autosync-0123456789ABCDEF", ".autosync-0123456789abcdef0", ".autosync-0123456789abcde",
    "x.autosync-0123456789abcdef",
]  # fmt: skip


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """A temporary file is stale as soon as another is younger. The function waits until what is made from then on is younger than all."""
    monkeypatch.setattr(file_actor, "_STALE", 0.0)

    def wait() -> None:
        (tmp_path / "before").write_text("x")

        def is_later() -> bool:
            (tmp_path / "now").write_text("x")
            return (tmp_path / "now").stat().st_ctime > (tmp_path / "before").stat().st_ctime

        wait_until(is_later, 20, "the clock of the disk goes on")

    return wait


def test_a_file_target_has_names_that_resemble_those_of_its_temporary_files(
    tmp_path: Path, content: Content, at_once: Callable[[], None]
) -> None:
    container = tmp_path / "target"
    container.mkdir()
    actor = load("file")(target_container=str(container))
    for name in NOT_OURS:
        actor.upload(content.file(name, b"x"))
    at_once()

    actor.upload(content.file("another", b"x"))

    assert {file.key for file in listing_of(actor, "")} == {*NOT_OURS, "another"}
    for name in NOT_OURS:
        actor.delete(File(name))
    assert [path.name for path in container.iterdir()] == ["another"]


def test_a_file_target_that_is_listed_stays_as_it_is(tmp_path: Path, at_once: Callable[[], None]) -> None:
    container = tmp_path / "target"
    container.mkdir()
    (container / ".autosync-notes").touch()
    (container / OURS).touch()
    at_once()
    actor = load("file")(target_container=str(container))

    assert [file.key for file in listing_of(actor, "")] == [".autosync-notes"]
    assert sorted(path.name for path in container.iterdir()) == [OURS, ".autosync-notes"]


def test_what_a_killed_worker_left_goes_with_an_upload_into_the_same_directory(
    tmp_path: Path, content: Content, at_once: Callable[[], None]
) -> None:
    for name in ("here", "there"):
        (tmp_path / "target" / name / f"{OURS[:-1]}0").mkdir(parents=True)
        (tmp_path / "target" / name / OURS).touch()
    at_once()
    actor = load("file")(target_container=str(tmp_path / "target"))

    actor.upload(content.file("here/a", b"x"))

    assert sorted(os.listdir(tmp_path / "target/here")) == [f"{OURS[:-1]}0", "a"], "a directory is none"
    assert sorted(os.listdir(tmp_path / "target/there")) == [f"{OURS[:-1]}0", OURS]


def test_an_upload_of_less_than_a_day_is_left_alone(tmp_path: Path, content: Content) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / OURS).touch()
    os.utime(tmp_path / "target" / OURS, (1, 1))  # the time of the file that is being copied
    actor = load("file")(target_container=str(tmp_path / "target"))

    actor.upload(content.file("a", b"x"))

    assert sorted(os.listdir(tmp_path / "target")) == [OURS, "a"]


def test_a_directory_is_gone_through_once_for_many_uploads(
    tmp_path: Path, content: Content, at_once: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_actor, "_MOST_CLEANED", 2)
    target = tmp_path / "target"
    for name in ("one", "two", "three"):
        (target / name).mkdir(parents=True)
    actor = load("file")(target_container=str(target))

    def left_after(number: int) -> list[str]:
        for name in ("one", "two", "three"):
            (target / name / OURS).touch()
        at_once()
        for name in ("one", "two", "three"):
            actor.upload(content.file(f"{name}/{number}", b"x"))
        return [name for name in ("one", "two", "three") if (target / name / OURS).exists()]

    assert left_after(1) == ["three"], "two are remembered"
    assert left_after(2) == ["one", "two", "three"]

    monkeypatch.setattr(file_actor, "_CLEAN_UP_INTERVAL", -1.0)
    actor.upload(content.file("three/c", b"x"))

    assert not (target / "three" / OURS).exists(), "after a day, all are gone through again"


def test_a_file_with_the_name_of_a_temporary_file_is_refused_for_good(tmp_path: Path, content: Content) -> None:
    container = tmp_path / "target"
    (container / "d").mkdir(parents=True)
    (container / "d" / OURS).touch()
    actor = load("file")(target_container=str(container))

    with pytest.raises(PermanentError, match="temporary files"):
        actor.upload(content.file(f"d/{OURS}", b"x"))
    actor.delete(File(f"d/{OURS}"))  # it cannot be there; what is, may be the upload of another file

    assert os.listdir(container / "d") == [OURS]
    actor.upload(content.file(f"{OURS}/a", b"x"))
    assert [file.key for file in listing_of(actor, "")] == [f"{OURS}/a"]


def test_keys_are_exact_to_the_byte_where_the_server_stores_them_so(exact_bucket: Bucket, content: Content) -> None:
    actor = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)
    keys = ["/lead", "//two", "a//b", "per%41cent", "a/./b", "a/../b", "trail/", "back\\slash", "ü/日", "pl+us sp ace"]

    for key in keys:
        actor.upload(content.file(key, b"x"))

    assert exact_bucket.sizes() == dict.fromkeys(keys, 1)
    assert [file.key for file in listing_of(actor, "")] == sorted(keys)
    for key in keys:
        actor.delete(File(key))
    assert exact_bucket.sizes() == {}


def test_a_large_file_with_a_leading_slash(exact_bucket: Bucket, content: Content) -> None:
    actor = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)

    actor.upload(content.file("/large//x%", b"x" * (SMALL + 1)))

    assert exact_bucket.sizes() == {"/large//x%": SMALL + 1}


def test_keys_that_s3_cannot_have_are_refused_for_good(exact_bucket: Bucket, content: Content) -> None:
    actor = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)

    for key in ("x" * 1025, "ü" * 513, "not-utf-8-\udcff"):
        with pytest.raises(PermanentError):
            actor.upload(content.file(key, b"x"))
    actor.upload(content.file("x" * 1024, b"x"))

    assert exact_bucket.sizes() == {"x" * 1024: 1}


def test_a_listed_key_that_no_request_can_name_is_an_error_and_not_a_deletion(
    refusing: Callable[..., Refusing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    one = '<Contents><Key>a%FF</Key><LastModified>2024-01-01T00:00:00Z</LastModified><ETag>"0"</ETag><Size>1</Size></Contents>'
    head = "<ListBucketResult><IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"
    actor = load("s3")(target_container="bucket", endpoint_url=refusing(200, f"{head}{one}</ListBucketResult>".encode()).url)

    errors = actor.delete_many([File("a\udcff"), File("b\udcff"), File("")])

    assert [error and type(error) for error in errors] == [PermanentError, None, None]
    assert "is not UTF-8" in str(errors[0])


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    """A proxy that wants a user and a password."""
    with ForwardProxy("joe:the-PASSWORD") as made:
        yield made


@pytest.fixture(params=["direct", "by a proxy"])
def large(request: pytest.FixtureRequest, bucket: Bucket) -> Iterator[Actor]:
    """An actor that reaches its server in one of two ways."""
    made = load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url)
    if request.param == "by a proxy":
        by_proxy(made, request.getfixturevalue("proxy"))
    yield made
    made.close()


def by_proxy(actor: Actor, proxy: ForwardProxy) -> None:
    """Have an actor find that the environment names a proxy."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("http_proxy", proxy.url_for_clients)
        assert actor._clients.access.proxy == proxy.url_for_clients  # type: ignore[attr-defined]
        actor._clients.boto3_client  # noqa: B018 - boto3 reads the environment too


@pytest.mark.usefixtures("soon_again")
def test_an_upload_that_fails_leaves_no_open_parts(large: Actor, bucket: Bucket, content: Content) -> None:
    actor = large
    failed = []

    def stop(count: int) -> None:
        failed.append(count)
        raise TargetError("stopped in the middle")

    with pytest.raises(TargetError, match="stopped in the middle"):
        actor.upload(content.file("large", b"x" * (SMALL + 1), stop))

    assert failed
    assert bucket.open_uploads() == []
    assert bucket.sizes() == {}


class Notes:
    """Records the calls of an upload, and what was open in the bucket at that moment."""

    def __init__(self, bucket: Bucket, refuse: int = 0) -> None:
        self.calls: list[tuple[str, str, str, list[tuple[str, str]]]] = []
        self.open: list[str] = []
        self._bucket = bucket
        self._refuse = refuse

    def passing(self, count: int) -> None:
        self.calls.append(("read", "", "", self._bucket.open_uploads()))

    def begun(self, token: str, instead: str) -> None:
        self.calls.append(("begun", token, instead, self._bucket.open_uploads()))
        if len(self.calls) == self._refuse:
            raise BrokerError("the broker is away")
        self.open = [one for one in self.open if one != instead] + [token]

    def ended(self, token: str) -> None:
        self.calls.append(("ended", token, "", self._bucket.open_uploads()))
        self.open = [one for one in self.open if one != token]

    def file(self, content: Content, size: int, key: str = "large") -> SourceFile:
        return content.file(key, b"x" * size, self.passing, begun=self.begun, ended=self.ended)


def test_an_upload_in_parts_is_noted_before_it_begins_before_its_first_byte_and_after_its_last(
    large: Actor, bucket: Bucket, content: Content
) -> None:
    actor = large
    notes = Notes(bucket)

    actor.upload(notes.file(content, SMALL + 1))

    (_, intention, _, before), (_, token, instead, then), *rest = notes.calls
    assert (before, then, instead) == ([], [("large", token)], intention)
    assert rest.pop() == ("ended", token, "", [])
    assert {what for what, *_ in rest} == {"read"}
    assert notes.open == []

    del notes.calls[:]
    actor.upload(notes.file(content, SMALL, "small"))
    assert {what for what, *_ in notes.calls} == {"read"}, "nothing is open of a file that is sent in one request"


@pytest.mark.parametrize("which", [1, 2], ids=["the intention", "the upload"])
def test_an_upload_that_cannot_be_noted_is_aborted(large: Actor, bucket: Bucket, content: Content, which: int) -> None:
    actor = large
    notes = Notes(bucket, refuse=which)

    with pytest.raises(BrokerError, match="the broker is away"):
        actor.upload(notes.file(content, SMALL + 1))

    assert (bucket.open_uploads(), "read" in [what for what, *_ in notes.calls]) == ([], False)
    for token in notes.open:  # the intention: nothing came of it, which is no error
        actor.abandon("large", token)


def test_an_upload_whose_beginning_was_not_answered_is_found_by_its_intention_and_no_other_is(
    large: Actor, bucket: Bucket, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes(bucket)
    requests = large._clients.multipart._requests  # type: ignore[attr-defined]
    create = requests.create

    def and_lose_the_answer(*named: str) -> None:
        create(*named)
        raise TargetError("the answer is lost")

    with monkeypatch.context() as patch:
        patch.setattr(requests, "create", and_lose_the_answer)
        with pytest.raises(TargetError, match="the answer is lost"):
            large.upload(notes.file(content, SMALL + 1))
    foreign = [bucket.begin_upload(key) for key in ("large.too", "a/large", "larg")]
    (ours,) = [one for one in bucket.open_uploads() if one not in foreign]
    (intention,) = notes.open

    began = float(intention.split()[1])
    for elsewhere in (began + 10, began - 600):  # uploads of the same key that somebody else began at another time
        large.abandon("large", f"begins {elsewhere}")
        assert ours in bucket.open_uploads()
    for _ in range(2):  # that it is not there any more is no error
        large.abandon("large", intention)
        assert bucket.open_uploads() == sorted(foreign)


@pytest.mark.parametrize(
    ("fault", "kind", "may_be_open"),
    [
        ("nobody there", NothingSent, False),
        ("another password", TargetRefused, False),
        ("403", TargetRefused, False),
        ("503", TargetError, True),
        ("429", SlowDown, False),
        ("502", TargetError, True),
        ("swallowed", TargetError, True),
        ("no tunnel", NothingSent, False),
        ("another password for a tunnel", TargetRefused, False),
    ],
)
def test_by_a_proxy_the_intention_stays_noted_only_if_something_may_have_come_of_it(
    bucket: Bucket, content: Content, proxy: ForwardProxy, fault: str, kind: type[TargetError], may_be_open: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    url = "https://s3.example.org" if "tunnel" in fault else bucket.server.url
    actor = load("s3")(target_container=bucket.name, endpoint_url=url)
    notes = Notes(bucket)
    if fault == "nobody there":
        monkeypatch.setattr(proxy, "url_for_clients", "http://127.0.0.1:1")
    elif fault.startswith("another password"):
        monkeypatch.setattr(proxy, "url_for_clients", proxy.url)
    elif fault == "swallowed":
        proxy.swallows = True
    else:
        proxy.response = f"HTTP/1.1 {'403' if 'tunnel' in fault else fault} No\r\nContent-Length: 0\r\n\r\n".encode()
    if "tunnel" in fault:
        monkeypatch.setenv("https_proxy", proxy.url_for_clients)
    else:
        by_proxy(actor, proxy)

    with pytest.raises(TargetError) as caught:
        actor.upload(notes.file(content, SMALL + 1))

    assert type(caught.value) is kind
    assert len(notes.open) == may_be_open


@pytest.mark.parametrize(
    ("answer", "may_be_open"),
    [
        (Response(403, "<Code>AccessDenied</Code>"), False),
        (Response(503, "<Code>SlowDown</Code>"), False),
        (Response(500, "<Code>InternalError</Code>"), True),
        (Response(200, "something else"), True),
        (RemoteDisconnected("closed"), True),
        (TimeoutError("late"), True),
    ],
    ids=str,
)
def test_the_intention_stays_noted_only_if_something_may_have_come_of_it(
    bucket: Bucket, content: Content, monkeypatch: pytest.MonkeyPatch, answer: Response | Exception, may_be_open: bool
) -> None:
    actor = load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url)
    notes = Notes(bucket)

    def read_response(sent: PendingRequest) -> Response:
        sent.connection.close()
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(actor._clients.objects._pool, "read_response", read_response)  # type: ignore[attr-defined]
    with pytest.raises(TargetError):
        actor.upload(notes.file(content, SMALL + 1))

    assert len(notes.open) == may_be_open


def test_where_nobody_listens_no_intention_stays_noted(credentials: None, content: Content, bucket: Bucket) -> None:
    actor = load("s3")(target_container="b", endpoint_url="http://127.0.0.1:1", region="us-east-1")
    notes = Notes(bucket)

    with pytest.raises(TargetError, match="Connection refused"):
        actor.upload(notes.file(content, SMALL + 1))

    assert ([what for what, *_ in notes.calls], notes.open) == (["begun", "ended"], [])


def test_a_beginning_whose_response_a_proxy_loses_is_not_requested_twice_and_leaves_the_intention_noted(
    bucket: Bucket, content: Content, proxy: ForwardProxy
) -> None:
    """The upload whose ID was in the lost answer is still open."""
    actor = load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url)
    by_proxy(actor, proxy)
    notes = Notes(bucket)
    actor.check()  # so there is a connection that was used before
    proxy.swallows = True

    with pytest.raises(TargetError, match="closed the connection"):
        actor.upload(notes.file(content, SMALL + 1))

    assert proxy.count("POST") == 1
    assert [key for key, _ in bucket.open_uploads()] == ["large"]
    (intention,) = notes.open
    proxy.swallows = False
    actor.abandon("large", intention)
    assert bucket.open_uploads() == []
    actor.close()


@pytest.mark.usefixtures("soon_again")
def test_the_end_of_an_upload_is_tried_again(large: Actor, bucket: Bucket, content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes(bucket)
    requests = large._clients.multipart._requests  # type: ignore[attr-defined]
    complete = requests.complete
    left = [TargetError("InternalError"), SlowDown("SlowDown")]

    def fail_first(*named: Any) -> None:
        if left:
            raise left.pop()
        complete(*named)

    monkeypatch.setattr(requests, "complete", fail_first)
    large.upload(notes.file(content, SMALL + 1))

    assert (left, bucket.sizes(), bucket.open_uploads(), notes.open) == ([], {"large": SMALL + 1}, [], [])


def test_an_end_that_fails_behind_a_status_of_success_is_no_end(
    bucket: Bucket, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CompleteMultipartUpload, API reference: a 200 may be followed by an error."""
    monkeypatch.setattr("autosync.actors._parts._PART_TRIES", 1)
    actor = load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url)
    objects = actor._clients.objects  # type: ignore[attr-defined]
    send = objects.send_once

    def fail_to_complete(*named: str, query: str, **more: str) -> Response:
        if query.startswith("uploadId="):
            return Response(200, "  <Error><Code>InternalError</Code><Message>not now</Message></Error>")
        return send(*named, query=query, **more)  # type: ignore[no-any-return]

    monkeypatch.setattr(objects, "send_once", fail_to_complete)
    with pytest.raises(TargetError, match="InternalError: not now"):
        actor.upload(content.file("large", b"x" * (SMALL + 1)))

    assert (bucket.sizes(), bucket.open_uploads()) == ({}, [])


def test_an_upload_that_cannot_be_aborted_is_not_noted_as_ended(
    large: Actor, bucket: Bucket, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = large
    notes = Notes(bucket)

    def stop(count: int) -> None:
        raise FileChanged("stopped in the middle")

    def refuse(*_: object) -> None:
        raise TargetError("not now")

    file = content.file("large", b"x" * (SMALL + 1), stop, begun=notes.begun, ended=notes.ended)
    with monkeypatch.context() as patch:
        patch.setattr(actor._clients.multipart._requests, "abort", refuse)  # type: ignore[attr-defined]
        with pytest.raises(FileChanged, match="stopped in the middle"):
            actor.upload(file)

    assert bucket.open_uploads() == [("large", *notes.open)]
    actor.abandon("large", *notes.open)
    assert bucket.open_uploads() == []


@pytest.mark.parametrize("server", ["bucket", "exact_bucket"])
def test_an_upload_that_was_left_open_is_abandoned_and_no_other_is(server: str, request: pytest.FixtureRequest) -> None:
    bucket: Bucket = request.getfixturevalue(server)
    actor = load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url)
    foreign = [bucket.begin_upload(key) for key in ("d/large", "d/other")]
    ours = bucket.begin_upload("d/large")
    bucket.client.upload_part(Bucket=bucket.name, Key="d/large", UploadId=ours[1], PartNumber=1, Body=b"x" * 1000)

    for _ in range(2):  # that it is not there any more is no error
        actor.abandon(*ours)
        assert bucket.open_uploads() == sorted(foreign)

    with pytest.raises(TargetError):
        load("s3")(target_container=bucket.name, endpoint_url="http://127.0.0.1:1").abandon(*ours)


def test_a_listing_of_many_pages_is_complete_and_in_order_where_the_server_is(exact_bucket: Bucket) -> None:
    keys = sorted(f"{number % 2}/{number:05}" for number in range(3 * Moto.PAGE - 50))
    with requests.Session() as session:
        for key in keys:
            session.put(f"{exact_bucket.server.url}/{exact_bucket.name}/{key}", data=b"x", timeout=30).raise_for_status()
    actor = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)

    first = exact_bucket.client.list_objects_v2(Bucket=exact_bucket.name)
    assert (first["KeyCount"], first["IsTruncated"]) == (Moto.PAGE, True), "there are several pages"
    assert [file.key for file in listing_of(actor, "")] == keys
    assert [file.key for file in listing_of(actor, "1")] == [key for key in keys if key.startswith("1")]


def test_a_key_in_the_middle_with_an_empty_or_a_dot_segment_does_not_end_a_listing(exact_bucket: Bucket, content: Content) -> None:
    actor = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)
    keys = ["a", "b//c", "d", "e/../f", "g"]
    for key in keys:
        actor.upload(content.file(key, b"x"))

    assert [file.key for file in listing_of(actor, "")] == keys


@pytest.mark.parametrize(
    ("change", "kind", "error_text"),
    [
        ({"target_container": "no-such-bucket"}, TargetRefused, "no such bucket"),
        ({"endpoint_url": "http://127.0.0.1:1"}, TargetError, "Connection refused"),
        ({"profile": "nobody"}, TargetRefused, "nobody"),
    ],
)
def test_errors_are_translated(
    change: dict[str, str], kind: type[Exception], error_text: str, exact_bucket: Bucket, content: Content
) -> None:
    actor = load("s3")(**{"target_container": exact_bucket.name, "endpoint_url": exact_bucket.server.url, **change})

    with pytest.raises(kind, match=error_text):
        actor.check()
    for size in (1, SMALL + 1):
        with pytest.raises(TargetError):
            actor.upload(content.file("a", b"x" * size))
    with pytest.raises(TargetError):
        listed(actor)
    with pytest.raises(kind, match=error_text):
        actor.clock_ahead()


class LateTime:
    """Stands for the module `time` where answers seem to come late: while one is awaited, the clocks of both sides go on by so much."""

    def __init__(self) -> None:
        self.late = 0.0

    def time(self) -> float:
        return time.time() + self.late

    def monotonic(self) -> float:
        return time.monotonic() + self.late

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.fixture
def late_time(monkeypatch: pytest.MonkeyPatch) -> LateTime:
    made = LateTime()
    for module in ("autosync.actors.s3", "autosync.actors.s3.own_client.requests"):
        monkeypatch.setattr(f"{module}.time", made)
    return made


@pytest.fixture
def date_in(late_time: LateTime) -> Callable[[float], str]:
    return lambda seconds: formatdate(late_time.time() + seconds, usegmt=True)


@pytest.fixture
def elsewhere(credentials: None, late_time: LateTime) -> Iterator[Callable[..., Actor]]:
    """Makes actors of a server that answers every request with the given Date, and after the given delay."""
    servers: list[ThreadingHTTPServer] = []

    def make(date: Callable[[], str | None], delays: Sequence[float] = ()) -> Actor:
        left = list(delays)

        class Response(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = b"<ListBucketResult><Name>x</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
                self.send_response_only(200)
                value = date()
                if value is not None:
                    self.send_header("Date", value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                late_time.late += left.pop(0) if left else 0.0
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Response)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return load("s3")(target_container="x", endpoint_url=f"http://127.0.0.1:{server.server_port}")

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.setenv(f"AWS_{name}", f"the-{name}")


@pytest.mark.parametrize(
    ("region", "base"),
    [
        ("us-east-1", "https://bucket.s3.amazonaws.com"),
        ("eu-central-1", "https://bucket.s3.eu-central-1.amazonaws.com"),
        ("eu-south-1", "https://bucket.s3.eu-south-1.amazonaws.com"),
        ("cn-north-1", "https://bucket.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_a_bucket_of_amazons_is_spoken_to_in_its_region(
    credentials: None, monkeypatch: pytest.MonkeyPatch, region: str, base: str
) -> None:
    """Regions since 2019 are not to be reached through the global endpoint (docs.aws.amazon.com, Virtual hosting of buckets)."""
    actor = load("s3")(target_container="bucket", region=region)
    monkeypatch.setattr(clients, "_in_its_region", lambda of, made, bucket, config: made)

    assert actor._clients.access.address == base  # type: ignore[attr-defined]


def test_a_server_that_the_environment_names_is_addressed_as_boto3_does_it(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    actor = load("s3")(target_container="b", region="eu-south-1")
    monkeypatch.setattr(clients, "_in_its_region", lambda of, made, bucket, config: made)

    assert actor._clients.access.address == "http://127.0.0.1:1/b"  # type: ignore[attr-defined]


def test_by_a_proxy_a_part_is_sent_with_one_signature_that_every_server_accepts_and_no_error_contains_it(
    credentials: None, content: Content, proxy: ForwardProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login joe password the-PASSWORD\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("autosync.actors._parts._PART_TRIES", 1)
    actor = load("s3")(target_container="b", endpoint_url="http://127.0.0.1:1", region="us-east-1")
    by_proxy(actor, proxy)
    monkeypatch.setattr(actor._clients.multipart._requests, "create", lambda *_: "u")  # type: ignore[attr-defined]

    with pytest.raises(TargetError, match="502") as refused:
        actor.upload(content.file("key", b"x" * (SMALL + 1)))

    parts = [(target, head) for (method, target), head in zip(proxy.requests, proxy.heads, strict=True) if method == "PUT"]
    assert parts
    assert all("X-Amz-Algorithm=AWS4-HMAC-SHA256" in target for target, _ in parts)
    assert not any(b"\r\nauthorization:" in head.lower() for _, head in parts)
    assert not any(secret in str(refused.value) for secret in ("the-", "Signature"))


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("way", ["direct", "by a proxy", "by a tunnel", "by another password"])
def test_no_secret_is_in_the_log_where_everything_is(
    credentials: None, form: str, way: str, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://127.0.0.1:1" if way == "by a tunnel" else "http://127.0.0.1:1"
    if way != "direct":
        named = proxy.url_for_clients.replace("WORD", "WORT") if way == "by another password" else proxy.url_for_clients
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, named)
    asks = (
        f"from autosync.actors import load; from autosync.logs import configure; configure({form!r}, 2);"
        f"load('s3')(target_container='bucket', endpoint_url={url!r}, region='us-east-1').check()"
    )
    errors = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=False, timeout=50).stderr

    wanted = {"direct": "Connection refused", "by another password": "the proxy wants another user or password"}
    assert wanted.get(way, "502") in errors
    assert not re.search("the-|Signature=|dGhlL|Basic", errors)


def test_many_are_deleted_with_both_checksums_that_servers_require(exact_bucket: Bucket) -> None:
    actor = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)

    assert actor.delete_many([File("a"), File("b")]) == [None, None]
    head = actor._clients.objects._signed_head("POST", "", b"", "application/xml", 0.0, query="delete=")  # type: ignore[attr-defined]

    assert b"\r\ncontent-md5:" in head
    assert b"\r\nx-amz-checksum-crc32:" in head
    actor.close()


def test_where_a_proxy_is_between_everything_goes_through_it(exact_bucket: Bucket, content: Content, proxy: ForwardProxy) -> None:
    actor = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)
    by_proxy(actor, proxy)
    assert actor.sends_together

    actor.check()
    assert actor.upload_many([content.file("a", b"1"), content.file("b", b"2")]) == [None, None]
    actor.upload(content.file("/risky", b"3"))
    actor.upload(content.file("large", bytes(SMALL + 1)))
    assert listed(actor) == {"/risky": 1, "a": 1, "b": 1, "large": SMALL + 1}
    actor.delete(File("a"))
    assert actor.delete_many([File("b"), File("/risky"), File("large")]) == [None, None, None]
    assert listed(actor) == {}
    assert [proxy.count(method) for method in ("PUT", "DELETE", "POST")] == [5, 1, 3]
    assert all(target.startswith(f"{exact_bucket.server.url}/{exact_bucket.name}") for _, target in proxy.requests)
    actor.close()


@pytest.mark.parametrize(
    ("environment", "url", "by"),
    [
        ({"http_proxy": "http://p:1"}, "http://s3.example.org", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "http://s3.example.org", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": "http://q:1"}, "http://s3.example.org", "http://q:1"),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": ""}, "http://s3.example.org", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://s3.example.org", "http://p:1"),
        ({"https_proxy": "p:1"}, "https://s3.example.org", "p:1"),
        ({"https_proxy": "http://p:1"}, "http://s3.example.org", None),
        ({"http_proxy": "http://p:1"}, "https://s3.example.org", None),
        ({"ALL_PROXY": "http://p:1"}, "https://s3.example.org", None),
        ({"http_proxy": "http://p:1", "no_proxy": "example.org"}, "http://s3.example.org", None),
        ({"http_proxy": "http://p:1", "NO_PROXY": "x, .example.org"}, "http://s3.example.org", None),
        ({"http_proxy": "http://p:1", "NO_PROXY": "s3.example.org:9000"}, "http://s3.example.org:9000", None),
        ({"http_proxy": "http://p:1", "NO_PROXY": "s3.example.org:9001"}, "http://s3.example.org:9000", "http://p:1"),
        ({"http_proxy": "http://p:1", "NO_PROXY": "ample.org"}, "http://s3.example.org", "http://p:1"),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "http://s3.example.org", None),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost"}, "http://127.0.0.1:1", "http://p:1"),
    ],
)
def test_the_environment_names_the_proxy_as_for_boto3(
    environment: dict[str, str], url: str, by: str | None, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    actor = load("s3")(target_container="b", endpoint_url=url, region="us-east-1")

    assert actor._clients.access.proxy == by  # type: ignore[attr-defined]


def test_no_proxy_leads_around_a_proxy(
    exact_bucket: Bucket, content: Content, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url_for_clients)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    actor = load("s3")(target_container=exact_bucket.name, endpoint_url=exact_bucket.server.url)

    actor.check()
    actor.upload(content.file("a", b"x"))

    assert (listed(actor), proxy.connections) == ({"a": 1}, 0)
    actor.close()


@pytest.mark.parametrize("url", ["socks5://joe:the-PASSWORD@127.0.0.1:1", "http://joe:the-PASSWORD@p:x"])
def test_a_proxy_of_another_kind_is_refused_with_a_cure_at_the_first_request(
    url: str, credentials: None, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", url)
    actor = load("s3")(target_container="b", endpoint_url="http://127.0.0.1:1", region="us-east-1")

    for ask in (actor.check, lambda: actor.upload(content.file("a", b"x")), lambda: listed(actor), lambda: actor.delete(File("a"))):
        with pytest.raises(TargetRefused, match="write HTTP_PROXY and HTTPS_PROXY as http://USER:PASSWORD@HOST:PORT") as caught:
            ask()
        assert "the-" not in str(caught.value)


class Slow:
    """A client whose listing of open uploads takes eight seconds, on a clock that stands still but for that."""

    def __init__(self, initiated: float) -> None:
        self.now = initiated + 3
        self._found = {"Key": "key", "UploadId": "u", "Initiated": datetime.fromtimestamp(initiated // 1, UTC)}

    def time(self) -> float:
        return self.now

    def get_paginator(self, _: str) -> Slow:
        return self

    def paginate(self, **_: str) -> Iterator[dict[str, Any]]:
        self.now += 8
        yield {"Uploads": [self._found], "ResponseMetadata": {"HTTPHeaders": {"date": formatdate(self.now, usegmt=True)}}}


def test_an_intention_is_found_however_late_the_target_lists_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Slow(1e9 + 0.9)
    monkeypatch.setattr("autosync.actors.s3.clients.time", client)
    aborted: list[str] = []
    objects = SimpleNamespace(send_repeatable=lambda _, key, *, query: aborted.append(query) or Response(204, ""), raise_for_status=print)
    requests = S3MultipartRequests(objects, lambda key: clients.open_uploads(client, "b", key), "S3")  # type: ignore[arg-type]

    MultipartUploader(requests, 100.0).abandon("key", f"begins {1e9 + 0.8}")

    assert aborted == ["uploadId=u"]


@pytest.mark.parametrize("hours", [1, -1])
def test_the_clock_of_a_target_that_is_wrong_is_found_to_be(
    hours: int, elsewhere: Callable[..., Actor], date_in: Callable[[float], str]
) -> None:
    ahead = elsewhere(lambda: date_in(3600 * hours)).clock_ahead()

    assert abs(ahead - 3600 * hours) < 1.5


def test_an_answer_that_comes_late_does_not_spoil_the_clock(elsewhere: Callable[..., Actor], date_in: Callable[[float], str]) -> None:
    ahead = elsewhere(lambda: date_in(3600), delays=[4.0]).clock_ahead()

    assert abs(ahead - 3600) < 1.5


def test_the_clock_that_the_check_has_seen_counts_for_the_first_scan_and_not_for_later_ones(
    elsewhere: Callable[..., Actor], date_in: Callable[[float], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = 1
    actor = elsewhere(lambda: date_in(3600 * hours), delays=[0.0, 3.0])
    actor.check()

    assert abs(actor.clock_ahead() - 3600) < 1.0, "the second answer came late, so the first is believed"

    monkeypatch.setattr("autosync.actors.s3._SAME_CLOCK", -1.0)
    hours = 2
    assert abs(actor.clock_ahead() - 7200) < 1.5


@pytest.mark.parametrize("date", [None, "", "today", "Thu, 99 Foo 2026 10:00:00 GMT", "Sun, 99 Nov 99999 99:99:99 GMT"])
def test_a_target_that_reports_no_time_is_assumed_to_be_right(date: str | None, elsewhere: Callable[..., Actor]) -> None:
    assert elsewhere(lambda: date).clock_ahead() == 0.0


def test_an_actor_without_a_clock_is_assumed_to_be_right() -> None:
    assert Actor().clock_ahead() == 0.0


def test_a_request_for_an_empty_key_is_none_for_the_bucket(bucket: Bucket, content: Content) -> None:
    actor = load("s3")(target_container=bucket.name, endpoint_url=bucket.server.url)
    with pytest.raises(PermanentError):
        actor.upload(content.file("", b"x"))
    actor.delete(File(""))
    assert actor.delete_many([File("")]) == [None]

    assert bucket.sizes() == {}, "it is still there"


def test_content_in_memory_is_bounded_but_for_one_that_is_alone_and_tiny_ones() -> None:
    memory = Memory(1_000_000)
    held, most, lock = 0, 0, threading.Lock()

    def hold(count: int) -> None:
        nonlocal held, most
        with memory.of(count):
            with lock:
                held += count
                most = max(most, held)
            time.sleep(0.002)
            with lock:
                held -= count

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(hold, [300_000] * 40))
    assert 300_000 < most <= 1_000_000, "several at once, and not too many"
    waiting = threading.Thread(target=hold, args=(100_000,), daemon=True)
    with memory.of(5_000_000), memory.of(TINY):
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive(), "it waits for the large one"
    waiting.join(10)
    assert not waiting.is_alive()


def test_actors_are_found_by_name() -> None:
    assert short_names() == ["azure", "file", "gcs", "http", "rsync", "s3", "swift"]
    assert load("autosync.actors.file.FileActor") is load("file")
    for name in ("nope", "os.path", "autosync.actor.Nope", "no.such", "json.dumps"):
        with pytest.raises(ConfigurationError):
            load(name)


def test_an_actor_with_the_smallest_interface_is_enough() -> None:
    class Small(Actor):
        def list(self):  # type: ignore[no-untyped-def, override]
            return [File("b"), File("a")]

    assert [file.key for file in listing_of(Small(), "ignored")] == ["b", "a"]
    assert not can_delete_many(Small())
