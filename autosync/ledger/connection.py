"""A connection to the broker, for everything that is not Celery's: its URL, and its errors as ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from ..errors import BrokerError, ConfigurationError

#: Which of our commands met with the error: redis-py and Valkey put it around what happened.
_ABOUT_US = re.compile(r"^Command # \d+ \(.*?\) of pipeline caused error: | script: .*$", re.DOTALL)


def address(url: str) -> str:
    """A broker's URL without its password, fit to be shown, whether or not it is a good URL."""
    begin, mark, rest = url.partition("://")
    login, at, where = rest.rpartition("@")
    if at and ":" in login:
        login = login.partition(":")[0] + ":***"
    return re.sub(r"([?&]password=)[^&]*", r"\1***", f"{begin}{mark}{login}{at}{where}")


def connect(url: str) -> redis.Redis:
    """A client for a broker's URL, in the spellings that Celery takes: redis://, rediss://, redis+socket:///path, unix:///path.

    Raises:
        ConfigurationError: the URL is none of these.
    """
    try:
        parts = urlsplit(url)
        # A unix socket has no keep-alive.
        options: dict[str, Any] = {} if parts.scheme in ("redis+socket", "unix") else {"socket_keepalive": True}
        if parts.scheme == "redis+socket":
            query = parse_qs(parts.query)
            url = f"unix://{parts.path}?db={query.get('virtual_host', ['0'])[0]}"
        return redis.Redis.from_url(url, socket_timeout=15, socket_connect_timeout=5, retry=Retry(ConstantBackoff(0.1), 1), **options)
    except (ValueError, TypeError):
        # Their texts may quote a part of the password.
        raise ConfigurationError(
            f"broker {address(url)} is not an address of a Redis or Valkey", "for example redis://host:6379/0 or unix:///path/to/socket"
        ) from None


@contextmanager
def broker_errors(client: redis.Redis) -> Iterator[None]:
    """Turn what redis-py raises inside the with-block into `BrokerError`."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        kwargs = client.connection_pool.connection_kwargs
        where = kwargs.get("path") or f"{kwargs.get('host')}:{kwargs.get('port')}"
        raise BrokerError(f"broker at {where}: {_ABOUT_US.sub('', str(error))}") from error
