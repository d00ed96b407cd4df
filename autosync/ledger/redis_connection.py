"""Connects to the broker for everything but Celery, and translates its errors."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from ..errors import BrokerError, BrokerRefused, ConfigurationError
from ..model.broker_tls import with_certificate_checks

#: Text that redis-py and Valkey put around an error message: which command or script met with the error.
_SCRIPT_CONTEXT = re.compile(r"^Command # \d+ \(.*?\) of pipeline caused error: | script: \S*,? ?on @user_script.*$", re.DOTALL)
#: The beginning of the message for a command that a script may not run.
_REFUSED_IN_SCRIPT = "ACL failure in script: "

#: The most connections of one process: one for each thread that uses the broker at the same time. By default, redis-py 8 allows 100.
_MAX_CONNECTIONS = 10_000
#: Options of a rediss:// URL that name files.
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: OpenSSL's reasons for a response that is not TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")


def address(url: str) -> str:
    """A broker's URL without its password, for messages. The URL may be malformed."""
    begin, mark, rest = url.partition("://")
    login, at, server = rest.rpartition("@")
    if at and ":" in login:
        login = login.partition(":")[0] + ":***"
    return re.sub(r"([?&](?:ssl_)?password=)[^&]*", r"\1***", f"{begin}{mark}{login}{at}{server}")


def connect(url: str) -> redis.Redis:
    """A client for a broker's URL, in the spellings that Celery accepts: redis://, rediss://, redis+socket:///path, unix:///path.

    With rediss:// the server's certificate must match its host name and come from an authority that this host trusts, or from one in the
    file that ?ssl_ca_certs= names. `model.broker_tls` describes URLs with weaker checks.

    Raises:
        ConfigurationError: the URL has another scheme or an unknown value, or names a file that cannot be read.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in ("redis", "rediss") and not re.fullmatch(r"/?|/\d+", parts.path):
            raise ValueError("the path is no number of a database")  # redis-py would take the first, and kombu fail
        # A unix socket has no keep-alive.
        options: dict[str, Any] = {} if parts.scheme in ("redis+socket", "unix") else {"socket_keepalive": True}
        options["max_connections"] = _MAX_CONNECTIONS
        if parts.scheme == "redis+socket":
            query = parse_qs(parts.query)
            url = f"unix://{parts.path}?db={query.get('virtual_host', ['0'])[0]}"
        client = redis.Redis.from_url(
            with_certificate_checks(url), socket_timeout=15, socket_connect_timeout=5, retry=Retry(ConstantBackoff(0.1), 1), **options
        )
    except (ValueError, TypeError):
        # Their texts may quote a part of the password.
        raise ConfigurationError(
            f"broker {address(url)} is not an address of a Redis or Valkey", "for example redis://host:6379/0 or unix:///path/to/socket"
        ) from None
    for name in _FILES:
        path = client.connection_pool.connection_kwargs.get(name)
        if path and not os.access(path, os.R_OK):
            raise ConfigurationError(f"broker {address(url)}: {path} cannot be read", f"correct {name}, or the permissions of the file")
    return client


def server_run_id(client: redis.Redis) -> str:
    """The id of the server's run; "" if this user may not run INFO.

    A server that was killed restarts without its last writes: with `appendfsync everysec` up to two seconds of writes that it had confirmed
    (redis.io, persistence). So does a replica after a failover.

    Raises:
        redis.exceptions.RedisError: the server does not respond.
    """
    try:
        return str(client.info("server").get("run_id", ""))
    except redis.exceptions.NoPermissionError:  # INFO is in the ACL category @dangerous, which a careful operator does not allow
        return ""


@contextmanager
def broker_errors(client: redis.Redis) -> Iterator[None]:
    """Translate exceptions of redis-py inside the with-block into `BrokerError`."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        kwargs = client.connection_pool.connection_kwargs
        server = kwargs.get("path") or f"{kwargs.get('host')}:{kwargs.get('port')}"
        user = kwargs.get("username") or "default"
        raise _broker_error(error, f"broker at {server}", user, has_password=bool(kwargs.get("password"))) from error


def _broker_error(error: redis.exceptions.RedisError, broker: str, user: str, *, has_password: bool) -> BrokerError:
    """The `BrokerError` for an exception of redis-py. It contains no password; the server's messages contain none either."""
    message = _SCRIPT_CONTEXT.sub("", str(error))
    if isinstance(error, redis.exceptions.AuthenticationError):
        what = f"the password of user {user} is wrong" if has_password else "it wants a password"
        return BrokerRefused(f"{broker}: {what}", "correct user and password in the broker's URL (docs/operations.md)")
    if isinstance(error, redis.exceptions.NoPermissionError) or message.startswith(_REFUSED_IN_SCRIPT):
        message = message.removeprefix(_REFUSED_IN_SCRIPT)
        return BrokerRefused(f"{broker}: user {user} lacks a permission: {message}", "give it those that docs/operations.md lists")
    tls = _tls_error(error)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return BrokerRefused(
            f"{broker}: its certificate does not fit: {tls.verify_message}",
            "correct the host, or name the file of its authority with ?ssl_ca_certs= in the broker's URL",
        )
    if tls is not None and tls.reason in _NO_TLS:
        return BrokerRefused(f"{broker}: it does not speak TLS on this port", "correct the port, or write redis:// instead of rediss://")
    return BrokerError(f"{broker}: {message}")


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error that caused an exception; None if there was none."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None
