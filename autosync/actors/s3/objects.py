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
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import unescape
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape
from zlib import crc32

import botocore.exceptions

from ...errors import TargetError
from .errors import answered, translated
from .wire import Answer, Paced, Sent, Wire

_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_ERROR = re.compile(r"<Error>(.*?)</Error>", re.DOTALL)
_KEY = re.compile(r"<Key>([^<]*)</Key>")
_OK, _NOT_FOUND = range(200, 300), 404
#: What is always asked of a listing; names in the order in which they are signed.
_LISTING = {"encoding-type": "url", "list-type": "2"}


class Put(NamedTuple):
    """An object that is being sent."""

    key: str
    sent: Sent


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
        self, wire: Wire, base: str, region: str, credentials: Callable[[], Any] | None, where: str, *, checksums: bool = False
    ) -> None:
        parts = urlsplit(base)
        self._wire = wire
        self._path = parts.path.rstrip("/")
        self._host = parts.netloc.rpartition("@")[2]
        self._region = region
        self._credentials = credentials
        self._where = where
        self._checksums = checksums

    def begin(self, key: str, content: bytes, content_type: str, paced: Paced | None = None) -> Put:
        """Begin to make an object hold this content. Many may be begun before one is ended: that is as many at once, in one thread.

        Raises:
            TargetError: it cannot be sent.
        """
        with translated(key, self._where):
            return Put(key, self._wire.send(self.head("PUT", key, content, content_type, time.time()), content, paced))

    def end(self, put: Put) -> None:
        """Wait until the object is there.

        Raises:
            TargetError: it is not.
        """
        with translated(put.key, self._where):
            answer = self._wire.answer(put.sent)
        self._insist(put.key, answer)

    def delete(self, key: str) -> None:
        """Make an object not be there.

        Raises:
            TargetError: it may be.
        """
        with translated(key, self._where):
            answer = self._wire.answer(self._wire.send(self.head("DELETE", key, b"", "", time.time())))
        if answer.status != _NOT_FOUND or "NoSuchKey" not in answer.text:
            self._insist(key, answer)

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
            head = self.head("POST", "", content, "application/xml", time.time(), query="delete=")
            answer = self._wire.answer(self._wire.send(head, content))
        self._insist(keys[0], answer)
        if "DeleteResult" not in answer.text:
            raise self._error(keys[0], answer)
        wrong = {}
        for told in _ERROR.findall(answer.text):
            key = _KEY.search(told)
            found = unescape(key[1]) if key else ""
            wrong[found] = self._error(found, Answer(answer.status, told))
        return wrong

    def ask_for_page(self, prefix: str, token: str) -> Sent:
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

    def page(self, sent: Sent, about: str) -> str:
        """The page that was asked for, as the server wrote it.

        Args:
            sent: the request.
            about: what is listed, for people.

        Raises:
            TargetError: the server gives none.
            OSError, http.client.HTTPException: it does not answer.
        """
        answer = self._wire.answer(sent)
        self._insist(about, answer)
        return answer.text

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def _insist(self, key: str, answer: Answer) -> None:
        if answer.status not in _OK:
            raise self._error(key, answer)

    def _error(self, key: str, answer: Answer) -> TargetError:
        code, message = _CODE.search(answer.text), _MESSAGE.search(answer.text)
        return answered(key, code[1] if code else str(answer.status), message[1] if message else "", self._where)

    def head(self, method: str, key: str, content: bytes, content_type: str, now: float, *, query: str = "") -> bytes:
        """The head of a signed request, as bytes.

        Args:
            method: GET, PUT, DELETE or POST.
            key: of the object; "" is the bucket.
            content: its content.
            content_type: of the content; "" if there is none.
            now: seconds since the epoch.
            query: what stands behind the path, as it is signed.

        Raises:
            botocore.exceptions.NoCredentialsError: there are none.
        """
        if self._credentials is None:
            raise botocore.exceptions.NoCredentialsError
        who = self._credentials()
        path = f"{self._path}/{quote(key)}" if key else self._path or "/"
        digest = hashlib.sha256(content)
        told = digest.hexdigest()
        moment = _moment(int(now))
        # In the order of their names, as they are signed.
        fields = f"content-type:{content_type}\n" if content_type else ""
        fields += f"host:{self._host}\n"
        names = "content-type;host" if content_type else "host"
        if method == "POST" or (content_type and self._checksums):
            fields += f"x-amz-checksum-crc32:{base64.b64encode(crc32(content).to_bytes(4, 'big')).decode()}\n"
            names += ";x-amz-checksum-crc32"
        fields += f"x-amz-content-sha256:{told}\nx-amz-date:{moment}\n"
        names += ";x-amz-content-sha256;x-amz-date"
        if who.token:
            fields += f"x-amz-security-token:{who.token}\n"
            names += ";x-amz-security-token"
        scope = f"{moment[:8]}/{self._region}/s3/aws4_request"
        asked = hashlib.sha256(f"{method}\n{path}\n{query}\n{fields}\n{names}\n{told}".encode()).hexdigest()
        signed = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{asked}".encode()
        signature = hmac.digest(_signing_key(who.secret_key, moment[:8], self._region), signed, "sha256").hex()
        lines = fields.replace("\n", "\r\n")
        if method == "POST":  # many servers insist on this checksum, which Amazon once asked for, and others on the newer one
            lines += f"content-md5:{base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()}\r\n"
        return (
            f"{method} {path}{query and '?'}{query} HTTP/1.1\r\n{lines}content-length:{len(content)}\r\nuser-agent:autosync\r\n"
            f"authorization:AWS4-HMAC-SHA256 Credential={who.access_key}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\r\n"
        ).encode()


@lru_cache(8)
def _moment(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


@lru_cache(8)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
