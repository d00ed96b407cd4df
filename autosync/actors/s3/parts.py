"""Large files go up in parts, each through a URL that boto3 signs; an upload is completed only when what was sent is one version.

Every upload that may be open in the bucket is noted before: first the intention to begin one, since the answer that tells its UploadId may
never arrive, then the UploadId. Whoever comes after a killed worker ends just those.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import botocore.exceptions
import requests
from requests.adapters import HTTPAdapter

from ...errors import PermanentError, SlowDown, TargetError, Torn
from ...reading import SourceFile
from .errors import answered, translated

#: Size of the parts; S3 allows 10,000 of them, so very large files have larger ones.
PART = 8 << 20
_MOST_PARTS = 10_000
#: Parts of one file in flight.
_PARTS_AT_ONCE = 4
#: Each part has tries of its own, with doubling delays from this one on, in seconds: if one failure cost the whole file, a file of a
#: thousand parts would never arrive at a server that fails now and then.
_PART_TRIES, _PART_DELAY = 5, 0.25
#: How often what changed in a file that never rests is sent once more before the whole is given up.
_ROUNDS = 5
CONNECT_SECONDS, READ_SECONDS = 5, 60

#: How the note of an intention begins; behind it stands when, in seconds since the epoch.
_INTENTION = "begins "
#: An upload that was meant to begin did so between these, in seconds from then: clocks differ a little, and boto3 asks twice.
_EARLIEST, _LATEST = -2.0, 2.0 * (CONNECT_SECONDS + READ_SECONDS) + 5.0
#: With these, nothing has reached the server.
_NOT_SENT = (botocore.exceptions.EndpointConnectionError, botocore.exceptions.ConnectTimeoutError)

#: Content is read and given to the socket in so many bytes; 16 KiB, as urllib3 does unasked, cost three times the CPU.
_BLOCK = 256 << 10

Piece = tuple[int, int]


def pieces_of(size: int) -> Iterator[Piece]:
    """Offset and length of the parts of a file of this size."""
    most = -(-size // _MOST_PARTS)
    step = max(PART, -(-most // (1 << 20)) << 20)
    for offset in range(0, size, step):
        yield offset, min(step, size - offset)


def seconds_ahead(said: Any, before: float, after: float) -> float:
    """By how much a server's clock is ahead, in seconds, by the Date of an answer of its. RFC 9110, 6.6.1: one without a clock gives none.

    Args:
        said: the answer, as boto3 gives it.
        before: when it was asked for, in seconds since the epoch.
        after: when it was there.
    """
    with suppress(ValueError):
        date = parsedate_to_datetime(said["ResponseMetadata"]["HTTPHeaders"].get("date", "")).replace(tzinfo=UTC)
        return date.timestamp() + 0.5 - (before + after) / 2  # it is told in whole seconds
    return 0.0


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, blocksize=_BLOCK)


class PartsUpload:
    """Uploads in parts to one bucket.

    Args:
        client: boto3's for S3.
        bucket: its name.
        where: the server, for people.
    """

    def __init__(self, client: Any, bucket: str, where: str) -> None:
        self._client = client
        self._bucket = bucket
        self._where = where
        self._http = requests.Session()
        self._http.auth = lambda request: request  # the URLs are signed; what ~/.netrc has for the server would be sent beside that
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, _Adapter(pool_connections=4, pool_maxsize=64))

    def send(self, file: SourceFile, content_type: str) -> None:
        """Send one file.

        Raises:
            TargetError: the target did not take it.
            Torn: it changed.
        """
        token = self._begin(file, content_type)
        upload = {"Bucket": self._bucket, "Key": file.key, "UploadId": token}
        try:
            etags = self._send_one_version(file, upload)
            parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
            with translated(file.key, self._where):
                file.ask()
                self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            self._give_up(file, token)
            raise
        file.ended(token)

    def abandon(self, key: str, token: str) -> None:
        """See `Actor.abandon`. The token is an UploadId, or an intention: then what was begun since then with exactly this key is ended."""
        if token.startswith(_INTENTION):
            for found in self._begun_about(key, float(token.removeprefix(_INTENTION))):
                self._abort(key, found)
        else:
            self._abort(key, token)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # The whole

    def _begin(self, file: SourceFile, content_type: str) -> str:
        intention = f"{_INTENTION}{time.time():.3f}"
        file.begun(intention)
        try:
            with translated(file.key, self._where):
                said = self._client.create_multipart_upload(Bucket=self._bucket, Key=file.key, ContentType=content_type)
        except TargetError as error:
            if isinstance(error, PermanentError | SlowDown) or isinstance(error.__cause__, _NOT_SENT):
                file.ended(intention)
            raise
        token: str = said["UploadId"]
        try:
            # If boto3 asked twice, there may be two: the intention stays noted for the next transfer of this key.
            file.begun(token, "" if said["ResponseMetadata"].get("RetryAttempts") else intention)
        except BaseException:
            self._give_up(file, token)
            raise
        return token

    def _give_up(self, file: SourceFile, token: str) -> None:
        with suppress(Exception):  # what counts is the first error; what stays open is abandoned with the next try
            self._abort(file.key, token)
            file.ended(token)

    def _abort(self, key: str, upload: str) -> None:
        with translated(key, self._where), suppress(self._client.exceptions.NoSuchUpload):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)

    def _begun_about(self, key: str, when: float) -> Iterator[str]:
        """The uploads of exactly this key that were begun at that time by this host's clock."""
        with translated(key, self._where):
            before = time.time()
            for page in self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=key):
                after = time.time()
                ahead, unsure = seconds_ahead(page, before, after), (after - before) / 2
                for found in page.get("Uploads", ()):
                    late = found["Initiated"].timestamp() - ahead - when
                    if found["Key"] == key and _EARLIEST - unsure <= late <= _LATEST + unsure:
                        yield found["UploadId"]
                before = time.time()

    # The parts

    def _send_one_version(self, file: SourceFile, upload: dict[str, Any]) -> dict[int, str]:
        """Send all parts, and those again that a file which never rests has changed meanwhile. Returns the ETags by part number."""
        numbers = {piece: number for number, piece in enumerate(pieces_of(file.size), 1)}
        etags = self._send_parts(file, upload, numbers, numbers)
        for rounds_left in range(_ROUNDS, -1, -1):
            try:
                file.verify()
                break
            except Torn as torn:
                if not torn.pieces or not rounds_left:
                    raise
                etags |= self._send_parts(file, upload, numbers, torn.pieces)
        return etags

    def _send_parts(self, file: SourceFile, upload: dict[str, Any], numbers: dict[Piece, int], pieces: Iterable[Piece]) -> dict[int, str]:
        etags: dict[int, str] = {}
        with ThreadPoolExecutor(file.at_once(_PARTS_AT_ONCE), "autosync-part") as pool:
            waiting = {pool.submit(self._send_part, file, upload, numbers[piece], piece): numbers[piece] for piece in pieces}
            try:
                for sent in as_completed(waiting):
                    etags[waiting[sent]] = sent.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return etags

    def _send_part(self, file: SourceFile, upload: dict[str, Any], number: int, piece: Piece) -> str:
        for tries in range(_PART_TRIES - 1):
            try:
                return self._try_part(file, upload, number, piece)
            except PermanentError:
                raise
            except TargetError as error:
                if isinstance(error, SlowDown):
                    file.refused()
                time.sleep(_PART_DELAY * 2**tries)
                # The upload is completed with the ETag of the try that was answered, so another one that the server kept is no danger.
                file.forget(*piece)
        return self._try_part(file, upload, number, piece)

    def _try_part(self, file: SourceFile, upload: dict[str, Any], number: int, piece: Piece) -> str:
        with translated(file.key, self._where):
            url = self._client.generate_presigned_url("upload_part", Params=upload | {"PartNumber": number})
            file.ask()
            content = file.part(*piece)
            answer = self._http.put(url, data=content, timeout=(CONNECT_SECONDS, READ_SECONDS), headers={"Content-Length": str(piece[1])})
            if answer.status_code != requests.codes.ok:
                code = re.search(r"<Code>(\w+)</Code>", answer.text)
                raise answered(file.key, code[1] if code else str(answer.status_code), answer.reason, self._where)
            return answer.headers["ETag"]
