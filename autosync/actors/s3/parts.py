"""Large files go up in parts; an upload is completed only when what was sent is one version.

Every upload that may be open in the bucket is noted before: first the intention to begin one, since the answer that tells its UploadId may
never arrive, then the UploadId. Whoever comes after a killed worker ends just those.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import BinaryIO, NamedTuple, Protocol

from ...errors import PermanentError, SlowDown
from ...source.source_file import SourceFile
from .._parts import send_one_version, tried
from .errors import NothingSent
from .fast.http import CONNECT_SECONDS, READ_SECONDS
from .fast.pieces import pieces_of
from .headers import ObjectHeaders

#: How the note of an intention begins; behind it stands when, in seconds since the epoch.
_INTENTION = "begins "
#: An upload that was meant to begin did so between these, in seconds from then: clocks differ a little, and boto3 asks twice.
_EARLIEST, _LATEST = -2.0, 2.0 * (CONNECT_SECONDS + READ_SECONDS) + 5.0


class Begun(NamedTuple):
    """An upload that is open: its UploadId, and when it was begun by this host's clock, which may be off by so much, in seconds."""

    upload: str
    when: float
    unsure: float


class Requests(Protocol):
    """What is asked of the server. Everything raises `TargetError` if it does not do it."""

    def begin(self, key: str, said: ObjectHeaders) -> tuple[str, bool]:
        """Begin an upload. Returns its UploadId, and whether there may be another one. Raises `NothingSent` if there is none for sure."""

    def send(self, key: str, upload: str, number: int, content: BinaryIO, size: int) -> str:
        """Send a part. Returns its ETag."""

    def complete(self, key: str, upload: str, etags: Mapping[int, str]) -> None:
        """Make an object of the parts, given by number."""

    def abort(self, key: str, upload: str) -> None:
        """End an upload; that there is none is no error."""

    def begun(self, key: str) -> Iterator[Begun]:
        """The uploads of exactly this key that are open."""

    def close(self) -> None:
        """Close the connections."""


class PartsUpload:
    """Uploads in parts to one bucket.

    Args:
        requests: what is asked of its server.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def send(self, file: SourceFile, said: ObjectHeaders) -> None:
        """Send one file.

        Raises:
            TargetError: the target did not take it.
            FileChanged: it changed.
        """
        token = self._begin(file, said)
        try:
            etags = send_one_version(file, pieces_of(file.size), partial(self._requests.send, file.key, token))
            tried(file, lambda: self._complete(file, token, etags))
        except BaseException:
            self._give_up(file, token)
            raise
        file.ended(token)

    def abandon(self, key: str, token: str) -> None:
        """See `Actor.abandon`. The token is an UploadId, or an intention: then what was begun since then with exactly this key is ended."""
        if token.startswith(_INTENTION):
            for found in self._begun_about(key, float(token.removeprefix(_INTENTION))):
                self._requests.abort(key, found)
        else:
            self._requests.abort(key, token)

    def close(self) -> None:
        """Close the connections."""
        self._requests.close()

    # The whole

    def _begin(self, file: SourceFile, said: ObjectHeaders) -> str:
        intention = f"{_INTENTION}{time.time():.3f}"
        file.begun(intention)
        try:
            token, is_unsure = self._requests.begin(file.key, said)
        except (PermanentError, SlowDown, NothingSent):
            file.ended(intention)
            raise
        try:
            # If there may be two, the intention stays noted for the next transfer of this key.
            file.begun(token, "" if is_unsure else intention)
        except BaseException:
            self._give_up(file, token)
            raise
        return token

    def _complete(self, file: SourceFile, upload: str, etags: Mapping[int, str]) -> None:
        file.ask()
        self._requests.complete(file.key, upload, etags)

    def _give_up(self, file: SourceFile, token: str) -> None:
        with suppress(Exception):  # what counts is the first error; what stays open is abandoned with the next try
            self._requests.abort(file.key, token)
            file.ended(token)

    def _begun_about(self, key: str, when: float) -> Iterator[str]:
        """The uploads of exactly this key that were begun at that time by this host's clock."""
        for found in self._requests.begun(key):
            if _EARLIEST - found.unsure <= found.when - when <= _LATEST + found.unsure:
                yield found.upload
