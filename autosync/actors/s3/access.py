"""How a bucket is reached, as boto3 has decided it, in a form that one process can tell another.

boto3 takes longer to load than a small task to be carried out. So it is loaded where something is to be decided, beside other work, and
what came of it is handed on; a process that is told needs boto3 only for what is rare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from .fast.http import CONNECT_SECONDS, READ_SECONDS, HttpConnectionPool
from .fast.requests import Objects


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

    def objects(self, where: str, *, checksums: bool) -> Objects | None:
        """The quick way to small objects; None where a proxy stands in between.

        Args:
            where: the server, for people.
            checksums: whether it knows checksums of objects.

        Raises:
            OSError: the certificates that are to be trusted cannot be read.
        """
        if self.by_proxy:
            return None
        wire = HttpConnectionPool(self.address, cert_path=self.trusted, connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS)
        return Objects(wire, self.address, self.region, self.credentials, where, checksums=checksums)

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
