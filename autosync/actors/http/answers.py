"""What answers and errors of an HTTP server mean. docs/targets/http.md has the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import requests

from ...errors import PermanentError, SlowDown, TargetError, TargetRefused

_SLOW = {429, 503}
_AGAIN = {408, 425}
_TRUST = "if the server's certificate is right, name the file of those that signed it in REQUESTS_CA_BUNDLE"
#: So much of what a server says is shown.
_SHOWN = 200


@contextmanager
def translated(about: str, url: str) -> Iterator[None]:
    """Turn what requests raises inside the with-block into `TargetError`."""
    try:
        yield
    except OSError as error:  # those of requests are some; certificates that cannot be read are told by a plain one
        inner = error.args[0] if isinstance(error, requests.RequestException) and error.args else error
        reason = getattr(inner, "reason", None) or inner
        cure = _TRUST if isinstance(error, requests.exceptions.SSLError) or "TLS CA" in str(error) else ""
        raise TargetError(f"{about} at {_server(url)}: {type(error).__name__}: {reason}", cure) from error


def insist(about: str, answer: requests.Response) -> None:
    """Go on only if the server has done what it was asked.

    Raises:
        TargetError: it has not; see the table.
    """
    status = answer.status_code
    if 200 <= status < 300:
        return
    said = f"{about} at {_server(answer.url)}: {status} {_told(answer)}".rstrip()
    if status in (401, 403):
        raise TargetRefused(said, "check --secret, --key-id and the clocks of both sides")
    if status == 404:
        raise TargetRefused(said, "check --url")
    if 300 <= status < 400:
        there = _server(answer.headers.get("Location", ""))
        raise TargetRefused(f"{said}: it leads to {there!r}, and a signature is for one URL only", "correct --url")
    if status in _SLOW:
        raise SlowDown(said)
    if status in _AGAIN or status >= 500:
        raise TargetError(said)
    raise PermanentError(said)


def _told(answer: requests.Response) -> str:
    """What a server says is wrong: the detail of application/problem+json (RFC 9457), or the reason of the status."""
    if "json" in answer.headers.get("Content-Type", ""):
        try:
            found = answer.json()
        except ValueError:
            found = None
        if isinstance(found, dict) and isinstance(found.get("detail"), str):
            return " ".join(found["detail"].split())[:_SHOWN]
    return (answer.reason or "")[:_SHOWN]


def _server(url: str) -> str:
    """A URL for people, without what may be secret in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""
    return where + (parts.path if len(parts.path) < _SHOWN else "")
