"""Signatures with the key of a storage account.

https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from email.utils import formatdate
from urllib.parse import urlsplit

from ...errors import TargetRefused

#: The headers whose values are signed in this order; Date is not sent, x-ms-date is.
_SIGNED = (
    "Content-Encoding", "Content-Language", "Content-Length", "Content-MD5", "Content-Type", "Date", "If-Modified-Since", "If-Match",
    "If-None-Match", "If-Unmodified-Since", "Range",
)  # fmt: skip


class SharedKey:
    """Authorizes requests with the key of an account.

    Args:
        account: the account's name.
        key: the account's key, in base64.
        base_url: the URL of the blob service; its path is signed too.
        cure: what to do about a key that cannot be used.
    """

    secret_query = secret = ""

    def __init__(self, account: str, key: str, base_url: str, cure: str) -> None:
        self._account = account
        self._base_url = base_url
        self._path = urlsplit(base_url).path
        self._cure = cure
        try:
            self._key = base64.b64decode(key.strip(), validate=True)
        except (binascii.Error, ValueError):
            self._key = b""

    def authorize(self, method: str, path: str, query: Mapping[str, str], headers: dict[str, str]) -> None:
        """Add x-ms-date and Authorization; see `Credentials`."""
        if not self._key:
            raise TargetRefused(f"{self._base_url}: the credentials cannot be used (the account key is not base64)", self._cure)
        headers["x-ms-date"] = formatdate(usegmt=True)
        text = string_to_sign(method, f"/{self._account}{self._path}{path}", query, headers)
        signature = base64.b64encode(hmac.digest(self._key, text.encode(), hashlib.sha256)).decode()
        headers["Authorization"] = f"SharedKey {self._account}:{signature}"

    def close(self) -> None:
        """Do nothing; there are no connections."""


def string_to_sign(method: str, resource: str, query: Mapping[str, str], headers: dict[str, str]) -> str:
    """The text that is signed.

    Args:
        method: the HTTP method.
        resource: a slash, the account, and the path of the URL.
        query: names and values, not encoded.
        headers: the request's headers, their names written as in `_SIGNED` or in small letters.
    """
    values = [headers.get(name, "") for name in _SIGNED]
    if values[2] == "0":
        values[2] = ""  # since version 2015-02-21
    ours = sorted((name.lower(), value.strip()) for name, value in headers.items() if name.lower().startswith("x-ms-"))
    parameters = sorted((name.lower(), value) for name, value in query.items())
    lines = [method, *values, *(f"{name}:{value}" for name, value in ours), resource, *(f"{name}:{value}" for name, value in parameters)]
    return "\n".join(lines)
