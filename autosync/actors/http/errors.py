"""Translates responses and errors of an HTTP server. docs/targets/http.md has the table."""

from __future__ import annotations

import requests

from .._errors import kind_of_status
from .._server_text import one_line
from .._urls import public_url

#: Statuses that no retry cures: the client's fault, but for a server that was busy (408) or wants the request again (425).
_PERMANENT = frozenset(range(400, 500)) - {408, 425}
_SIGNATURE_CURE = "check --secret, --key-id and the clocks of both sides"
_CURES = {401: _SIGNATURE_CURE, 403: _SIGNATURE_CURE, 404: "check --url"}
#: The most characters of a server's message that an error shows.
_LONGEST_DETAIL = 200


def raise_for_status(about: str, response: requests.Response) -> None:
    """Raise the error that a response stands for, if any.

    Args:
        about: the key or the listing, for the message.
        response: the response to check.

    Raises:
        TargetError: the request failed. docs/targets/http.md says which status raises which subclass.
    """
    status = response.status_code
    if 200 <= status < 300:
        return
    what = f"{about} at {public_url(response.url)}: {status} {_detail_of(response)}".rstrip()
    kind = kind_of_status(status, _PERMANENT)
    if 300 <= status < 400:
        location = public_url(response.headers.get("Location", ""))
        raise kind(f"{what}: it leads to {location!r}, and a signature is for one URL only", "correct --url")
    raise kind(what, _CURES.get(status, ""))


def _detail_of(response: requests.Response) -> str:
    """The server's description of an error: `detail` of application/problem+json (RFC 9457), or the reason phrase."""
    if "json" in response.headers.get("Content-Type", ""):
        try:
            found = response.json()
        except ValueError:
            found = None
        if isinstance(found, dict) and isinstance(found.get("detail"), str):
            return one_line(found["detail"], _LONGEST_DETAIL)
    return one_line(response.reason or "", _LONGEST_DETAIL)
