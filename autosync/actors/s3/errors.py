"""The one border between other libraries' exceptions and ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import botocore.exceptions
import obstore
import requests

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
_SLOW = {"SlowDown", "503", "429", "TooManyRequests", "RequestLimitExceeded", "Throttling"}


#: requests puts the URL into its messages, and behind the path of one that was signed stand the signature and the session's token.
_QUERY = re.compile(r"\?\S*")


@contextmanager
def translated(about: str, where: str) -> Iterator[None]:
    """Turn what boto3, requests and obstore raise inside the with-block into `TargetError` and its kinds.

    Args:
        about: the key, or the bucket.
        where: the server, for people.
    """
    try:
        yield
    except botocore.exceptions.ClientError as error:
        said = error.response.get("Error", {})
        raise answered(about, said.get("Code", ""), said.get("Message", ""), where) from error
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        cure = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, --profile, or ~/.boto"
        raise TargetRefused(f"{about} at {where}: no credentials were found", cure) from error
    except requests.RequestException as error:
        raise TargetError(f"{about} at {where}: {_QUERY.sub('', str(error))}") from error
    except botocore.exceptions.BotoCoreError as error:
        raise TargetError(f"{about} at {where}: {error}") from error
    except (obstore.exceptions.BaseError, OSError) as error:
        raise _obstore_error(about, error, where) from error


def answered(about: str, code: str, message: str, where: str = "S3") -> TargetError:
    """What an error code of S3's, or an HTTP status, means."""
    if code == "NoSuchBucket":
        return TargetRefused(f"{about} at {where}: there is no such bucket", "create it, or correct --target-container")
    if code in _REFUSED:
        told = f" ({message})" if message else ""
        return TargetRefused(f"{about} at {where}: access is denied{told}", "check the credentials and their permissions on the bucket")
    if code in _SLOW:
        return SlowDown(f"{about} at {where}: {code}")
    if code in ("KeyTooLongError", "InvalidURI", "EntityTooLarge", "InvalidBucketName"):
        return PermanentError(f"{about} at {where}: {code}: {message}")
    return TargetError(f"{about} at {where}: {code}: {message}")


def _obstore_error(about: str, error: Exception, where: str) -> TargetError:
    """obstore tells most errors in a text alone: the status, and the XML that S3 answered."""
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    message = re.search(r"<Message>([^<]*)</Message>", text)
    status = re.search(r"status code: (\d{3}[^:\n]*)", text)
    if isinstance(error, obstore.exceptions.PermissionDeniedError | obstore.exceptions.UnauthenticatedError):
        return answered(about, code[1] if code and code[1] in _REFUSED else "403", message[1] if message else "", where)
    if code or status:
        told = code[1] if code else status[1][:3] if status else ""
        return answered(about, told, message[1] if message else status[1] if status else "", where)
    return TargetError(f"{about} at {where}: {text.strip().partition(chr(10))[0]}")
