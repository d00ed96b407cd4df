"""What errors of obstore's mean. It tells most of it in words: the status, and as XML what the server said.

Nothing of a text is passed on but what is known to be no secret: not its URLs, and not what it says of itself to who wrote it.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import ClassVar, Protocol

from ...errors import PermanentError, SlowDown, TargetError, TargetRefused


class Target(Protocol):
    """Who is spoken to, for messages; see `ObstoreActor`."""

    server: ClassVar[str]
    identify: ClassVar[str]
    container_is: ClassVar[str]

    @property
    def base_url(self) -> str: ...


class Unidentified(TargetError):  # noqa: N818 - a finding about an error
    """There was nothing to sign a request with."""


_STATUS = re.compile(r"(?:status code: |\(code: )([0-9]{3})")
_CODE = re.compile(r"<Code>\s*([A-Za-z0-9]+)\s*</Code>")
_MESSAGE = re.compile(r"<Message>([^<\r\n]*)")
_NO_CONTAINER = re.compile(r"<Code>(?:ContainerNotFound|NoSuchBucket)</Code>|: The specified container does not exist\. \(code: 404\)")
#: They are read before, or asked for beside, what they are needed for.
_CREDENTIALS = re.compile(
    r"Generic \w+ error: (?:Error performing token request"
    r"|(?!Error performing).*(?:[Cc]redential|service account|Access Key|SAS |az account|pem file))"
)
#: How services that give tokens say what is wrong (RFC 6749, 5.2).
_TOKEN_ERROR = re.compile(r'"error":\s*"([A-Za-z0-9_.]+)"')
#: What kept a request from being sent, in the words of the operating system, behind what a reader would call the error.
_REASON = re.compile(r'\b(?:message|error): "([^"]*)"')
#: Readers of JSON quote what they have found in a wrong place, which may be a key.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_URL = re.compile(r"\b(https?://[^\s?#\"]*)[?#]\S*")
_FOREIGN = re.compile(r'path: "((?:[^"\\]|\\.)*)"|[Pp]ath "((?:[^"\\]|\\.)*)"')
#: So much of what a server says is shown.
_SHOWN = 300
#: No other try makes these right. The codes: learn.microsoft.com, Blob service error codes; cloud.google.com, XML API error codes.
_WRONG_CODES = {
    "BlobImmutableDueToPolicy", "EntityTooLarge", "InvalidBlobType", "InvalidResourceName", "InvalidUri", "KeyTooLongError",
    "OutOfRangeInput", "RequestBodyTooLarge", "UnauthorizedBlobOverwrite",
}  # fmt: skip
_REFUSED_CODES = {
    "AccountIsDisabled", "AuthenticationFailed", "AuthorizationFailure", "InvalidBucketName", "PublicAccessNotPermitted",
    "UserProjectAccountProblem",
}  # fmt: skip


class translated:  # noqa: N801 - used like a function of contextlib's, as in the S3 actor
    """Turn what obstore raises inside a with-block into `TargetError` and its kinds.

    Args:
        about: the key, or the container.
        target: who is spoken to.
        missing_is_fine: whether nothing is raised if the object is not there.
    """

    __slots__ = ("_about", "_missing_is_fine", "_target")

    def __init__(self, about: str, target: Target, *, missing_is_fine: bool = False) -> None:
        self._about = about
        self._target = target
        self._missing_is_fine = missing_is_fine

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if error is None or not _is_obstores(error):
            return False
        text = str(error)
        if self._missing_is_fine and isinstance(error, FileNotFoundError) and not _NO_CONTAINER.search(text):
            return True
        raise meaning(type(error).__name__, text, self._about, self._target) from None


def _is_obstores(error: BaseException) -> bool:
    """Whether it is an error of obstore's; some are Python's own. `FileChanged`, and what else a reader may raise, is none."""
    return type(error).__module__.startswith("obstore") or isinstance(error, ValueError | OSError)


def meaning(kind: str, text: str, about: str, target: Target) -> TargetError:
    """What an error means.

    Args:
        kind: the name of its class.
        text: what it says.
        about: the key, or the container.
        target: who is spoken to.
    """
    said, _, inside = text.partition("\n\nDebug source")
    status, code = (found[1] if (found := pattern.search(said)) else "" for pattern in (_STATUS, _CODE))
    what = f"{about} at {target.base_url}"
    if kind == "InvalidPathError":
        found = _FOREIGN.search(said)
        named = repr(found[1] or found[2]) if found else "which it does not tell"
        cure = "rename or delete it, or use a container of its own"
        return TargetRefused(f"{what}: an object there has a name that obstore cannot read: {named}", cure)
    if _CREDENTIALS.match(said):
        return _not_identified(what, status, said, inside, target)
    if _NO_CONTAINER.search(said) or (status == "404" and kind != "FileNotFoundError"):
        return TargetRefused(f"{what}: there is no such {target.container_is}", "create it, or correct --target-container")
    told = _told(status, code, said, inside)
    if status in ("401", "403") or code in _REFUSED_CODES or kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return TargetRefused(f"{what}: access is denied ({told})", f"{target.identify}; they need the right to list, write and delete")
    if status in ("429", "503"):
        return SlowDown(f"{what}: {told}")
    if code in _WRONG_CODES or status in ("400", "413"):
        return PermanentError(f"{what}: {told}")
    return TargetError(f"{what}: {told}")


def _not_identified(what: str, status: str, said: str, inside: str, target: Target) -> TargetError:
    """Credentials could not be had. Which ones: obstore asks the host's own identity last, if it was given nothing else."""
    if "169.254.169.254" in said or "metadata.google" in said:
        return Unidentified(f"{what}: no credentials are given, and this host has no identity of its own", target.identify)
    if status.startswith("4") or "token request" not in said:
        return TargetRefused(f"{what}: the credentials cannot be used ({_told(status, '', said, inside)})", target.identify)
    return TargetError(f"{what}: no token could be had for the credentials ({_told(status, '', said, inside)})")


def _told(status: str, code: str, said: str, inside: str) -> str:
    """The same in few words."""
    message = _MESSAGE.search(said) or _TOKEN_ERROR.search(said)
    if status:
        return ": ".join(filter(None, (f"{status} {code}".strip(), message[1].strip()[:_SHOWN] if message else "")))
    reason = _REASON.search(inside)
    if "kind: Timeout" in inside:
        return "it did not answer in time"
    if "kind: Connect" in inside:
        return f"it cannot be reached ({reason[1]})" if reason else "it cannot be reached"
    first = _QUOTED.sub('"..."', _URL.sub(r"\1", " ".join(said.split())))
    return first.removeprefix("Generic MicrosoftAzure error: ").removeprefix("Generic GCS error: ")[:_SHOWN]
