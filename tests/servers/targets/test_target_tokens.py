"""Tokens for Azure and Google come from the vendors' libraries, by the sessions that read no response without a bound."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autosync.actor import Actor
from autosync.actors import load
from autosync.errors import PermanentError, TargetError, TargetRefused
from autosync.files import File
from autosync.testing import Content, listed
from lab.endless import Endless
from lab.servers import wait_until
from lab.token_service import TOKEN, TokenService

KINDS = ["azure managed", "azure without options", "gcs"]


@pytest.fixture
def service() -> Iterator[Callable[[int], TokenService]]:
    """Starts services: give a status."""
    services: list[TokenService] = []

    def start(status: int) -> TokenService:
        services.append(TokenService(status))
        return services[-1]

    yield start
    for one in services:
        one.close()


@pytest.fixture
def actor_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str, str, str], Actor]]:
    """Makes actors: give the kind, and the URLs of the target and of the service that gives tokens."""
    made: list[Actor] = []

    def make(kind: str, target: str, tokens: str) -> Actor:
        for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"):
            monkeypatch.delenv(name, raising=False)
        (tmp_path / "subject").write_text("sEcReT")
        federation = {
            "type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": tokens,
            "credential_source": {"file": str(tmp_path / "subject")},
        }  # fmt: skip
        (tmp_path / "adc.json").write_text(json.dumps(federation))
        # As in an App Service, and with workload identity federation.
        for name, value in {
            "IDENTITY_ENDPOINT": tokens, "IDENTITY_HEADER": "sEcReT", "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "adc.json"),
            "GOOGLE_CLOUD_PROJECT": "project",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        settings = {
            "azure managed": {"target_container": "container", "account": "a", "identity": "managed"},
            "azure without options": {"target_container": "container", "account": "a"},
            "gcs": {"target_container": "bucket"},
        }[kind]
        made.append(load(kind.partition(" ")[0])(endpoint_url=target, **settings))
        return made[-1]

    yield make
    for actor in made:
        actor.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_obtained_once_and_sent_with_every_request(
    kind: str, service: Callable[[int], TokenService], actor_with: Callable[[str, str, str], Actor], content: Content,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    server = service(200)
    actor = actor_with(kind, server.url, f"{server.url}/token")

    actor.check()
    assert listed(actor) == {}
    actor.upload(content.file("a", b"x"))
    actor.delete(File("a"))

    assert server.tokens == 1
    assert TOKEN not in caplog.text
    assert "sEcReT" not in caplog.text


@pytest.mark.parametrize(("status", "kind_of_error"), [(400, TargetRefused), (401, TargetRefused), (307, TargetError)])
@pytest.mark.parametrize("kind", ["azure managed", "gcs"])
def test_a_service_that_issues_no_token_is_named_in_one_line(
    kind: str, status: int, kind_of_error: type[TargetError], service: Callable[[int], TokenService],
    actor_with: Callable[[str, str, str], Actor], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    target, server = service(200), service(status)
    actor = actor_with(kind, target.url, f"{server.url}/token")

    with pytest.raises(kind_of_error) as caught:
        actor.check()

    assert server.tokens == 1, "no redirect is followed"
    assert "\n" not in str(caught.value)
    for secret in ("sEcReT", TOKEN):
        assert secret not in str(caught.value)


ODD_TOKENS = [
    b"[1]", b"1", b"null", b"{}", b"[" * 100_000, b'{"access_token": 1, "expires_in": 3600, "expires_on": "4000000000"}',
    b'{"access_token": "sEcReT\\r\\nX: y", "expires_in": 3600, "expires_on": "4000000000", "token_type": "Bearer"}',
    b'{"access_token": "sEcReT", "expires_in": [], "expires_on": [], "token_type": "Bearer"}',
    b'{"access_token": "sEcReT", "expires_in": 1e400, "expires_on": "1e999", "token_type": "Bearer"}',
]  # fmt: skip


@pytest.mark.parametrize("response", ODD_TOKENS, ids=lambda response: response[:40].decode())
@pytest.mark.parametrize("kind", ["azure managed", "gcs"])
def test_a_token_that_is_none_is_an_error_of_the_target(
    kind: str, response: bytes, service: Callable[[int], TokenService], actor_with: Callable[[str, str, str], Actor]
) -> None:
    target, server = service(200), service(200)
    server.content = response

    with pytest.raises(TargetError) as caught:
        actor_with(kind, target.url, f"{server.url}/token").check()

    assert str(caught.value).isprintable()
    assert "sEcReT" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_to_a_service_that_is_away_is_repeated_later(
    kind: str, service: Callable[[int], TokenService], actor_with: Callable[[str, str, str], Actor], content: Content
) -> None:
    actor = actor_with(kind, service(200).url, "http://127.0.0.1:1/token")

    with pytest.raises(TargetError) as caught:
        actor.upload(content.file("a", b"x"))

    assert not isinstance(caught.value, PermanentError)
    assert "\n" not in str(caught.value)


def test_credentials_of_the_environment_that_are_refused_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AZURE_CLIENT_ID": "a", "AZURE_TENANT_ID": "b", "AZURE_CLIENT_SECRET": "sEcReT"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # so that nobody's login service is asked

    with pytest.raises(TargetRefused, match=r"cannot be used \(EnvironmentCredential: Authentication failed") as caught:
        load("azure")(target_container="container", account="a", endpoint_url="http://127.0.0.1:1").check()

    assert "sEcReT" not in str(caught.value)


@pytest.mark.parametrize("shape", ["chunked", "long", "until closed"])
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_token_no_more_than_1_MiB_is_read(  # noqa: N802
    kind: str, shape: str, service: Callable[[int], TokenService], actor_with: Callable[[str, str, str], Actor]
) -> None:
    server = Endless(200, shape)
    try:
        actor = actor_with(kind, service(200).url, server.url)

        with pytest.raises(TargetError) as caught:
            actor.check()

        assert "\n" not in str(caught.value)
        wait_until(server.is_quiet, 60, "the server to see that nobody reads")
        assert server.sent, "it was asked"
        assert not server.ended
        assert max(server.sent) < 13 << 20  # beside what is read, what the two kernels' buffers take
        assert server.accepted == {"identity"}
    finally:
        server.close()
