"""How the certificate of a broker is checked: redis-py and kombu get the same settings, whatever their own defaults are."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import redis

from autosync.celery import make_app, sending_app
from autosync.errors import ConfigurationError
from autosync.ledger import connect
from autosync.model.broker_tls import with_certificate_checks

#: Options in the URL; whether the certificate must come from an authority that is trusted, and whether it must be valid for the host.
OPTIONS = {
    "": (ssl.CERT_REQUIRED, True),
    "?ssl_ca_certs={ca}": (ssl.CERT_REQUIRED, True),
    "?ssl_cert_reqs=required": (ssl.CERT_REQUIRED, True),
    "?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={ca}": (ssl.CERT_REQUIRED, True),
    "?ssl_cert_reqs=optional": (ssl.CERT_OPTIONAL, True),
    "?ssl_cert_reqs=none": (ssl.CERT_NONE, False),
    "?ssl_cert_reqs=CERT_NONE": (ssl.CERT_NONE, False),
    "?ssl_cert_reqs=none&ssl_check_hostname=true": (ssl.CERT_NONE, False),
    "?ssl_check_hostname=true&socket_timeout=9": (ssl.CERT_REQUIRED, True),
    "?ssl_check_hostname=false": (ssl.CERT_REQUIRED, False),
    "?socket_timeout=9&ssl_check_hostname=False&ssl_ca_certs={ca}": (ssl.CERT_REQUIRED, False),
    "?ssl_check_hostname=no": (ssl.CERT_REQUIRED, False),
    "?ssl_check_hostname=0": (ssl.CERT_REQUIRED, False),
    "?ssl_check_hostname=true&ssl_check_hostname=false": (ssl.CERT_REQUIRED, True),
    "?ssl%5Fcheck%5Fhostname=false&ssl_ca_certs={ca}": (ssl.CERT_REQUIRED, False),
    "?ssl_ca_certs={ca}#ssl_check_hostname=false": (ssl.CERT_REQUIRED, True),
}

#: The TLS settings that a client gives to redis-py's connections, by URL.
Client = Callable[[str], dict[str, Any]]


def of_the_ledger(url: str) -> dict[str, Any]:
    with connect(url) as client:
        return dict(client.connection_pool.connection_kwargs)


def of_what_sends(url: str) -> dict[str, Any]:
    with sending_app(url, "q") as app, app.connection_for_write() as connection:
        return dict(connection.ssl)


def of_a_worker(url: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "celeryconfig", ModuleType("celeryconfig"))  # an empty one
        patch.setenv("CELERY_BROKER_URL", url)
        with make_app(set_as_current=False) as app, app.connection_for_read() as connection:
            assert app.conf.broker_use_ssl["ssl_check_hostname"] is connection.ssl["ssl_check_hostname"]
            return dict(connection.ssl)


@pytest.mark.parametrize("client", [of_the_ledger, of_what_sends, of_a_worker])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_clients_agree_on_what_is_checked(options: str, client: Client) -> None:
    ca = ssl.get_default_verify_paths().openssl_cafile
    reported = client(f"rediss://user:secret@host.example:6380/1{options.format(ca=ca)}")

    assert {"ssl_cert_reqs", "ssl_check_hostname"} <= reported.keys(), "none is left to a default"
    assert (reported.get("ssl_ca_certs") == ca) == ("ssl_ca_certs" in options)
    connection = redis.SSLConnection(**{name: value for name, value in reported.items() if name.startswith("ssl_")})
    assert (connection.cert_reqs, connection.check_hostname) == OPTIONS[options]


@pytest.mark.parametrize("client", [connect, lambda url: sending_app(url, "q")])
@pytest.mark.parametrize("option", ["ssl_cert_reqs=some", "ssl_cert_reqs=0", "ssl_check_hostname=off", "ssl_check_hostname=maybe"])
def test_a_value_without_a_meaning_is_refused(option: str, client: Callable[[str], object]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        client(f"rediss://user:secret@host/0?{option}")

    name, _, value = option.partition("=")
    assert f"{name} cannot be '{value}'; write one of " in str(refused.value)


@pytest.mark.parametrize("url", ["redis://host:6379/0", "redis+socket:///run/b.sock?virtual_host=1", "unix:///b.sock", "", "rediss://:secret@[::1"])
def test_an_address_without_tls_stays_as_it_is(url: str) -> None:
    assert with_certificate_checks(url) == url
