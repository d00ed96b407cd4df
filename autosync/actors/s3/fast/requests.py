"""Small objects: one signed request for each, with exactly the key that is meant.

The signature is Amazon's version 4 (docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html). boto3 makes the same one from
dictionaries and events, which takes longer than all the rest that a small file needs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from html import unescape
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape
from zlib import crc32

from ....errors import TargetError
from ..._clock import seconds_ahead
from ..._responses import PAGE_BYTES
from ..errors import NothingSent, answered, no_credentials, translated
from ..headers import ObjectHeaders
from .http import HttpConnectionPool, Paced, PendingRequest, Response

_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_ERROR = re.compile(r"<Error>(.*?)</Error>", re.DOTALL)
_KEY = re.compile(r"<Key>([^<]*)</Key>")
_OK, _NOT_FOUND = range(200, 300), 404
#: What stands behind the path of a request that deletes many.
_DELETE = "delete="
#: For how long a signed URL may be used, in seconds: as long as a part may take.
_URL_SECONDS = 3600
#: What every request says besides.
_OURSELVES = "accept-encoding:identity\r\nuser-agent:autosync\r\n"
#: What is always asked of a listing; names in the order in which they are signed.
_LISTING = {"encoding-type": "url", "list-type": "2"}


class Put(NamedTuple):
    """An object that is being sent."""

    key: str
    sent: PendingRequest


class Objects:
    """The objects of one bucket.

    Args:
        wire: connections to its server.
        base: the bucket's URL.
        region: that it is in.
        credentials: gives them, as they are then; None if there are none.
        where: the server, for people.
        checksums: whether the server knows checksums of objects, as Amazon's does; its buckets with locked objects insist on one.
    """

    def __init__(
        self,
        wire: HttpConnectionPool,
        base: str,
        region: str,
        credentials: Callable[[], Any] | None,
        where: str,
        *,
        checksums: bool = False,
    ) -> None:
        parts = urlsplit(base)
        self._wire = wire
        self._path = parts.path.rstrip("/")
        self._host = parts.netloc.rpartition("@")[2]
        self._region = region
        self._credentials = credentials
        self._where = where
        self._checksums = checksums

    def begin(self, key: str, content: bytes, said: ObjectHeaders, paced: Paced | None = None) -> Put:
        """Begin to make an object hold this content. Many may be begun before one is ended: that is as many at once, in one thread.

        Raises:
            TargetError: it cannot be sent.
        """
        with translated(key, self._where):
            head = self.head("PUT", key, content, said.content_type, time.time(), more=said.lines)
            return Put(key, self._wire.send(head, content, paced))

    def end(self, put: Put) -> None:
        """Wait until the object is there.

        Raises:
            TargetError: it is not.
        """
        with translated(put.key, self._where):
            answer = self._wire.answer(put.sent)
        self.insist(put.key, answer)

    def delete(self, key: str) -> None:
        """Make an object not be there.

        Raises:
            TargetError: it may be.
        """
        with translated(key, self._where):
            answer = self._wire.answer(self._wire.send(self.head("DELETE", key, b"", "", time.time())))
        if answer.status != _NOT_FOUND or "NoSuchKey" not in answer.text:
            self.insist(key, answer)

    def delete_many(self, keys: Sequence[str]) -> dict[str, TargetError]:
        """Make up to 1,000 objects not be there, with one request (DeleteObjects). XML cannot carry keys with control characters.

        Returns:
            What went wrong, by key.

        Raises:
            TargetError: with all of them.
        """
        rows = "".join([f"<Object><Key>{escape(key)}</Key></Object>" for key in keys])
        content = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>{rows}</Delete>'.encode()
        with translated(keys[0], self._where):
            head = self.head("POST", "", content, "application/xml", time.time(), query=_DELETE)
            answer = self._wire.answer(self._wire.send(head, content), PAGE_BYTES)
        self.insist(keys[0], answer)
        if "DeleteResult" not in answer.text:
            raise self.error(keys[0], answer)
        wrong = {}
        for told in _ERROR.findall(answer.text):
            key = _KEY.search(told)
            found = unescape(key[1]) if key else ""
            wrong[found] = self.error(found, Response(answer.status, told))
        return wrong

    def ask_for_page(self, prefix: str, token: str) -> PendingRequest:
        """Ask for a page of the listing (ListObjectsV2). Keys come as they stand in URLs, since XML cannot carry control characters.

        Args:
            prefix: of the keys.
            token: that the page before was followed by; "" for the first one.

        Raises:
            OSError: it cannot be sent.
        """
        said = {"continuation-token": token} if token else {}
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in {**said, **_LISTING, "prefix": prefix}.items())
        return self._wire.send(self.head("GET", "", b"", "", time.time(), query=query))

    def page(self, sent: PendingRequest, about: str) -> str:
        """The page that was asked for, as the server wrote it.

        Args:
            sent: the request.
            about: what is listed, for people.

        Raises:
            TargetError: the server gives none.
            OSError, http.client.HTTPException: it does not answer.
        """
        answer = self._wire.answer(sent, PAGE_BYTES)
        self.insist(about, answer)
        return answer.text

    def ask(self, method: str, key: str, *, query: str) -> Response:
        """Ask for something that does no harm if it is done twice; arguments as for `head`.

        Raises:
            TargetError: the server does not answer.
        """
        with translated(key, self._where):
            return self._wire.answer(self._wire.send(self.head(method, key, b"", "", time.time(), query=query)))

    def ask_once(
        self, method: str, key: str, content: bytes = b"", content_type: str = "", *, query: str, more: Sequence[str] = ()
    ) -> Response:
        """Ask for something that must not be done twice; arguments as for `head`.

        Raises:
            NothingSent: the server cannot be reached.
            TargetError: it does not answer.
        """
        with translated(key, self._where):
            head = self.head(method, key, content, content_type, time.time(), query=query, more=more)
            try:
                line = self._wire.connect()
            except OSError as error:
                raise NothingSent(f"{key} at {self._where}: {str(error) or type(error).__name__}") from error
            return self._wire.answer(self._wire.send_once(line, head, content))

    def stream(self, key: str, content: BinaryIO, size: int, query: Mapping[str, str]) -> Response:
        """Send content that is read meanwhile, with a request (PUT) that does not tell its checksum: it is signed as a URL, which is so
        without TLS too.

        Args:
            key: of the object.
            content: gives it.
            size: of the content, in bytes.
            query: what stands behind the path, besides the signature.

        Raises:
            TargetError: the server does not answer.
        """
        with translated(key, self._where):
            path = self._signed_path("PUT", key, query, time.time())
            head = f"PUT {path} HTTP/1.1\r\nhost:{self._host}\r\ncontent-length:{size}\r\n{_OURSELVES}\r\n"
            return self._wire.stream(head.encode(), content)

    def ask_the_time(self, about: str) -> tuple[float, float]:
        """Ask for a listing of one key.

        Args:
            about: what is listed, for people.

        Returns:
            The round trip, and by how much the server's clock is ahead, both in seconds.

        Raises:
            TargetError: the server does not give it.
        """
        with translated(about, self._where):
            before = time.time()
            sent = self._wire.send(self.head("GET", "", b"", "", before, query="list-type=2&max-keys=1"))
            answer = self._wire.answer(sent, PAGE_BYTES)  # a server may take no notice of the number
            after = time.time()
        self.insist(about, answer)
        return after - before, seconds_ahead(answer.date, before, after)

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def insist(self, key: str, answer: Response) -> None:
        """Go on only if the server has done what it was asked.

        Raises:
            TargetError: it has not.
        """
        if answer.status not in _OK:
            raise self.error(key, answer)

    def error(self, key: str, answer: Response) -> TargetError:
        """What an answer says that is wrong."""
        code, message = _CODE.search(answer.text), _MESSAGE.search(answer.text)
        return answered(key, code[1] if code else str(answer.status), message[1] if message else "", self._where)

    def head(
        self, method: str, key: str, content: bytes, content_type: str, now: float, *, query: str = "", more: Sequence[str] = ()
    ) -> bytes:
        """The head of a signed request, as bytes.

        Args:
            method: GET, PUT, DELETE or POST.
            key: of the object; "" is the bucket.
            content: its content.
            content_type: of the content; "" if there is none.
            now: seconds since the epoch.
            query: what stands behind the path, as it is signed.
            more: headers, with names in lower case.

        Raises:
            TargetRefused: there are no credentials.
        """
        who = self._who(key)
        path = f"{self._path}/{quote(key)}" if key else self._path or "/"
        digest = hashlib.sha256(content)
        told = digest.hexdigest()
        moment = _moment(int(now))
        # In the order of their names, as they are signed.
        fields = f"content-type:{content_type}\n" if content_type else ""
        fields += f"host:{self._host}\n"
        names = "content-type;host" if content_type else "host"
        if query == _DELETE or (method == "PUT" and self._checksums):
            fields += f"x-amz-checksum-crc32:{base64.b64encode(crc32(content).to_bytes(4, 'big')).decode()}\n"
            names += ";x-amz-checksum-crc32"
        fields += f"x-amz-content-sha256:{told}\nx-amz-date:{moment}\n"
        names += ";x-amz-content-sha256;x-amz-date"
        if who.token:
            fields += f"x-amz-security-token:{who.token}\n"
            names += ";x-amz-security-token"
        if more:
            rows = sorted([*fields.splitlines(), *more], key=lambda row: row.partition(":")[0])
            fields = "\n".join([*rows, ""])
            names = ";".join([row.partition(":")[0] for row in rows])
        scope = self._scope(moment)
        asked = hashlib.sha256(f"{method}\n{path}\n{query}\n{fields}\n{names}\n{told}".encode()).hexdigest()
        signature = self._signature(who.secret_key, moment, asked)
        lines = fields.replace("\n", "\r\n")
        if query == _DELETE:  # many servers insist on this checksum, which Amazon once asked for, and others on the newer one
            lines += f"content-md5:{base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()}\r\n"
        return (
            f"{method} {path}{query and '?'}{query} HTTP/1.1\r\n{lines}content-length:{len(content)}\r\n{_OURSELVES}"
            f"authorization:AWS4-HMAC-SHA256 Credential={who.access_key}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\r\n"
        ).encode()

    def _signed_path(self, method: str, key: str, query: Mapping[str, str], now: float) -> str:
        """Path and query of a URL that anybody may use for a while (sigv4-query-string-auth.html, beside the page that is named above)."""
        who = self._who(key)
        moment = _moment(int(now))
        told = {
            **query,
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{who.access_key}/{self._scope(moment)}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(_URL_SECONDS),
            "X-Amz-SignedHeaders": "host",
            **({"X-Amz-Security-Token": who.token} if who.token else {}),
        }
        path = f"{self._path}/{quote(key)}"
        written = "&".join(f"{name}={quote(told[name], safe='')}" for name in sorted(told))
        asked = hashlib.sha256(f"{method}\n{path}\n{written}\nhost:{self._host}\n\nhost\nUNSIGNED-PAYLOAD".encode()).hexdigest()
        return f"{path}?{written}&X-Amz-Signature={self._signature(who.secret_key, moment, asked)}"

    def _who(self, key: str) -> Any:
        """Whose credentials requests are signed with."""
        if self._credentials is None:
            raise no_credentials(key or "the bucket", self._where)
        return self._credentials()

    def _scope(self, moment: str) -> str:
        return f"{moment[:8]}/{self._region}/s3/aws4_request"

    def _signature(self, secret: str, moment: str, asked: str) -> str:
        signed = f"AWS4-HMAC-SHA256\n{moment}\n{self._scope(moment)}\n{asked}".encode()
        return hmac.digest(_signing_key(secret, moment[:8], self._region), signed, "sha256").hex()


@lru_cache(8)
def _moment(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


@lru_cache(8)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
