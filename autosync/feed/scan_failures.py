"""The scans of a mirror that have failed, until others of the same parts succeed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..errors import AutosyncError
from ..model.paths import is_at_or_below


class FailedScan(NamedTuple):
    """A scan that has failed.

    Attributes:
        path: the directory that was to be scanned; "" for the whole source.
        error: why it failed.
        times: how often it has failed in a row.
    """

    path: str
    error: AutosyncError
    times: int = 1

    def text(self) -> str:
        """The failure in words, for people."""
        return f"scan of {self.path or 'everything'}: {self.error}"


def failures_after(before: Mapping[str, FailedScan], path: str, error: AutosyncError | None) -> dict[str, FailedScan]:
    """The failed scans after one more scan has ended. It counts for everything below its directory too. Each failed scan is requested
    again, so there are hardly more of them than requests that can wait (`watch/scan_requests.py`).

    Args:
        before: the failed scans before, by path, in the order in which they failed first.
        path: the directory that was scanned; "" for the whole source.
        error: why the scan failed; None if it did not.
    """
    after = {one: failed for one, failed in before.items() if one == path or (path and not is_at_or_below(one, path))}
    if error is None:
        after.pop(path, None)
    else:
        after[path] = FailedScan(path, error, after[path].times + 1 if path in after else 1)
    return after
