"""The one border between other libraries' exceptions and ours."""

from __future__ import annotations

import http.client
import re
import sys
from types import TracebackType

from ...errors import PermanentError, SlowDown, TargetError, TargetRefused

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
#: What no other try makes right.
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
#: So much of what a server says is shown.
_SHOWN = 300
_SLOW = {"SlowDown", "503", "429", "TooManyRequests", "RequestLimitExceeded", "Throttling"}


#: requests puts the URL into its messages, and behind the path of one that was signed stand the signature and the session's token.
_QUERY = re.compile(r"\?\S*")


class translated:  # noqa: N801 - used like a function of contextlib's, which would take three times as long on the way of every file
    """Turn what boto3, requests and sockets raise inside a with-block into `TargetError` and its kinds.

    Args:
        about: the key, or the bucket.
        where: the server, for people.
    """

    __slots__ = ("_about", "_where")

    def __init__(self, about: str, where: str) -> None:
        self._about = about
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        meant = _meaning(error, self._about, self._where) if error is not None else None
        if meant is not None:
            raise meant from error


class NothingSent(TargetError):  # noqa: N818 - a finding about an error
    """Nothing has reached the server."""


def no_credentials(about: str, where: str) -> TargetRefused:
    """Nothing is there to sign requests with."""
    cure = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, --profile, or ~/.boto"
    return TargetRefused(f"{about} at {where}: no credentials were found", cure)


def _meaning(error: BaseException, about: str, where: str) -> TargetError | None:
    """Our error for another library's; None for what is none of theirs. What was not loaded has raised nothing."""
    if "botocore" in sys.modules:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        if isinstance(error, ClientError):
            said = error.response.get("Error", {})
            return answered(about, said.get("Code", ""), said.get("Message", ""), where)
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return no_credentials(about, where)
        if isinstance(error, BotoCoreError):
            return TargetError(f"{about} at {where}: {error}")
    if isinstance(error, OSError | http.client.HTTPException):  # also those of requests
        return TargetError(f"{about} at {where}: {_QUERY.sub('', str(error)) or type(error).__name__}")
    return None


def answered(about: str, code: str, message: str, where: str = "S3") -> TargetError:
    """What an error code of S3's, or an HTTP status, means."""
    code, message = code[:_SHOWN], " ".join(message.split())[:_SHOWN]
    if code == "NoSuchBucket":
        return TargetRefused(f"{about} at {where}: there is no such bucket", "create it, or correct --target-container")
    if code in _REFUSED:
        told = f" ({message})" if message else ""
        return TargetRefused(f"{about} at {where}: access is denied{told}", "check the credentials and their permissions on the bucket")
    if code in _SLOW:
        return SlowDown(f"{about} at {where}: {code}")
    if code in _WRONG:
        return PermanentError(f"{about} at {where}: {code}: {message}")
    return TargetError(f"{about} at {where}: {code}: {message}")
