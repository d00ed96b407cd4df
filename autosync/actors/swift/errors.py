"""What answers and errors of Swift and of its identity service mean. docs/targets/swift.md has the table."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

import keystoneauth1.exceptions as identity
from swiftclient.exceptions import ClientException
from urllib3.exceptions import HTTPError

from ...errors import PermanentError, SlowDown, TargetError, TargetRefused
from .._urls import public_url

#: 498 is what Swift's own ratelimit says.
_SLOW = {429, 498, 503}
_WRONG = {400, 405, 411, 412, 413, 414, 416, 501}
#: What says that there is something else at the URL of the identity service.
_NO_SERVICE = {300, 400, 404, 405}
#: What libraries raise where an answer is broken off, or is none: those of requests are OSErrors; swiftclient reads from urllib3 itself,
#: and JSON and headers are taken as they should be.
_BROKEN = (OSError, HTTPError, ValueError, KeyError)
_CREDENTIALS = "check --user, --password, --project and the domains, or the application credential"
_RIGHTS = f"{_CREDENTIALS}; they need the right to list, write and delete, in the container for segments too"
#: So much of what a server says is shown.
_SHOWN = 200


@contextmanager
def translated(about: str, url: str) -> Iterator[None]:
    """Turn what swiftclient, keystoneauth and requests raise inside the with-block into `TargetError` and its kinds.

    Args:
        about: the key, the container or the login.
        url: where it was asked for.
    """
    try:
        yield
    except ClientException as error:
        raise meaning(error.http_status or 0, f"{about} at {public_url(url)}", _told(error), error.http_response_headers or {}) from error
    except identity.ClientException as error:
        raise _identity(error, f"{about} at {public_url(url)}") from None  # what it is made of has the request, and so the password
    except _BROKEN as error:
        inner = error.args[0] if error.args else error
        raise TargetError(f"{about} at {public_url(url)}: {type(error).__name__}: {getattr(inner, 'reason', None) or inner}") from error


def meaning(status: int, what: str, told: str, headers: Container[str] = ()) -> TargetError:
    """What an answer means.

    Args:
        status: of the answer.
        what: what was asked for, and where.
        told: what the server says.
        headers: of the answer.
    """
    said = f"{what}: {status} {told}".rstrip()
    if status in (401, 403):
        return _noted(TargetRefused(said, _RIGHTS), status)
    if 300 <= status < 400:
        return _noted(TargetRefused(f"{said}: it leads elsewhere", "correct --storage-url"), status)
    if status == 404:
        return _noted(TargetRefused(said, "create the container, or correct --target-container"), status)
    # 413 with a time is how old services ask for fewer.
    if status in _SLOW or (status == 413 and "Retry-After" in headers):
        return _noted(SlowDown(said), status)
    is_full = status == 413 and "quota" in told.lower()
    return _noted((PermanentError if status in _WRONG and not is_full else TargetError)(said), status)


def answered_with(error: TargetError) -> int:
    """The status that an error was made of; 0 if there was none."""
    found: int = getattr(error, "status", 0)
    return found


def _noted(error: TargetError, status: int) -> TargetError:
    error.status = status  # type: ignore[attr-defined]
    return error


def _identity(error: identity.ClientException, what: str) -> TargetError:
    """What goes wrong while a token is made."""
    told = " ".join(str(error).split())[:_SHOWN]
    if isinstance(error, identity.CatalogException):
        return TargetRefused(
            f"{what}: there is no object store for this login ({told})", "check --region and --interface, or give --storage-url"
        )
    if isinstance(error, identity.ConnectionError):
        return TargetError(f"{what}: it cannot be reached ({told})")
    status = int(getattr(error, "http_status", 0) or 0)
    if status in (401, 403):
        return TargetRefused(f"{what}: {told}", _CREDENTIALS)
    if status in _NO_SERVICE:
        return TargetRefused(f"{what}: this is no identity service of this version ({told})", "check --auth-url and --auth-version")
    return TargetError(f"{what}: {told}")


def _told(error: ClientException) -> str:
    """What the server says is wrong: its text, or the reason of the status where that is a page for a browser."""
    content = error.http_response_content or b""
    text = content.decode(errors="replace") if isinstance(content, bytes) else str(content)
    shown = error.http_reason if text.lstrip().startswith(("<", "{")) or not text.strip() else text
    return " ".join((shown or error.msg or "").split())[:_SHOWN]
