"""Reads the times in responses of servers."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from email.utils import parsedate_to_datetime


def seconds_ahead(date: str, before: float, after: float) -> float:
    """How far a server's clock is ahead of this host's, in seconds; 0.0 if the server has no clock (RFC 9110, 6.6.1).

    Args:
        date: the header Date of a response; "" for none.
        before: when the request was sent, in seconds since the epoch.
        after: when the response arrived, in seconds since the epoch.
    """
    with suppress(ValueError, OverflowError, TypeError, LookupError):  # email.utils has them all
        found = parsedate_to_datetime(date).replace(tzinfo=UTC)
        return found.timestamp() + 0.5 - (before + after) / 2  # Date has whole seconds
    return 0.0


def parse_iso_time(text: str, zone: tzinfo | None = None) -> float:
    """Convert an ISO 8601 time to seconds since the epoch.

    Args:
        text: the text to parse.
        zone: the time zone of a time that names none; None if each has to name one.

    Raises:
        ValueError: it is not such a time.
    """
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        if zone is None:
            raise ValueError(f"{text!r} has no time zone")
        found = found.replace(tzinfo=zone)
    return found.timestamp()
