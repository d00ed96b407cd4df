"""How a mirror stands, in a line for people."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import TextIO

from ..ledger import MirrorStats
from ..model.text import human_size


class Stands:
    """Words for how one mirror stands."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None

    def line(self, standing: MirrorStats, *, looking: bool, held: int = 0, unwatched: int = 0) -> str:
        """How things stand now: whether a look is running, how many deletions are withheld, how many directories are not watched."""
        moment = time.monotonic()
        rate = ""
        if self._last and standing.bytes > self._last[1]:
            rate = f", {human_size((standing.bytes - self._last[1]) / (moment - self._last[0]))}/s"
        self._last = (moment, standing.bytes)
        doing = "paused" if standing.paused else "scanning" if looking else "in sync" if not standing.dirty else "syncing"
        more = ((standing.failed, "failed"), (held, "deletions withheld"), (unwatched, "directories not watched"))
        told = "".join(f", {count} {what}" for count, what in more if count)
        sent = f"{standing.files} sent ({human_size(standing.bytes)}{rate})"
        return f"{doing}: {standing.dirty} waiting, {sent}, {standing.deleted} deleted{told}"


class StatusLine:
    """A line that is written over itself, on a terminal only.

    Args:
        stream: where to write it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._shown = False

    def show(self, all_: Sequence[tuple[str, str]]) -> None:
        """Show how mirrors stand: name and words of each. Of several, as much as there is room for."""
        told = [words if len(all_) == 1 else f"{name} {words}" for name, words in all_ if words]
        if not self._live or not told:
            return
        line = " | ".join(told)
        self._stream.write(f"\r\x1b[K{line if len(told) == 1 else line[: shutil.get_terminal_size().columns - 1]}\r")
        self._stream.flush()
        self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


def summary(before: MirrorStats, after: MirrorStats, seconds: float, *, skipped: int = 0) -> str:
    """What was done between two moments."""
    files, size, deleted = after.files - before.files, after.bytes - before.bytes, after.deleted - before.deleted
    left = f", {after.dirty} left for the next start" if after.dirty else ""
    passed = f", skipped {skipped}" if skipped else ""
    return f"uploaded {files} files ({human_size(size)}), deleted {deleted}, failed {after.failed}{passed}{left}, in {seconds:.1f} s"
