"""Overflow of the kernel's event queue (inotify(7), IN_Q_OVERFLOW): an unknown number of events is lost.

Directories may have appeared and left. So all sources are gone through again (`WatchPlacer.place_sources`), the watches of directories that
have left are removed, and the whole source is scanned.
"""

from __future__ import annotations

import errno
import logging
import os

from .tree_placer import TreePlacer
from .watched_tree import WatchedTree

log = logging.getLogger(__name__)


def recover_from_overflow(tree: WatchedTree) -> None:
    """Request that all sources are gone through again. Paths of directories that were opened before count as uncertain.

    Args:
        tree: what is watched; its lock is held.
    """
    log.warning("the kernel's event queue overflowed: everything is scanned again")
    tree.departures += 1
    tree.requests.put("everything")


def forget_departed(tree: WatchedTree, trees: TreePlacer) -> None:
    """Remove the watches on directories that have left while events were lost.

    Args:
        tree: what is watched.
        trees: has placed the watches.
    """
    with tree.lock:
        paths = list(tree.watches)
    gone = [path for path in paths if _is_gone(path)]
    with tree.lock:
        for path in gone:
            tree.forget(path)
    trees.forget_unreadable([path for path in list(tree.unreadable.paths()) if _is_gone(path)])


def _is_gone(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    return False
