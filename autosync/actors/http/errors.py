"""What answers and errors of an HTTP server mean. docs/targets/http.md has the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import requests

from ...errors import PermanentError, SlowDown, TargetError, TargetRefused
from .._urls import public_url

_SLOW = {429, 503}
_AGAIN = {408, 425}
_TRUST = "if the server's certificate is right, name the file of those that signed it in REQUESTS_CA_BUNDLE"
#: So much of what a server says is shown.
_SHOWN = 200


@contextmanager
def translated(about: str, url: str) -> Iterator[None]:
    """Translate what requests raises inside the with-block into `TargetError`."""
    try:
        yield
    except OSError as error:  # those of requests are some; certificates that cannot be read are told by a plain one
        inner = error.args[0] if isinstance(error, requests.RequestException) and error.args else error
        reason = getattr(inner, "reason", None) or inner
        cure = _TRUST if isinstance(error, requests.exceptions.SSLError) or "TLS CA" in str(error) else ""
        raise TargetError(f"{about} at {public_url(url)}: {type(error).__name__}: {reason}", cure) from error


def raise_for_status(about: str, answer: requests.Response) -> None:
    """Do nothing if the request succeeded.

    Raises:
        TargetError: it failed; its kind is that of the table in docs/targets/http.md.
    """
    status = answer.status_code
    if 200 <= status < 300:
        return
    what = f"{about} at {public_url(answer.url)}: {status} {_detail(answer)}".rstrip()
    if status in (401, 403):
        raise TargetRefused(what, "check --secret, --key-id and the clocks of both sides")
    if status == 404:
        raise TargetRefused(what, "check --url")
    if 300 <= status < 400:
        there = public_url(answer.headers.get("Location", ""))
        raise TargetRefused(f"{what}: it leads to {there!r}, and a signature is for one URL only", "correct --url")
    if status in _SLOW:
        raise SlowDown(what)
    if status in _AGAIN or status >= 500:
        raise TargetError(what)
    raise PermanentError(what)


def _detail(answer: requests.Response) -> str:
    """The server's description of an error: the detail of application/problem+json (RFC 9457), or the reason of the status."""
    if "json" in answer.headers.get("Content-Type", ""):
        try:
            found = answer.json()
        except ValueError:
            found = None
        if isinstance(found, dict) and isinstance(found.get("detail"), str):
            return " ".join(found["detail"].split())[:_SHOWN]
    return (answer.reason or "")[:_SHOWN]
