"""Why a file is skipped."""

from __future__ import annotations

import os
from contextlib import suppress

from ...model.mirror import Mirror
from ...model.paths import itself_and_parents
from ...model.skipped import SkippedList
from ...model.text import printable
from ...source.entry import entry_at, is_kept_in_target
from ...watch.recheck import entry_behind_links


def reason_to_skip(path: str, mirror: Mirror, skipped: SkippedList) -> str:
    """Why the file of a path is not sent, with what happens to its object; "" if it is sent, or if that is unknown here.

    Args:
        path: a path in the scope of the mirror.
        mirror: the mirror.
        skipped: the list in the mirror's ledger. For a path that is not listed, this host's disk is examined.
    """
    for one in itself_and_parents(path):  # a skipped link to a directory is listed once, for all below it
        reason = skipped.reasons.get(one)
        if reason:
            above = "" if one == path else f"{printable(one)} "
            return _sentence(f"{above}{reason}", is_kept=is_kept_in_target(reason))
    return _reason_on_disk(path, mirror)


def _reason_on_disk(path: str, mirror: Mirror) -> str:
    source = mirror.keys().source_of(path)
    rules = mirror.file_rules
    if source is not None:
        with suppress(OSError, ValueError):  # the file is not on this host, or not readable; no file can have this name
            found = entry_behind_links(path, source, rules) if rules.follow_links else entry_at(path, os.lstat(path), rules)
            if found is not None and found.skipped:
                return _sentence(found.skipped, is_kept=found.keep_in_target)
    return ""


def _sentence(reason: str, *, is_kept: bool) -> str:
    return f"{reason}; the target keeps what it has" if is_kept else reason
