"""The rsync actor against a real rsync daemon."""

from __future__ import annotations

import os
import re
import signal
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autosync.actor import Actor
from autosync.actors import load
from autosync.actors.rsync.listing import literal
from autosync.errors import ConfigurationError, PermanentError, SlowDown, TargetError, TargetRefused
from autosync.files import File
from autosync.source.source_file import SourceFile
from autosync.testing import ActorContract, Content, listed
from lab.buckets import on_disk
from lab.rsync import Rsyncd

PASSWORD = "pass-word-of-the-module"


@pytest.fixture
def server(rsyncd: Callable[..., Rsyncd]) -> Rsyncd:
    return rsyncd()


@pytest.fixture
def actor(server: Rsyncd) -> Iterator[Actor]:
    made = load("rsync")(target_container=server.container)
    yield made
    made.close()


class TestRsync(ActorContract):
    many = 120  # a listing of rsync's has no pages

    def spelt(self, key: str) -> str:
        return re.sub("/+", "/", key).lstrip("/")

    @pytest.fixture
    def actor(self, rsyncd: Callable[..., Rsyncd]) -> Iterator[Actor]:
        made = load("rsync")(target_container=rsyncd(password=PASSWORD).container, rsync_password=PASSWORD)
        yield made
        made.close()


class Talking:
    """An rsync server of protocol 29 that answers every request with messages, and never comes to an end; see rsync's io.c.

    Args:
        code: of the messages: 1 is an error, which rsync writes to its standard error, 2 goes to its standard output.
        text: of each of them.
    """

    def __init__(self, code: int, text: bytes) -> None:
        self.sent: list[int] = []
        #: More than this is never sent: a client that has read it has no limit.
        self.most = 256 << 20
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"@RSYNCD: 29\n")
                self.rfile.readline()
                self.rfile.readline()
                self.wfile.write(b"@RSYNCD: OK\n" + bytes(4))
                message = ((7 + code) << 24 | len(text)).to_bytes(4, "little") + text
                number = len(server.sent)
                server.sent.append(0)
                with suppress(OSError):
                    while server.sent[number] < server.most:
                        self.wfile.write(message * 64)
                        server.sent[number] += len(message) * 64

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.container = f"rsync://127.0.0.1:{self._server.server_address[1]}/module"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """End it."""
        self.most = 0
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def talking() -> Iterator[Callable[[int, bytes], Talking]]:
    """Starts such servers."""
    servers: list[Talking] = []

    def start(code: int, text: bytes) -> Talking:
        servers.append(Talking(code, text))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("code", [1, 2])
@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("requested", ["list", "check", "upload", "delete"])
def test_endless_messages_of_a_server_are_not_read_to_their_end(
    requested: str, end: bytes, code: int, talking: Callable[[int, bytes], Talking], content: Content
) -> None:
    server = talking(code, b"x" * 500 + end)
    actor = load("rsync")(target_container=server.container)
    do: dict[str, Callable[[], object]] = {
        "list": lambda: listed(actor),
        "check": actor.check,
        "upload": lambda: actor.upload(content.file("a", b"x")),
        "delete": lambda: actor.delete(File("a")),
    }

    with pytest.raises(TargetError) as caught:
        do[requested]()

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert server.sent, "it was asked"
    assert max(server.sent) < 32 << 20


def old(content: Content, key: str, text: bytes) -> SourceFile:
    """A file that was last modified long ago."""
    path = content.path(content.file(key, text))
    path.chmod(0o600)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return SourceFile(key, os.open(path, os.O_RDONLY))


def test_times_are_preserved_and_modes_are_the_servers(actor: Actor, server: Rsyncd, content: Content) -> None:
    file = old(content, "d/a", b"x")
    actor.upload(file)
    file.close()

    assert (server.module / "d/a").stat().st_mtime == 1_000_000_000
    assert (server.module / "d/a").stat().st_mode & 0o777 == 0o644
    assert (server.module / "d").stat().st_mode & 0o777 == 0o755


def test_a_file_of_the_same_size_and_time_is_sent(actor: Actor, server: Rsyncd, content: Content) -> None:
    for text in (b"one", b"two"):
        file = old(content, "a", text)
        actor.upload(file)
        file.close()
        assert (server.module / "a").read_bytes() == text


def test_directories_that_a_deletion_empties_go_and_no_others(actor: Actor, server: Rsyncd, content: Content) -> None:
    for key in ("a/b/c", "a/d", "e[1]*?/f", "e[1]*?/g", "back\\slash[/x"):
        actor.upload(content.file(key, b"x"))
    (server.module / "empty").mkdir()
    (server.module / "a/b/.foreign").touch()

    assert actor.delete_many([File(key) for key in ("a/b/c", "a/d", "e[1]*?/f", "back\\slash[/x", "e*/g", "*", "?")]) == [None] * 7

    assert set(on_disk(server.module)) == {"a/b/.foreign", "e[1]*?/g"}
    assert {path.name for path in server.module.iterdir()} == {"a", "e[1]*?", "empty"}


def test_a_directory_where_a_file_must_go_is_an_error_until_it_is_empty(actor: Actor, server: Rsyncd, content: Content) -> None:
    actor.upload(content.file("a/b", b"x"))
    with pytest.raises(TargetError) as caught:
        actor.upload(content.file("a", b"x"))
    assert not isinstance(caught.value, PermanentError)
    assert set(on_disk(server.module)) == {"a/b"}

    actor.delete(File("a/b"))
    actor.upload(content.file("a", b"x"))
    assert listed(actor) == {"a": 1}


