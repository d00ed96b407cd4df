"""Translates responses and errors of Swift and of its identity service. docs/targets/swift.md has the table."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

import keystoneauth1.exceptions as identity
from swiftclient.exceptions import ClientException
from urllib3.exceptions import HTTPError

from ...errors import TargetError, TargetRefused
from .._errors import SLOW, kind_of_status, reason_of
from .._server_text import one_line
from .._urls import public_url

#: 498 is the status of Swift's middleware `ratelimit`.
_SLOW = SLOW | {498}
_WRONG = {400, 405, 411, 412, 413, 414, 416, 501}
#: Statuses of a URL at which there is no identity service of this version.
_NO_SERVICE = {300, 400, 404, 405}
#: What the libraries raise for a response that is cut off or malformed. Errors of requests are OSErrors; swiftclient also reads from
#: urllib3 directly, and checks neither JSON nor headers.
_BROKEN = (OSError, HTTPError, ValueError, KeyError)
_CREDENTIALS = "check --user, --password, --project and the domains, or the application credential"
_RIGHTS = f"{_CREDENTIALS}; they need the right to list, write and delete, in the container for segments too"
_CURES = {401: _RIGHTS, 403: _RIGHTS, 404: "create the container, or correct --target-container"}
#: The most characters of a server's message that an error shows.
_LONGEST_DETAIL = 200


@contextmanager
def translated(about: str, url: str) -> Iterator[None]:
    """Translate exceptions of swiftclient, keystoneauth and requests inside the with-block into `TargetError` and its subclasses.

    Args:
        about: the key, the container or the login, for the message.
        url: the request's URL, for the message.
    """
    try:
        yield
    except ClientException as error:
        raise error_of_status(
            error.http_status or 0, f"{about} at {public_url(url)}", _detail_of(error), error.http_response_headers or {}
        ) from error
    except identity.ClientException as error:
        raise _identity_error(error, f"{about} at {public_url(url)}") from None  # the cause holds the request, which has the password
    except _BROKEN as error:
        raise TargetError(f"{about} at {public_url(url)}: {type(error).__name__}: {one_line(str(reason_of(error)))}") from error


def error_of_status(status: int, what: str, detail: str, headers: Container[str] = ()) -> TargetError:
    """The error that stands for a response.

    Args:
        status: HTTP status of the response.
        what: the object of the request and its URL, for the message.
        detail: the server's own message.
        headers: names of the response's headers.
    """
    message = f"{what}: {status} {one_line(detail, _LONGEST_DETAIL)}".rstrip()
    # Old services limit the rate by 413 with Retry-After.
    slow = _SLOW | {413} if "Retry-After" in headers else _SLOW
    permanent = _WRONG - {413} if "quota" in detail.lower() else _WRONG
    kind = kind_of_status(status, permanent, slow)
    if 300 <= status < 400:
        return _with_status(kind(f"{message}: it leads elsewhere", "correct --storage-url"), status)
    return _with_status(kind(message, _CURES.get(status, "")), status)


def status_of(error: TargetError) -> int:
    """The HTTP status that caused an error; 0 if there was none."""
    found: int = getattr(error, "status", 0)
    return found


def _with_status(error: TargetError, status: int) -> TargetError:
    error.status = status  # type: ignore[attr-defined]
    return error


def _identity_error(error: identity.ClientException, what: str) -> TargetError:
    """The error that stands for a failed login."""
    detail = one_line(str(error), _LONGEST_DETAIL)
    if isinstance(error, identity.CatalogException):
        return TargetRefused(
            f"{what}: there is no object store for this login ({detail})", "check --region and --interface, or give --storage-url"
        )
    if isinstance(error, identity.ConnectionError):
        return TargetError(f"{what}: it cannot be reached ({detail})")
    status = int(getattr(error, "http_status", 0) or 0)
    if status in (401, 403):
        return TargetRefused(f"{what}: {detail}", _CREDENTIALS)
    if status in _NO_SERVICE:
        return TargetRefused(f"{what}: this is no identity service of this version ({detail})", "check --auth-url and --auth-version")
    return TargetError(f"{what}: {detail}")


def _detail_of(error: ClientException) -> str:
    """The server's own message: the text of the response, or the reason phrase if the text is HTML or JSON."""
    content = error.http_response_content or b""
    text = content.decode(errors="replace") if isinstance(content, bytes) else str(content)
    detail = error.http_reason if text.lstrip().startswith(("<", "{")) or not text.strip() else text
    return detail or error.msg or ""
