"""Amazon's signature, version 4, of requests to one bucket.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, and sigv4-query-string-auth.html beside it. boto3 makes the
same signature from dictionaries and events, which takes longer than everything else that a small file needs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit
from zlib import crc32

from ..._content import content_md5
from ..errors import no_credentials
from .proxy import Proxy, authority

#: Query of a request that deletes many objects.
DELETE_QUERY = "delete="
#: How long a signed URL is valid, in seconds: as long as the sending of a part may last.
_URL_SECONDS = 3600
#: Headers of every request that are not signed.
_UNSIGNED = "accept-encoding:identity\r\nuser-agent:autosync\r\n"


class RequestSigner:
    """Makes the signed heads of requests.

    Args:
        base: URL of the bucket.
        region: the bucket's region.
        credentials: returns the current ones, named as botocore names them; None if there are none.
        server: name of the server in error messages.
        checksums: whether PUT requests carry a CRC32, as Amazon requires for buckets with object lock; other servers may not support it.
        proxy: that forwards the requests; None for none.
    """

    def __init__(
        self, base: str, region: str, credentials: Callable[[], Any] | None, server: str, *, checksums: bool = False,
        proxy: Proxy | None = None,
    ) -> None:  # fmt: skip
        parts = urlsplit(base)
        self._path = parts.path.rstrip("/")
        self._host = _host_of(parts)
        #: In front of the path, and beside the headers, for a proxy that forwards the requests.
        self._origin, self._unsigned = "", _UNSIGNED
        if proxy is not None:
            self._origin, self._unsigned = f"http://{self._host}", _UNSIGNED + proxy.authorization
        self._region = region
        self._credentials = credentials
        self._server = server
        self._checksums = checksums

    def signed_head(
        self, method: str, key: str, content: bytes, content_type: str, now: float, *, query: str = "", headers: Sequence[str] = ()
    ) -> bytes:
        """The head of a request, signed in its headers.

        Args:
            method: GET, PUT, DELETE or POST.
            key: the object's key; "" for the bucket.
            content: the body.
            content_type: the media type of the body; "" for none.
            now: seconds since the epoch.
            query: the query of the URL, in canonical form.
            headers: further ones, as "name:value" with the name in lower case.

        Returns:
            Request line and headers, with the empty line at the end.

        Raises:
            TargetRefused: there are no credentials.
        """
        credentials = self._current_credentials(key)
        path = f"{self._path}/{quote(key)}" if key else self._path or "/"
        payload_hash = hashlib.sha256(content).hexdigest()
        timestamp = _timestamp(int(now))
        # Headers are signed in the order of their names.
        fields = f"content-type:{content_type}\n" if content_type else ""
        fields += f"host:{self._host}\n"
        names = "content-type;host" if content_type else "host"
        if query == DELETE_QUERY or (method == "PUT" and self._checksums):
            fields += f"x-amz-checksum-crc32:{base64.b64encode(crc32(content).to_bytes(4, 'big')).decode()}\n"
            names += ";x-amz-checksum-crc32"
        fields += f"x-amz-content-sha256:{payload_hash}\nx-amz-date:{timestamp}\n"
        names += ";x-amz-content-sha256;x-amz-date"
        if credentials.token:
            fields += f"x-amz-security-token:{credentials.token}\n"
            names += ";x-amz-security-token"
        if headers:
            rows = sorted([*fields.splitlines(), *headers], key=lambda row: row.partition(":")[0])
            fields = "\n".join([*rows, ""])
            names = ";".join([row.partition(":")[0] for row in rows])
        request_hash = hashlib.sha256(f"{method}\n{path}\n{query}\n{fields}\n{names}\n{payload_hash}".encode()).hexdigest()
        signature = self._signature(credentials.secret_key, timestamp, request_hash)
        lines = fields.replace("\n", "\r\n")
        if query == DELETE_QUERY:  # many servers require the MD5, as Amazon once did, and others the newer checksum
            lines += f"content-md5:{content_md5(content)}\r\n"
        return (
            f"{method} {self._origin}{path}{query and '?'}{query} HTTP/1.1\r\n{lines}content-length:{len(content)}\r\n{self._unsigned}"
            f"authorization:AWS4-HMAC-SHA256 Credential={credentials.access_key}/{self._scope(timestamp)}, "
            f"SignedHeaders={names}, Signature={signature}\r\n\r\n"
        ).encode()

    def presigned_head(self, method: str, key: str, size: int, query: Mapping[str, str], now: float) -> bytes:
        """The head of a request that is signed in its URL, so that the body need not be read before it is sent.

        Args:
            method: PUT.
            key: the object's key.
            size: the size of the body in bytes.
            query: the query of the URL, besides the signature.
            now: seconds since the epoch.

        Returns:
            Request line and headers, with the empty line at the end.

        Raises:
            TargetRefused: there are no credentials.
        """
        path = self._presigned_path(method, key, query, now)
        first = f"{method} {self._origin}{path} HTTP/1.1"
        return f"{first}\r\nhost:{self._host}\r\ncontent-length:{size}\r\n{self._unsigned}\r\n".encode()

    def _presigned_path(self, method: str, key: str, query: Mapping[str, str], now: float) -> str:
        credentials = self._current_credentials(key)
        timestamp = _timestamp(int(now))
        parameters = {
            **query,
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{credentials.access_key}/{self._scope(timestamp)}",
            "X-Amz-Date": timestamp,
            "X-Amz-Expires": str(_URL_SECONDS),
            "X-Amz-SignedHeaders": "host",
            **({"X-Amz-Security-Token": credentials.token} if credentials.token else {}),
        }
        path = f"{self._path}/{quote(key)}"
        canonical = "&".join(f"{name}={quote(parameters[name], safe='')}" for name in sorted(parameters))
        request = f"{method}\n{path}\n{canonical}\nhost:{self._host}\n\nhost\nUNSIGNED-PAYLOAD"
        signature = self._signature(credentials.secret_key, timestamp, hashlib.sha256(request.encode()).hexdigest())
        return f"{path}?{canonical}&X-Amz-Signature={signature}"

    def _current_credentials(self, key: str) -> Any:
        if self._credentials is None:
            raise no_credentials(key or "the bucket", self._server)
        return self._credentials()

    def _scope(self, timestamp: str) -> str:
        return f"{timestamp[:8]}/{self._region}/s3/aws4_request"

    def _signature(self, secret: str, timestamp: str, request_hash: str) -> str:
        signed = f"AWS4-HMAC-SHA256\n{timestamp}\n{self._scope(timestamp)}\n{request_hash}".encode()
        return hmac.digest(_signing_key(secret, timestamp[:8], self._region), signed, "sha256").hex()


def _host_of(url: SplitResult) -> str:
    """The header Host, as it is signed. It has no port that the scheme implies: a proxy may remove that."""
    implied = {"http": 80, "https": 443}[url.scheme]
    return authority(str(url.hostname), None if url.port == implied else url.port)


@lru_cache(8)
def _timestamp(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


@lru_cache(8)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
