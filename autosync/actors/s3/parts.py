"""Large files go up in parts; an upload is completed only when what was sent is one version.

Every upload that may be open in the bucket is noted before: first the intention to begin one, since the answer that tells its UploadId may
never arrive, then the UploadId. Whoever comes after a killed worker ends just those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

from ...errors import PermanentError, SlowDown, TargetError, Torn
from ...reading import SourceFile
from .errors import NothingSent
from .headers import Said
from .pieces import Piece, pieces_of
from .wire import CONNECT_SECONDS, READ_SECONDS

T = TypeVar("T")

#: Parts of one file in flight.
_PARTS_AT_ONCE = 4
#: Each part, and the end, has tries of its own, with doubling delays from this one on, in seconds: if one failure cost the whole file, a
#: file of a thousand parts would never arrive at a server that fails now and then.
_PART_TRIES, _PART_DELAY = 5, 0.25
#: How often what changed in a file that never rests is sent once more before the whole is given up.
_ROUNDS = 5

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

    def begin(self, key: str, said: Said) -> tuple[str, bool]:
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

    def send(self, file: SourceFile, said: Said) -> None:
        """Send one file.

        Raises:
            TargetError: the target did not take it.
            Torn: it changed.
        """
        token = self._begin(file, said)
        try:
            etags = self._send_one_version(file, token)
            self._tried(file, lambda: self._complete(file, token, etags))
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

    def _begin(self, file: SourceFile, said: Said) -> str:
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

    # The parts

    def _send_one_version(self, file: SourceFile, upload: str) -> dict[int, str]:
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

    def _send_parts(self, file: SourceFile, upload: str, numbers: dict[Piece, int], pieces: Iterable[Piece]) -> dict[int, str]:
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

    def _send_part(self, file: SourceFile, upload: str, number: int, piece: Piece) -> str:
        def send() -> str:
            file.ask()
            return self._requests.send(file.key, upload, number, file.part(*piece), piece[1])

        # The upload is completed with the ETag of the try that was answered, so another one that the server kept is no danger.
        return self._tried(file, send, partial(file.forget, *piece))

    def _tried(self, file: SourceFile, act: Callable[[], T], again: Callable[[], None] = lambda: None) -> T:
        """Do something, a few times if it must be; `again` is called before each time but the first."""
        for tries in range(_PART_TRIES - 1):
            try:
                return act()
            except PermanentError:
                raise
            except TargetError as error:
                if isinstance(error, SlowDown):
                    file.refused()
                time.sleep(_PART_DELAY * 2**tries)
                again()
        return act()