def test_in_a_batch_that_fails_each_file_has_its_own_result(actor: Actor, server: Rsyncd, content: Content) -> None:
    (server.module / "way").mkdir()
    (server.module / "way/in").touch()
    names = ["one", "way", "two", "n" * 256]

    responses = actor.upload_many([content.file(name, b"x") for name in names])

    assert [type(response) for response in responses] == [type(None), TargetError, type(None), PermanentError]
    assert listed(actor) == {"one": 1, "two": 1, "way/in": 0}


def test_nothing_is_left_where_files_are_staged(server: Rsyncd, content: Content, tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    actor = load("rsync")(target_container=server.container, staging=str(staging))
    torn = content.file("torn", b"old")
    content.path(torn).write_bytes(b"new content")

    actor.upload_many([content.file("a", b"x"), torn])
    assert actor.matches(content.file("a", b"x"), "content")
    assert not actor.matches(content.file("a", b"y"), "content")
    actor.delete(File("a"))

    assert list(staging.iterdir()) == []
    assert listed(actor) == {}


NAMES = st.binary(min_size=1, max_size=12).map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"_")).filter(
    lambda name: name not in (b".", b"..")
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(NAMES, min_size=1, max_size=20, unique=True),
    special=st.sampled_from([b"\\#012", b"a\\", b"[*]?", b" x ", b"\n", b"\\*"]),
)
def test_any_name_is_listed_and_deleted_as_it_is(names: list[bytes], special: bytes, server: Rsyncd, actor: Actor) -> None:
    keys = {os.fsdecode(b"dir" + special + b"/" + name) for name in names} | {os.fsdecode(special)}
    for key in keys:
        (server.module / key).parent.mkdir(exist_ok=True)
        (server.module / key).write_bytes(b"")

    assert set(listed(actor)) == keys
    assert set(listed(actor, os.fsdecode(b"dir" + special + b"/"))) == keys - {os.fsdecode(special)}
    half = sorted(keys)[::2]
    assert actor.delete_many([File(key) for key in half]) == [None] * len(half)
    assert set(listed(actor)) == keys - {*half}
    actor.delete_many([File(key) for key in keys])
    assert listed(actor) == {}


@pytest.mark.parametrize(("path", "pattern"), [("/a\\b", "/a\\b"), ("/a*", "/a\\*"), ("/a\\*[?", "/a\\\\\\*\\[\\?"), ("/]", "/]")])
def test_a_pattern_is_literal(path: str, pattern: str) -> None:
    assert literal(path) == pattern


def test_links_and_the_like_are_no_files_and_stay(actor: Actor, server: Rsyncd) -> None:
    (server.module / "link").symlink_to("elsewhere")
    os.mkfifo(server.module / "pipe")
    (server.module / "file").touch()

    assert listed(actor) == {"file": 0}
    actor.delete(File("file"))
    assert {path.name for path in server.module.iterdir()} == {"link", "pipe"}


def test_what_is_wrong_at_the_server_is_reported_in_one_line(rsyncd: Callable[..., Rsyncd], content: Content) -> None:
    locked = rsyncd(password=PASSWORD)
    cases: list[tuple[str, str, type[TargetError], str]] = [
        (locked.container, "wrong", TargetRefused, "auth failed.*--rsync-password"),
        (locked.container, "", TargetRefused, "auth failed"),
        (locked.container.replace("/m", "/nope"), PASSWORD, TargetRefused, "Unknown module 'nope'.*--target-container"),
        ("rsync://127.0.0.1:9/m", "", TargetError, "Connection refused"),
        (rsyncd("max connections = -1").container, "", SlowDown, "max connections"),
        (rsyncd("hosts deny = *").container, "", TargetRefused, "access denied.*rsyncd.conf"),
    ]
    for container, password, kind, message in cases:
        actor = load("rsync")(target_container=container, rsync_password=password)
        with pytest.raises(kind, match=message) as caught:
            actor.check()
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)
        assert PASSWORD not in str(caught.value)
        with pytest.raises(kind):
            list(actor.list())
    readonly = load("rsync")(target_container=rsyncd("read only = yes").container)
    with pytest.raises(TargetRefused, match="read only"):
        readonly.upload(content.file("a", b"x"))


def test_a_listing_that_ends_too_soon_is_no_short_listing(actor: Actor, server: Rsyncd) -> None:
    for number in range(100):  # rsync reads a thousand files ahead, and goes on when its output is read
        (server.module / f"d{number}").mkdir()
        for name in range(50):
            (server.module / f"d{number}" / f"a name that fills what stands between both sides {name}").touch()
    assert server.process is not None
    listing = iter(actor.list())
    next(listing)
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()

    with pytest.raises(TargetError):
        list(listing)


@pytest.mark.parametrize("container", [None, "", "host", "host:module", "/a/directory", "rsync://host", "rsync://host/", "-e::m", "::m"])
def test_what_is_no_module_is_refused(container: str | None) -> None:
    with pytest.raises(ConfigurationError, match="--target-container"):
        load("rsync")(target_container=container)
