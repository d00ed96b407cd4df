"""Sends a large file in parts, several at a time, all of one version of the file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import BinaryIO, TypeVar

from ..errors import FileChanged, PermanentError, SlowDown, TargetError
from ..source.source_file import SourceFile

T = TypeVar("T")

#: Offset and length of a part, in bytes.
PartRange = tuple[int, int]
#: Sends a part, given its number, its content and its size in bytes, and returns its ETag.
Send = Callable[[int, BinaryIO, int], str]

#: Parts of one file in flight.
_PARTS_AT_ONCE = 4
#: Tries of each part and of the completing request, and the delay after the first, in seconds, which doubles with each try. Without them, a
#: file of a thousand parts would never arrive at a server that fails now and then.
_PART_TRIES, _PART_DELAY = 5, 0.25
#: How often changed parts of a file that never rests are sent again before the upload fails.
ROUNDS = 5


def part_ranges(size: int, part_bytes: int, most: int) -> Iterator[PartRange]:
    """Divide a file into parts.

    Args:
        size: the file's size in bytes.
        part_bytes: size of each part but the last. If that made more than `most` parts, they are larger, in whole MiB.
        most: the most parts that the target allows.

    Returns:
        Offset and length of each part, in order.
    """
    least = -(-size // most)
    step = max(part_bytes, -(-least // (1 << 20)) << 20)
    for offset in range(0, size, step):
        yield offset, min(step, size - offset)


def send_one_version(file: SourceFile, ranges: Iterable[PartRange], send: Send) -> dict[int, str]:
    """Send all parts, and send again those that changed meanwhile in a file that never rests.

    Args:
        file: the file to send.
        ranges: the byte ranges of the parts, in order.
        send: sends one part; called by several threads at once.

    Returns:
        The ETags by part number, from 1 on.

    Raises:
        TargetError: a part was not stored.
        FileChanged: the file changed.
    """
    numbers = {part: number for number, part in enumerate(ranges, 1)}
    etags = _send_parts(file, numbers, numbers, send)
    for rounds_left in range(ROUNDS, -1, -1):
        try:
            file.verify()
            break
        except FileChanged as torn:
            if not torn.parts or not rounds_left:
                raise
            etags |= _send_parts(file, numbers, torn.parts, send)
    return etags


def tried(file: SourceFile, act: Callable[[], T], again: Callable[[], None] = lambda: None) -> T:
    """Call a function until it succeeds, five times at most.

    Args:
        file: the file of the request; it learns of each `SlowDown`.
        act: the function.
        again: called before each try but the first.

    Raises:
        TargetError: the last try failed, or one failed with `PermanentError`.
    """
    for tries in range(_PART_TRIES - 1):
        try:
            return act()
        except PermanentError:
            raise
        except TargetError as error:
            if isinstance(error, SlowDown):
                file.slow_down()
            time.sleep(_PART_DELAY * 2**tries)
            again()
    return act()


def _send_parts(file: SourceFile, numbers: dict[PartRange, int], ranges: Iterable[PartRange], send: Send) -> dict[int, str]:
    etags: dict[int, str] = {}
    with ThreadPoolExecutor(file.max_parts(_PARTS_AT_ONCE), "autosync-part") as pool:
        waiting = {pool.submit(_send_part, file, numbers[part], part, send): numbers[part] for part in ranges}
        try:
            for sent in as_completed(waiting):
                etags[waiting[sent]] = sent.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return etags


def _send_part(file: SourceFile, number: int, part: PartRange, send: Send) -> str:
    def once() -> str:
        file.wait_for_request()
        return send(number, file.part(*part), part[1])

    # The upload is completed with the ETag of the try that succeeded, so a part of an earlier try that the server has stored does no harm.
    return tried(file, once, partial(file.discard, *part))
