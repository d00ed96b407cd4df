"""A connection to the broker, for everything that is not Celery's: its URL, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from ..errors import BrokerError, ConfigurationError


def address(url: str) -> str:
    """A broker's URL without its password, fit to be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{parts.hostname}:{parts.port or 6379}"))


def connect(url: str) -> redis.Redis:
    """A client for a broker's URL, in the spellings that Celery takes: redis://, rediss://, redis+socket:///path, unix:///path.

    Raises:
        ConfigurationError: the URL is none of these.
    """
    parts = urlsplit(url)
    # A unix socket has no keep-alive.
    options: dict[str, Any] = {} if "socket" in parts.scheme or parts.scheme == "unix" else {"socket_keepalive": True}
    if parts.scheme == "redis+socket":
        query = parse_qs(parts.query)
        url = f"unix://{parts.path}?db={query.get('virtual_host', ['0'])[0]}"
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=15,
            socket_connect_timeout=5,
            retry=Retry(ConstantBackoff(0.1), 1),
            **options,
        )
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"broker {address(url)}: {error}", "for example redis://host:6379/0") from error


@contextmanager
def broker_errors(client: redis.Redis) -> Iterator[None]:
    """Turn what redis-py raises inside the with-block into `BrokerError`."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        kwargs = client.connection_pool.connection_kwargs
        where = kwargs.get("path") or f"{kwargs.get('host')}:{kwargs.get('port')}"
        raise BrokerError(f"broker at {where}: {error}") from error
