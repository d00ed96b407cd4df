"""The actor for Azure, against Azurite; and what is the same for that of Google Cloud Storage."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autosync.actor import Actor, can_delete_many, listing_of
from autosync.actors import load
from autosync.actors._multipart import NothingSent
from autosync.actors._object_store import SMALL
from autosync.actors._parts import tried
from autosync.errors import ConfigurationError, FileChanged, PermanentError, SlowDown, TargetError, TargetRefused
from autosync.files import File
from autosync.source.source_file import SourceFile
from autosync.testing import ActorContract, Content, listed
from lab.azurite import ACCOUNT, ACCOUNT_KEY, Azurite
from lab.fixed_response import Refusing
from lab.forward_proxy import ForwardProxy
from lab.gcs import Gcs
from lab.parts import running
from lab.servers import wait_until


@pytest.fixture
def tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts and pages are tried twice, and not more often with growing pauses."""
    monkeypatch.setattr("autosync.actors._object_store._PAGE_TRIES", 2)
    monkeypatch.setattr("autosync.actors._parts._PART_TRIES", 2)


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azurite for the whole session."""
    yield from running(lambda: Azurite(tmp_path_factory.mktemp("azurite")))


@pytest.fixture
def container(azurite: Azurite) -> Iterator[str]:
    """An empty container."""
    name = f"t{uuid.uuid4().hex[:16]}"
    azurite.create(name)
    yield name
    azurite.remove(name)


def made(azurite: Azurite, container: str, **change: str | None) -> Actor:
    settings = {"target_container": container, "endpoint_url": azurite.url, "account": ACCOUNT, "account_key": ACCOUNT_KEY}
    return load("azure")(**{**settings, **change})


@pytest.fixture(params=["key", "signature"])
def actor(request: pytest.FixtureRequest, azurite: Azurite, container: str) -> Iterator[Actor]:
    """An actor that has the key of the account, or a signature for the container."""
    by = {"account_key": None, "sas_token": f"?{azurite.signature(container)}"} if request.param == "signature" else {}
    one = made(azurite, container, **by)
    yield one
    one.close()


class TestAzure(ActorContract):
    """What every actor must do."""

    sorts = False  # Azurite compares UTF-16, so what lies beyond it comes before U+E000
    many = 2 * Azurite.PAGE + 50

    @pytest.fixture
    def actor(self, azurite: Azurite, container: str) -> Iterator[Actor]:
        one = made(azurite, container)
        yield one
        one.close()


def in_one_line(error: BaseException) -> bool:
    """Whether a traceback shows no other error with this one."""
    return error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)


# Keys

NOT_KEPT = ["./dot", "../up", "a/../b", "a/./b", ".", "..", "", "new\nline", "not-\udcffutf8"]
NOT_IN_AZURE = [
    "/slash", "//two", "a//b", "dir/", "tab\t", "\x01", "\x7f", "\x85", "\uffff",
    "back\\slash", "dot.", "d./x", "y" * 1025, "a/" * 254 + "b",
]  # fmt: skip


@pytest.mark.parametrize("key", NOT_KEPT + NOT_IN_AZURE, ids=lambda key: ascii(key)[:20])
def test_a_key_that_the_server_would_change_is_refused_for_good_and_nothing_is_stored_or_deleted_in_its_place(
    key: str, azurite: Azurite, container: str, content: Content
) -> None:
    near = [name for name in {key.strip("/"), key.replace("\\", "/"), key.rstrip(".")} if name != key and name.isprintable()]
    near = [name for name in near if name and not {".", ".."} & {*name.split("/")} and "//" not in name]
    for name in near:
        azurite.put(container, name, b"x")
    there = azurite.names(container)
    actor = made(azurite, container)

    with pytest.raises(PermanentError) as refused:
        actor.upload(content.file(key, b"new"))
    assert "\n" not in str(refused.value)
    assert ascii(key)[1:-1] in ascii(str(refused.value)) or "\\" in ascii(key)
    actor.delete(File(key))
    if key not in ("\x01", "\uffff"):  # Azurite answers 500: it would have to write the prefix as XML
        assert listed(actor, key or "x") == {}

    assert azurite.names(container) == there


def test_keys_are_exact_to_the_byte(azurite: Azurite, container: str, content: Content) -> None:
    actor = made(azurite, container)
    keys = ["a/b", "a-b", "a", "é", "per%41cent", "%2e%2e/up", "pl+us sp ace", "q?#&=;", "ü/日", " lead", "trail ", "x" * 1024, "日"]
    for key in keys:
        actor.upload(content.file(key, b"x"))

    assert azurite.names(container) == sorted(keys)
    assert [file.key for file in listing_of(actor, "")] == sorted(keys)
    for key in keys:
        actor.delete(File(key))
    assert azurite.names(container) == []


FOREIGN = ["b//c", "b/../c", "b/./c", "//b", "/b", "dir/", "back/slash", "b.", "tab\t", "\x7f", "\x85", "a&lt;b<c>\"'", "%41+ b"]


@pytest.mark.parametrize("foreign", FOREIGN, ids=ascii)
def test_a_foreign_name_is_listed_as_it_is_and_breaks_no_listing(foreign: str, azurite: Azurite, container: str) -> None:
    for key in ("a", foreign, "z"):
        azurite.put(container, key, b"x")

    assert listed(made(azurite, container)) == {"a": 1, foreign: 1, "z": 1}


ODD = ["dot.", "sub/x./y", "b//c", "dir/", "tab\t", "\x7f", "new\nline", "a/" * 254 + "b"]


@pytest.mark.parametrize("foreign", ODD, ids=lambda key: ascii(key)[:20])
def test_a_foreign_object_is_deleted_also_under_a_key_that_is_not_sent(foreign: str, azurite: Azurite, container: str) -> None:
    kept = [foreign.replace(".", "").replace("//", "/").rstrip("/") or "x", f"{foreign}x", "z"]
    for key in (foreign, *kept):
        azurite.put(container, key, b"x")
    actor = made(azurite, container)

    actor.delete(File(foreign))
    actor.delete(File(foreign))

    assert azurite.names(container) == sorted({*kept} - {foreign})


@pytest.mark.parametrize("foreign", ["b/../c", "b/./c"])
def test_a_foreign_object_that_no_request_reaches_is_an_error(foreign: str, azurite: Azurite, container: str) -> None:
    for key in (foreign, "c", "b/c"):
        azurite.put(container, key, b"x")

    with pytest.raises(PermanentError, match="cannot be deleted: its path has"):
        made(azurite, container).delete(File(foreign))

    assert azurite.names(container) == sorted([foreign, "c", "b/c"])


# Listing

def test_a_listing_across_pages_is_complete_and_in_order(azurite: Azurite, container: str, content: Content) -> None:
    one = content.file("shared", b"x")
    keys = sorted(f"{number % 2}/{number:05}" for number in range(260))
    files = [SourceFile(key, os.dup(one.descriptor)) for key in keys]
    actor = made(azurite, container)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda file: tried(file, lambda: actor.upload(file)), files))  # as a worker would
    for file in files:
        file.close()

    first, following = azurite.page(container)
    assert (len(first), bool(following)) == (Azurite.PAGE, True), "there are several pages"
    assert [file.key for file in listing_of(actor, "")] == keys
    assert [file.key for file in listing_of(actor, "1")] == keys[130:]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: actor.delete(File(key)), keys))
    assert azurite.names(container) == []


def test_each_deletion_counts_as_one_request() -> None:
    """A worker counts what it sends by calls: a target that has no request for many keys has no `delete_many`."""
    assert not can_delete_many(load("azure")(target_container="container", account="account", account_key=ACCOUNT_KEY))
    assert not can_delete_many(load("gcs")(target_container="bucket"))


def test_what_was_sent_in_one_request_can_be_compared_and_what_was_sent_in_parts_cannot(
    azurite: Azurite, container: str, content: Content
) -> None:
    actor = made(azurite, container)
    small, large = content.file("a", b"content"), content.file("b", bytes(SMALL + 1))
    actor.upload(small)
    actor.upload(large)
    first, second = listing_of(actor, "")

    assert first.etag == hashlib.md5(b"content").hexdigest()
    assert actor.can_match(first)
    assert actor.matches(small, first.etag)
    assert not actor.matches(content.file("a", b"CONTENT"), first.etag)
    assert second.etag
    assert '"' not in second.etag
    assert not actor.can_match(second)
    assert not actor.matches(large, second.etag)


# Uploading and deleting

def test_each_way_to_identify_oneself_can_do_everything(actor: Actor, azurite: Azurite, container: str, content: Content) -> None:
    actor.check()
    actor.upload(content.file("page.html", b"x"))
    actor.upload(content.file("large.unknown", bytes(SMALL + 1)))

    assert listed(actor) == {"large.unknown": SMALL + 1, "page.html": 1}
    assert azurite.read(container, "page.html").headers["Content-Type"] == "text/html"
    assert azurite.read(container, "large.unknown").headers["Content-Type"] == "application/octet-stream"
    actor.delete(File("page.html"))
    actor.delete(File("never"))
    actor.delete(File("large.unknown"))
    assert listed(actor) == {}


def test_a_large_file_is_sent_whole_and_a_torn_one_leaves_only_blocks_that_nobody_sees(
    azurite: Azurite, container: str, content: Content
) -> None:
    actor = made(azurite, container)
    data = os.urandom(3 * SMALL + 7)
    actor.upload(content.file("large", data))
    assert azurite.read(container, "large").content == data
    read, sent = 0, 0

    def meanwhile(count: int) -> None:
        nonlocal read, sent
        read += count
        if read > 2 * SMALL and not sent:
            sent = wait_until(lambda: azurite.blocks(container, "torn"), 30, "a part has arrived")
            os.utime(content.path(file), (1, 1))

    file = content.file("torn", data, meanwhile)
    with pytest.raises(FileChanged):
        actor.upload(file)

    assert sent
    assert azurite.names(container) == ["large"]
    assert azurite.blocks(container, "torn") >= sent, "docs/targets/azure.md says that they stay"


# Errors

@pytest.mark.usefixtures("tried_twice")
@pytest.mark.parametrize(
    ("change", "kind", "error_text"),
    [
        ({"target_container": "no-such-container"}, TargetRefused, "there is no such container; create it"),
        ({"account_key": "aGVsbG8="}, TargetRefused, "access is denied .*check --account-key"),
        ({"account_key": "###"}, TargetRefused, "credentials cannot be used .*check --account-key"),
        ({"account_key": None, "sas_token": "nonsense"}, TargetRefused, "credentials cannot be used .*check --account-key, --sas-token"),
        ({"account_key": None, "identity": "workload"}, TargetRefused, "credentials cannot be used .*workload identity"),
        ({"endpoint_url": "http://127.0.0.1:1"}, NothingSent, "Connection refused"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_reported_in_one_clear_line(
    change: dict[str, str | None], kind: type[TargetError], error_text: str, azurite: Azurite, container: str, content: Content
) -> None:
    actor = made(azurite, container, **change)

    with pytest.raises(kind, match=error_text) as refused:
        actor.check()
    assert "\n" not in str(refused.value)
    assert "Debug" not in str(refused.value)
    for size in (1, SMALL + 1):
        with pytest.raises(kind, match=error_text):
            actor.upload(content.file("a", bytes(size)))
    with pytest.raises(kind, match=error_text):
        listed(actor)
    with pytest.raises(kind, match=error_text):
        actor.delete(File("a"))


@pytest.mark.parametrize("permissions", ["rcw", "rl", "lcw"])
def test_a_right_that_a_signature_does_not_grant_is_missed(permissions: str, azurite: Azurite, container: str, content: Content) -> None:
    actor = made(azurite, container, account_key=None, sas_token=azurite.signature(container, permissions))
    azurite.put(container, "there", b"x")
    does: dict[str, Callable[[], object]] = {
        "l": actor.check, "w": lambda: actor.upload(content.file("a", b"x")), "d": lambda: actor.delete(File("there")),
    }  # fmt: skip

    for right, do in does.items():
        if right in permissions:
            do()
        else:
            with pytest.raises(TargetError) as refused:
                do()
            assert not isinstance(refused.value, SlowDown)
            assert "sig=" not in str(refused.value)
    assert "there" in azurite.names(container)


def test_a_signature_goes_through_a_proxy_and_into_no_log(
    refusing: Callable[..., Refusing], monkeypatch: pytest.MonkeyPatch, content: Content, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy = refusing(403, b"<Error><Code>AuthenticationFailed</Code></Error>")
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "")
    actor = load("azure")(target_container="container", endpoint_url="http://azure.example.org", account="a", sas_token="?sv=1&sig=a+b%3D")

    with pytest.raises(TargetRefused) as caught:
        actor.upload(content.file("a b", b"x"))
    with pytest.raises(TargetRefused):
        listed(actor)

    start = "http://azure.example.org/container"
    query = "comp=list&restype=container"
    assert proxy.targets == [f"{start}/a%20b?sv=1&sig=a%2Bb%3D", f"{start}?{query}&sv=1&sig=a%2Bb%3D"]
    for text in (caplog.text, str(caught.value)):
        assert "sig" not in text


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_the_url_of_a_proxy_may_have_no_scheme(
    scheme: str, azurite: Azurite, container: str, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy("joe:pass") as proxy, monkeypatch.context() as environment:
        environment.setenv("http_proxy", f"{scheme}joe:pass@127.0.0.1:{proxy.port}")
        environment.setenv("no_proxy", "")
        actor = made(azurite, container)
        actor.upload(content.file("a", b"x"))
        actor.close()
        assert len(proxy.requests) == 1
    assert azurite.names(container) == ["a"]


@pytest.mark.parametrize("endpoint", ["http://azure.example.org", "https://azure.example.org"])
def test_a_proxy_that_wants_another_password_is_named_with_a_cure(endpoint: str, content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy("joe:pass") as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://joe:wrong@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        actor = load("azure")(target_container="container", endpoint_url=endpoint, account="a", account_key=ACCOUNT_KEY)
        line = f"by the proxy {proxy.url}: the proxy wants another user or password; write HTTP"
        with pytest.raises(TargetRefused, match=line) as refused:
            actor.upload(content.file("a", b"x"))
    assert "wrong" not in str(refused.value)


def test_the_request_for_the_clock_carries_no_signature(refusing: Callable[..., Refusing]) -> None:
    server = refusing(403)
    actor = load("azure")(target_container="container", endpoint_url=server.url, account="a", sas_token="sv=1&sig=a")

    actor.clock_ahead()

    assert server.targets == ["/container"]


def test_a_url_with_a_signature_counts_as_its_query(azurite: Azurite, container: str, content: Content) -> None:
    signature = azurite.signature(container)
    actor = made(azurite, container, account_key=None, sas_token=f"https://a.blob.core.windows.net/{container}?{signature}")

    actor.upload(content.file("a", b"x"))

    assert azurite.names(container) == ["a"]


@pytest.mark.parametrize("token", ["sv=1&sig=", "sv=1&sig=&se=2", "https://a.blob.core.windows.net/c", "xsig=1", "sv=1"])
def test_a_signature_without_a_value_is_refused(token: str, azurite: Azurite, container: str) -> None:
    with pytest.raises(TargetRefused, match="the shared access signature is not a query with sig="):
        made(azurite, container, account_key=None, sas_token=token).check()


def test_a_signature_that_has_expired_is_refused(azurite: Azurite, container: str) -> None:
    token = azurite.signature(container, expires="2001-01-01T00:00:00Z")
    with pytest.raises(TargetRefused, match="access is denied"):
        made(azurite, container, account_key=None, sas_token=token).check()


@pytest.mark.usefixtures("tried_twice")
@pytest.mark.parametrize("status", [429, 503])
def test_a_target_that_demands_fewer_requests_is_not_tried_again(
    status: int, refusing: Callable[..., Refusing], azurite: Azurite, content: Content
) -> None:
    server = refusing(status, b"<Error><Code>ServerBusy</Code><Message>The server is busy.</Message></Error>")
    actor = made(azurite, "container", endpoint_url=server.url)

    with pytest.raises(SlowDown, match=f"{status} ServerBusy: The server is busy"):
        actor.upload(content.file("a", b"x"))
    assert server.methods == ["PUT"]
    with pytest.raises(SlowDown):
        actor.delete(File("a"))
    assert server.methods == ["PUT", "DELETE"]
    with pytest.raises(SlowDown):
        listed(actor)
    with pytest.raises(SlowDown):
        actor.upload(content.file("large", bytes(SMALL + 1)))
    with pytest.raises(SlowDown):
        actor.check()


@pytest.mark.parametrize(("status", "code", "kind"), [(500, "InternalError", TargetError), (409, "ContainerBeingDeleted", TargetError), (409, "BlobImmutableDueToPolicy", PermanentError), (413, "RequestBodyTooLarge", PermanentError), (412, "LeaseIdMissing", TargetError)])  # fmt: skip  # noqa: E501
def test_other_answers_are_tried_again_or_not(
    status: int, code: str, kind: type[TargetError], refusing: Callable[..., Refusing], azurite: Azurite, content: Content
) -> None:
    server = refusing(status, f"<Error><Code>{code}</Code><Message>So it is.\nRequestId:1</Message></Error>".encode())
    with pytest.raises(TargetError, match=f"{status} {code}: So it is") as refused:
        made(azurite, "container", endpoint_url=server.url).upload(content.file("a", b"x"))
    assert type(refused.value) is kind


@pytest.mark.parametrize("name", ["azure", "gcs", "s3", "http", "swift"])
@pytest.mark.parametrize(
    "text",
    [b"hello&#10;09:00:00 uploaded&#27;[2J", b"hello\x1b[2J\r09:00:00 uploaded", "hello\u2028\u009b2J\u202e".encode()],
    ids=["xml", "raw", "unicode"],
)
def test_the_text_of_a_server_begins_no_line_and_controls_no_terminal(
    name: str, text: bytes, refusing: Callable[..., Refusing], azurite: Azurite, content: Content, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setattr("autosync.actors.swift.identity.Access._token", lambda _: "token")
    server = refusing(418, text if name == "swift" else b'{"detail": "hello\\u001b[2J\\u2028x"}' if name == "http" else
                      b"<Error><Code>Oops</Code><Message>" + text + b"</Message></Error>", **{"Content-Type": "application/json"})
    actor = {
        "azure": lambda: made(azurite, "container", endpoint_url=server.url),
        "gcs": lambda: load("gcs")(target_container="bucket", endpoint_url=server.url, service_account=str(Gcs(tmp_path).service_account)),
        "s3": lambda: load("s3")(target_container="bucket", endpoint_url=server.url),
        "http": lambda: load("http")(url=server.url, secret="secret"),
        "swift": lambda: load("swift")(
            target_container="c", auth_url="http://127.0.0.1:1/v3", storage_url=server.url, user="u", password="p", project="p"
        ),
    }[name]()  # fmt: skip

    with pytest.raises(TargetError, match=r"418|Oops") as refused:
        actor.delete(File("a")) if name == "swift" else actor.upload(content.file("a", b"x"))

    assert "hello" in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_code_in_a_header_is_one_of_azures(refusing: Callable[..., Refusing], azurite: Azurite, content: Content) -> None:
    server = refusing(409, **{"x-ms-error-code": "Bad\x1b[2J"})
    with pytest.raises(TargetError) as refused:
        made(azurite, "container", endpoint_url=server.url).upload(content.file("a", b"x"))
    assert str(refused.value).endswith(": 409")


FORMS = {
    "as it was sent": "sig=U0VDUkVU%2Bc2lnbmF0dXJl%3D", "decoded": "sig=U0VDUkVU+c2lnbmF0dXJl=", "as spaces": "SIG=U0VDUkVU c2lnbmF0dXJl",
    "references": "is U0VDUkVU&#43;c2lnbmF0dXJl&#x3d;", "twice": "is U0VDUkVU&amp;#43;c2lnbmF0dXJl", "a part": "c2lnbmF0dXJl",
    "letters encoded": "%55%30%56%44%55%6b%56%55",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_signature_that_a_server_repeats_is_in_no_error(
    form: str, refusing: Callable[..., Refusing], azurite: Azurite, content: Content
) -> None:
    server = refusing(403, f"<Error><Code>AuthenticationFailed</Code><Message>Not {FORMS[form]}</Message></Error>".encode())
    actor = made(azurite, "container", endpoint_url=server.url, account_key=None, sas_token="sv=1&sig=U0VDUkVU%2Bc2lnbmF0dXJl%3D")

    with pytest.raises(TargetRefused, match=r"access is denied .403 AuthenticationFailed.") as refused:
        actor.upload(content.file("a", b"x"))

    assert "Not" not in str(refused.value)


@pytest.mark.usefixtures("tried_twice")
@pytest.mark.parametrize("where", ["azurite", "nowhere"])
def test_no_secret_is_in_an_error_or_in_the_log_where_everything_is(
    where: str, azurite: Azurite, container: str, content: Content, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    url = azurite.url if where == "azurite" else "http://127.0.0.1:1/x"
    signature = azurite.signature(container, "r").partition("sig=")[2]
    messages: list[str] = []
    for secrets in ({"account_key": "c2VjcmV0"}, {"account_key": None, "sas_token": azurite.signature(container, "r")}):
        actor = made(azurite, container, endpoint_url=url, **secrets)
        for do in (actor.check, lambda: listed(actor), lambda: actor.upload(content.file("a", b"x")), lambda: actor.delete(File("a")),  # noqa: B023
                   lambda: actor.upload(content.file("a", bytes(SMALL + 1)))):  # noqa: B023  # fmt: skip
            with pytest.raises(TargetError) as refused:
                do()
            error: BaseException | None = refused.value
            assert error is not None
            assert in_one_line(error), "the error of requests would be in a traceback"
            messages.append(str(error))
    if where == "azurite":
        actor.clock_ahead()
        assert "HEAD" in caplog.text

    assert len(messages) == 10
    everything = "\n".join([*messages, caplog.text, *capfd.readouterr()])
    for secret in ("c2VjcmV0", signature, "sig=", "SharedKey"):
        assert secret not in everything


@pytest.mark.parametrize(
    ("settings", "error_text"),
    [
        ({"account": None}, "--account is missing"),
        ({"account": "a.example.org/"}, "--account 'a.example.org/' cannot be the name of a storage account"),
        ({"account": "Account"}, "--account 'Account' cannot be"),
        ({"account": "a\r\nb", "endpoint_url": "http://127.0.0.1:1"}, "cannot be the name of a storage account"),
        ({"sas_token": "x"}, "--account-key and --sas-token are ways to the same target"),
        ({"account_key": None, "client_secret": "x"}, "--client-secret needs --client-id and --tenant-id"),
        ({"target_container": "a/../b"}, "cannot be the name of a container"),
        ({"target_container": "A"}, "cannot be the name of a container"),
        ({"target_container": None}, "--target-container is missing"),
        ({"endpoint_url": "storage.example.org"}, "--endpoint-url cannot be used"),
        ({"endpoint_url": "https://x.example.org/?sig=secret"}, "--endpoint-url cannot be used"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, str | None], error_text: str) -> None:
    good = {"target_container": "container", "account": "account", "account_key": ACCOUNT_KEY}
    load("azure")(**good)

    with pytest.raises(ConfigurationError, match=error_text) as refused:
        load("azure")(**{**good, **settings})
    assert "secret" not in str(refused.value).replace("client-secret", "")


def test_options_have_precedence_over_the_environment(
    azurite: Azurite, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_STORAGE_TOKEN", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CONTAINER_NAME", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.setenv(name, "sv=other&sig=other")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1")

    made(azurite, container).check()


def test_credentials_of_the_environment_are_used_where_no_option_has_any(
    azurite: Azurite, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)

    made(azurite, container, account_key=None).check()


def test_the_clock_of_a_server_that_is_away_cannot_be_read(azurite: Azurite) -> None:
    with pytest.raises(TargetError, match="Connection refused"):
        made(azurite, "container", endpoint_url="http://127.0.0.1:1").clock_ahead()
