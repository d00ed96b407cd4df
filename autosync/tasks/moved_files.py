"""Finds the files that have moved since they were sent, or since they were deleted in the target.

A directory above them may have been renamed meanwhile, which marks no key. The scan after that could not see in the target what was still
being sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..errors import AutosyncError
from ..ledger import GONE, UNKNOWN, Hint
from ..source.beneath import NotMirrored
from .claimed_batch import ClaimedBatch
from .sources import Absent, MirrorSource


def moved_keys(batch: ClaimedBatch, keys: Iterable[str]) -> list[tuple[str, Hint]]:
    """Those of the keys, just uploaded or deleted, whose path now names another file than the one sent, or a file where none was.

    Returns:
        Each with a hint for the next try. The file host knows that a file is gone which it has just sent.
    """
    by_source: dict[MirrorSource, list[tuple[str, str]]] = {}
    for key in keys:
        path = batch.path(key)
        if path is not None:
            by_source.setdefault(batch.mirror.source_of(path), []).append((key, path))
    return [one for source, found in by_source.items() for one in _moved_in(batch, source, found)]


def _moved_in(batch: ClaimedBatch, source: MirrorSource, found: list[tuple[str, str]]) -> list[tuple[str, Hint]]:
    try:
        inodes = list(source.inodes(path for _, path in found))
    except AutosyncError:
        return [(key, UNKNOWN) for key, _ in found]
    return [
        (key, GONE if inode is None and batch.mirror.same_host else UNKNOWN)
        for (key, path), inode in zip(found, inodes, strict=True)
        if _has_moved(batch, source, key, path, inode)
    ]


def _has_moved(batch: ClaimedBatch, source: MirrorSource, key: str, path: str, inode: int | None) -> bool:
    """Whether a path now names another file than the one sent, none, or a file where none was."""
    sent = batch.sent.get(key)
    if inode == (sent[0] if sent else None):
        return False
    if inode is None:
        return True
    try:
        root = source.open_root()
        try:
            descriptor, seen = source.open(path, root)
        finally:
            os.close(root)
    except Absent:
        return sent is not None
    except NotMirrored:
        return False  # the file is not mirrored any more, and what the target has is kept
    except AutosyncError:
        return True
    os.close(descriptor)
    return sent is None or seen.st_ino != sent[0]
