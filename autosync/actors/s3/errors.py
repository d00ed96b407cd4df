"""Translates the exceptions of boto3 and sockets, and S3's error codes, into `TargetError` and its kinds."""

from __future__ import annotations

import http.client
import sys
from http import HTTPStatus
from types import TracebackType

from ...errors import PermanentError, SlowDown, TargetError, TargetRefused
from .._proxies import CREDENTIALS_WANTED, CURE
from .._server_text import one_line
from .own_client.proxy import WANTS_CREDENTIALS, ProxyRefused

_REFUSED = {
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "403",
    "401",
    "AllAccessDisabled",
}
#: Codes of errors that no retry cures.
_WRONG = {
    "KeyTooLongError",
    "InvalidURI",
    "EntityTooLarge",
    "InvalidBucketName",
    "InvalidRequest",
    "InvalidTag",
    "InvalidStorageClass",
    "AccessControlListNotSupported",
}
_SLOW = {"SlowDown", "503", "429", "TooManyRequests", "RequestLimitExceeded", "Throttling"}


class translated:  # noqa: N801 - used like a function of contextlib's, which is three times as slow, and every file comes here
    """Translate what boto3 and sockets raise inside a with-block.

    Args:
        about: the key, or the bucket.
        server: name of the server in the message.
    """

    __slots__ = ("_about", "_server")

    def __init__(self, about: str, server: str) -> None:
        self._about = about
        self._server = server

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ours = _translate(error, self._about, self._server) if error is not None else None
        if ours is not None:
            raise ours from error


def no_credentials(about: str, server: str) -> TargetRefused:
    """The error for a bucket without credentials."""
    cure = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, --profile, or ~/.boto"
    return TargetRefused(f"{about} at {server}: no credentials were found", cure)


def _translate(error: BaseException, about: str, server: str) -> TargetError | None:
    """Our error for another library's; None for any other exception. A library that is not loaded has raised nothing."""
    if "botocore" in sys.modules:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        if isinstance(error, ClientError):
            details = error.response.get("Error", {})
            return error_from_code(about, details.get("Code", ""), details.get("Message", ""), server)
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return no_credentials(about, server)
        if isinstance(error, BotoCoreError):
            return TargetError(f"{about} at {server}: {one_line(str(error))}")
    if isinstance(error, ProxyRefused):
        return TargetRefused(f"{about} at {server}: {error}", CURE)
    if isinstance(error, OSError | http.client.HTTPException):
        return TargetError(f"{about} at {server}: {one_line(str(error)) or type(error).__name__}")
    return None


def error_from_code(about: str, code: str, message: str, server: str = "S3") -> TargetError:
    """The error for an error code of S3's.

    Args:
        about: the key, or the bucket.
        code: the error's code at S3; the HTTP status if the response contains none.
        message: the server's text about the error.
        server: name of the server in the message.
    """
    code, message = one_line(code), one_line(message)
    if code == "NoSuchBucket":
        return TargetRefused(f"{about} at {server}: there is no such bucket", "create it, or correct --target-container")
    if code in _REFUSED:
        detail = f" ({message})" if message else ""
        return TargetRefused(f"{about} at {server}: access is denied{detail}", "check the credentials and their permissions on the bucket")
    if code in _SLOW:
        return SlowDown(f"{about} at {server}: {code}")
    if code in _WRONG:
        return PermanentError(f"{about} at {server}: {code}: {message}")
    return TargetError(f"{about} at {server}: {code}: {message}" if message else f"{about} at {server}: {code}")


def error_from_proxy(about: str, status: int, server: str) -> TargetError:
    """The error for a response without an error code of S3's, where a proxy forwards the requests: it may be the proxy's.

    Args:
        about: the key, or the bucket.
        status: the HTTP status code of the response.
        server: name of the server and the proxy in the message.
    """
    if status in WANTS_CREDENTIALS:
        return TargetRefused(f"{about} at {server}: {CREDENTIALS_WANTED}", CURE)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:  # of a proxy it means that the server cannot be reached, and S3 sends a code with it
        return TargetError(f"{about} at {server}: {status}")
    return error_from_code(about, str(status), "", server)
