"""How a bucket is reached, as boto3 has decided it, in a form that one process can tell another.

boto3 takes longer to load than a small task to be carried out. So it is loaded where something is to be decided, beside other work, and
what came of it is handed on; a process that is told needs boto3 only for what is rare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from .fast.http import CONNECT_SECONDS, READ_SECONDS, HttpConnectionPool
from .fast.requests import ObjectRequests
from .fast.sigv4 import RequestSigner


class Credentials(NamedTuple):
    """What a request is signed with; named as botocore names them."""

    access_key: str
    secret_key: str
    token: str | None


@dataclass(frozen=True)
class Access:
    """The way to one bucket.

    Args:
        address: the URL in front of every key.
        region: that it is in.
        trusted: the file or directory with the certificates to trust.
        by_proxy: whether a proxy stands between.
        credentials: gives them, as they are then; None if there are none.
        lasting: whether they stay what they are; others are boto3's business, which gets new ones in time.
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

    def told(self) -> tuple[Any, ...] | None:
        """In Python's plain types, for `heard`; None where another process has to ask boto3 itself."""
        if self.by_proxy or not self.lasting or self.credentials is None:
            return None
        who = self.credentials()
        return self.address, self.region, self.trusted, who.access_key, who.secret_key, who.token

    @classmethod
    def heard(cls, told: tuple[Any, ...]) -> Self:
        """What another process has told."""
        address, region, trusted, *who = told
        credentials = Credentials(*who)
        return cls(address, region, trusted, by_proxy=False, credentials=lambda: credentials, lasting=True)
