"""What time it is at a server that speaks HTTP."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime


def seconds_ahead(date: str, before: float, after: float) -> float:
    """By how much a server's clock is ahead, in seconds, by the Date of an answer of its; 0.0 for one that is none. RFC 9110, 6.6.1: a
    server without a clock gives none.

    Args:
        date: as it stands in the answer.
        before: when it was asked for, in seconds since the epoch.
        after: when it was there.
    """
    with suppress(ValueError):
        moment = parsedate_to_datetime(date).replace(tzinfo=UTC)
        return moment.timestamp() + 0.5 - (before + after) / 2  # it is told in whole seconds
    return 0.0
