"""Secrets are in no message, log, Flower page, process list or error, whatever goes wrong and however verbose the log is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import click
import pytest
from celery.app.utils import filter_hidden_settings

from autosync.actor import Actor, SecretOption, without_secrets
from autosync.actors import actor_of
from autosync.actors.azure import AzureActor
from autosync.actors.http import HttpActor
from autosync.actors.swift import SwiftActor
from autosync.celery import Secrets
from autosync.errors import ConfigurationError
from autosync.model.keys import Source
from autosync.model.mirror import Mirror
from autosync.model.secrets import escape_secret, read_secret, secret_of

OPTION = "Opt1on/of the+actor"


def test_celery_strikes_secret_options_out_whatever_their_names_are() -> None:
    assert "hunter2" in str(filter_hidden_settings({"autosync_secrets": {"login": "hunter2"}})), "or this needs no care"
    assert "hunter2" not in str(filter_hidden_settings({"autosync_secrets": Secrets({"login": "hunter2"})}))
    assert "hunter2" not in str(filter_hidden_settings({"anything": Secrets({"login": "hunter2"})}))


def test_messages_of_an_actor_have_no_secrets() -> None:
    class Store(Actor):
        options = (SecretOption(["--password"]), SecretOption(["--login"]), click.Option(["--url"]))

    store = Store(password=OPTION, login="", url="http://store/", target_container=None)

    message = without_secrets(store, f"http://store/?a={OPTION} b={quote(OPTION, safe='')} c={quote_plus(OPTION)}")
    assert message == "http://store/?a=*** b=*** c=***"


@pytest.mark.parametrize(("passed", "secret"), [("plain", "plain"), ("@@at", "@at"), ("@@@", "@@"), ("", ""), ("a@b", "a@b")])
def test_a_secret_is_itself_unless_it_begins_with_an_at(passed: str, secret: str) -> None:
    assert read_secret(passed, "--password") == secret
    assert read_secret(escape_secret(secret), "--password") == secret


def test_a_secret_in_a_file_has_no_line_break_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(" with blanks \n")
    assert read_secret(f"@{tmp_path / 'secret'}", "--password") == " with blanks "


@pytest.mark.parametrize("content", [None, "", "\n", b"\xff"])
def test_a_file_that_holds_no_secret_is_refused(content: str | bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match=f"--password @{tmp_path}/secret: "):
        read_secret(f"@{tmp_path}/secret", "--password")


def test_a_mirror_may_have_secrets_of_its_own() -> None:
    secrets = {"password": "all", "m": {"password": "own"}, "secret": {"password": "named as an option is"}}
    assert secret_of(secrets, "m", "password") == "own"
    assert secret_of(secrets, "n", "password") == "all"
    assert secret_of(secrets, "m", "other") is None
    assert secret_of(secrets, "m", "secret") is None


class Strict(Actor):
    """Refuses its settings with an error that has the secret in it, also as a part of a URL."""

    options = (SecretOption(["--pin"]),)

    def __init__(self, **settings: object) -> None:
        raise TypeError(f"not with {settings} at http://host/?pin={quote(str(settings['pin']))}")


def test_an_actor_that_cannot_use_its_settings_is_reported_without_its_secrets() -> None:
    mirror = Mirror("m", "test_secrets.Strict", (Source("/s"),), settings={"colour": "red"}, secrets=("pin",))

    with pytest.raises(ConfigurationError, match=r"cannot use its settings: TypeError: not with .*red") as caught:
        actor_of(mirror, {"pin": "hunter2 & co"}, "add {}")

    assert "hunter2" not in str(caught.value)
    assert str(caught.value).count("***") == 2


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda url: HttpActor(url=url, secret="s"), "--url"),
        (lambda url: SwiftActor(target_container="c", auth_url=url), "--auth-url"),
        (lambda url: AzureActor(target_container="abc", account="a", key="AAAA", endpoint_url=url), "--endpoint-url"),
    ],
)
@pytest.mark.parametrize("url", ["https://u:hunter2@example.org/x", "https://[hunter2", "example.org/?sig=hunter2"])
def test_a_url_that_cannot_be_used_is_reported_without_its_secrets(make: Callable[[str], object], option: str, url: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option} cannot be used") as caught:
        make(url)

    assert "hunter2" not in str(caught.value)
