"""Translates responses and errors of an HTTP server. docs/targets/http.md has the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import requests

from ...errors import PermanentError, SlowDown, TargetError, TargetRefused
from .._urls import public_url

_SLOW = {429, 503}
_RETRY = {408, 425}
_CA_CURE = "if the server's certificate is right, name the file of those that signed it in REQUESTS_CA_BUNDLE"
#: The most characters of a server's message that an error shows.
_LONGEST_DETAIL = 200


@contextmanager
def translated(about: str, url: str) -> Iterator[None]:
    """Translate exceptions of requests inside the with-block into `TargetError`.

    Args:
        about: the key or the listing, for the message.
        url: of the request, for the message.
    """
    try:
        yield
    except OSError as error:  # exceptions of requests are OSErrors; for a CA file that cannot be read, requests raises a plain OSError
        inner = error.args[0] if isinstance(error, requests.RequestException) and error.args else error
        reason = getattr(inner, "reason", None) or inner
        cure = _CA_CURE if isinstance(error, requests.exceptions.SSLError) or "TLS CA" in str(error) else ""
        raise TargetError(f"{about} at {public_url(url)}: {type(error).__name__}: {reason}", cure) from error


def raise_for_status(about: str, response: requests.Response) -> None:
    """Raise the error that a response stands for, if any.

    Args:
        about: the key or the listing, for the message.
        response: to check.

    Raises:
        TargetError: the request failed. docs/targets/http.md says which status raises which subclass.
    """
    status = response.status_code
    if 200 <= status < 300:
        return
    what = f"{about} at {public_url(response.url)}: {status} {_detail_of(response)}".rstrip()
    if status in (401, 403):
        raise TargetRefused(what, "check --secret, --key-id and the clocks of both sides")
    if status == 404:
        raise TargetRefused(what, "check --url")
    if 300 <= status < 400:
        location = public_url(response.headers.get("Location", ""))
        raise TargetRefused(f"{what}: it leads to {location!r}, and a signature is for one URL only", "correct --url")
    if status in _SLOW:
        raise SlowDown(what)
    if status in _RETRY or status >= 500:
        raise TargetError(what)
    raise PermanentError(what)


def _detail_of(response: requests.Response) -> str:
    """The server's description of an error: `detail` of application/problem+json (RFC 9457), or the reason phrase."""
    if "json" in response.headers.get("Content-Type", ""):
        try:
            found = response.json()
        except ValueError:
            found = None
        if isinstance(found, dict) and isinstance(found.get("detail"), str):
            return " ".join(found["detail"].split())[:_LONGEST_DETAIL]
    return (response.reason or "")[:_LONGEST_DETAIL]
