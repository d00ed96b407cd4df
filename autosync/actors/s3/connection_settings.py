"""How a bucket is reached: URL, region, certificates, proxy, credentials. boto3 decides on them, and one process can pass them to another.

Loading boto3 takes longer than a small task. So one process loads it, beside other work, and passes its decisions on; the others need boto3
only for rare requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from .own_client.http import CONNECT_SECONDS, READ_SECONDS, HttpConnectionPool
from .own_client.proxy import Proxy
from .own_client.requests import ObjectRequests
from .own_client.sigv4 import RequestSigner


class Credentials(NamedTuple):
    """Credentials that do not expire; named as botocore names them."""

    access_key: str
    secret_key: str
    token: str | None


@dataclass(frozen=True)
class ConnectionSettings:
    """How one bucket is reached.

    Args:
        address: URL of the bucket.
        region: the bucket's region.
        trusted: file or directory with the certificates to trust; None for the system's.
        proxy: URL of the proxy through which requests go, which may contain a password; None for none.
        credentials: returns the current ones; None if there are none.
        lasting: whether the credentials never expire; boto3 renews others in time.
    """

    address: str
    region: str
    trusted: str | None
    proxy: str | None = field(repr=False)
    credentials: Callable[[], Any] | None
    lasting: bool

    def objects(self, server: str, *, checksums: bool) -> ObjectRequests:
        """The own client of the bucket.

        Args:
            server: name of the server in error messages.
            checksums: see `RequestSigner`.

        Raises:
            OSError: the certificates to trust cannot be read, or the proxy cannot be used (`ProxyRefused`).
        """
        proxy = Proxy.from_url(self.proxy) if self.proxy else None
        pool = HttpConnectionPool(
            self.address, cert_path=self.trusted, connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS, proxy=proxy
        )
        forwarding = proxy if self.address.startswith("http:") else None
        signer = RequestSigner(self.address, self.region, self.credentials, server, checksums=checksums, proxy=forwarding)
        return ObjectRequests(pool, signer, server, forwarding)

    def as_tuple(self) -> tuple[Any, ...] | None:
        """The values as plain types, for `from_tuple`; None if another process has to load boto3 itself."""
        if not self.lasting or self.credentials is None:
            return None
        current = self.credentials()
        return self.address, self.region, self.trusted, self.proxy, current.access_key, current.secret_key, current.token

    @classmethod
    def from_tuple(cls, values: tuple[Any, ...]) -> Self:
        """The access that another process made a tuple of."""
        address, region, trusted, proxy, *keys = values
        credentials = Credentials(*keys)
        return cls(address, region, trusted, proxy, credentials=lambda: credentials, lasting=True)
