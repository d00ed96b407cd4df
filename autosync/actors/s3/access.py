"""How a bucket is reached: URL, region, certificates, credentials. boto3 decides on them, and one process can pass them to another.

Loading boto3 takes longer than a small task. So one process loads it, beside other work, and passes its decisions on; the others need boto3
only for rare requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from .fast.http import CONNECT_SECONDS, READ_SECONDS, HttpConnectionPool
from .fast.requests import ObjectRequests
from .fast.sigv4 import RequestSigner


class Credentials(NamedTuple):
    """Credentials that do not expire; named as botocore names them."""

    access_key: str
    secret_key: str
    token: str | None


@dataclass(frozen=True)
class Access:
    """How one bucket is reached.

    Args:
        address: URL of the bucket.
        region: of the bucket.
        trusted: file or directory with the certificates to trust; None for the system's.
        by_proxy: whether requests go through a proxy.
        credentials: returns the current ones; None if there are none.
        lasting: whether the credentials never expire; boto3 renews others in time.
    """

    address: str
    region: str
    trusted: str | None
    by_proxy: bool
    credentials: Callable[[], Any] | None
    lasting: bool

    def objects(self, server: str, *, checksums: bool) -> ObjectRequests | None:
        """The own client of the bucket; None behind a proxy, which it does not support.

        Args:
            server: name of the server in error messages.
            checksums: see `RequestSigner`.

        Raises:
            OSError: the certificates to trust cannot be read.
        """
        if self.by_proxy:
            return None
        pool = HttpConnectionPool(self.address, cert_path=self.trusted, connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS)
        signer = RequestSigner(self.address, self.region, self.credentials, server, checksums=checksums)
        return ObjectRequests(pool, signer, server)

    def as_tuple(self) -> tuple[Any, ...] | None:
        """The values as plain types, for `from_tuple`; None if another process has to load boto3 itself."""
        if self.by_proxy or not self.lasting or self.credentials is None:
            return None
        current = self.credentials()
        return self.address, self.region, self.trusted, current.access_key, current.secret_key, current.token

    @classmethod
    def from_tuple(cls, values: tuple[Any, ...]) -> Self:
        """The access that another process made a tuple of."""
        address, region, trusted, *keys = values
        credentials = Credentials(*keys)
        return cls(address, region, trusted, by_proxy=False, credentials=lambda: credentials, lasting=True)
