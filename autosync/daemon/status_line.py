"""Describes the state of mirrors in one line."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import TextIO

from ..ledger import MirrorStats
from ..model.skipped import SkippedList
from ..model.text import human_size


class StatusText:
    """Describes the state of one mirror, and measures its rate from call to call."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None

    def line(
        self,
        stats: MirrorStats,
        *,
        is_scanning: bool,
        withheld: int = 0,
        unwatched: int = 0,
        in_doubt: int = 0,
        has_failed: bool = False,
    ) -> str:
        """The state now.

        Args:
            stats: the figures of the mirror.
            is_scanning: whether a scan is running.
            withheld: number of withheld deletions.
            unwatched: number of directories without a watch.
            in_doubt: number of roots and mount points in doubt.
            has_failed: whether the last scan has failed.
        """
        moment = time.monotonic()
        rate = ""
        if self._last and stats.bytes > self._last[1]:
            rate = f", {human_size((stats.bytes - self._last[1]) / (moment - self._last[0]))}/s"
        self._last = (moment, stats.bytes)
        state = "paused" if stats.paused else "scanning" if is_scanning else "in sync" if not stats.dirty else "syncing"
        problems = (
            (stats.failed, "failed"),
            (withheld, "deletions withheld"),
            (unwatched, "directories unwatched"),
            (in_doubt, "roots in doubt"),
        )
        more = "".join(f", {count} {what}" for count, what in problems if count) + ", the last scan failed" * has_failed
        sent = f"{stats.files} sent ({human_size(stats.bytes)}{rate})"
        return f"{state}: {stats.dirty} waiting, {sent}, {stats.deleted} deleted{more}"


class StatusLine:
    """A line on a terminal that each update overwrites. Nothing is written if the stream is no terminal.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._is_written = False

    def write(self, all_: Sequence[tuple[str, str]]) -> None:
        """Write the states of mirrors. The line for several mirrors is cut at the width of the terminal.

        Args:
            all_: name and state of each mirror.
        """
        texts = [text if len(all_) == 1 else f"{name} {text}" for name, text in all_ if text]
        if not self._live or not texts:
            return
        line = " | ".join(texts)
        self._stream.write(f"\r\x1b[K{line if len(texts) == 1 else line[: shutil.get_terminal_size().columns - 1]}\r")
        self._stream.flush()
        self._is_written = True

    def clear(self) -> None:
        """Remove the line."""
        if self._is_written:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._is_written = False


def summary(before: MirrorStats, after: MirrorStats, seconds: float, *, skipped: SkippedList) -> str:
    """The work between two moments, in one line.

    Args:
        before: figures of the first moment.
        after: figures of the second moment.
        seconds: between the two.
        skipped: paths.
    """
    files, size, deleted = after.files - before.files, after.bytes - before.bytes, after.deleted - before.deleted
    left = f", {after.dirty} left for the next start" if after.dirty else ""
    passed = f", skipped {skipped.total_text()}" if skipped.total else ""
    return f"uploaded {files} files ({human_size(size)}), deleted {deleted}, failed {after.failed}{passed}{left}, in {seconds:.1f} s"
