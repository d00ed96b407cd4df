"""Translates what goes wrong with requests, for the actors that send theirs through the library requests."""

from __future__ import annotations

import re
from collections.abc import Container
from types import TracebackType

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from ..errors import PermanentError, SlowDown, TargetError, TargetRefused
from ._multipart import NothingSent
from ._proxies import CREDENTIALS_WANTED, CURE, with_scheme
from ._responses import ResponseError
from ._server_text import one_line
from ._urls import public_url

#: The target demands fewer requests (RFC 6585, 4; RFC 9110, 15.6.4).
SLOW = frozenset({429, 503})
#: Credentials are missing or not sufficient; nothing is at the URL.
_REFUSED = frozenset({401, 403, 404})
#: What http.client raises for a proxy that refuses the user or the password.
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: 407\b")
_REDIRECTION = range(300, 400)
#: The most characters of a key or a URL in a message.
_LONGEST = 4096
_CERTIFICATE = "if the server's certificate is right, name the file of those that signed it in REQUESTS_CA_BUNDLE"


class UnreadableResponse(TargetError):  # noqa: N818 - a finding about an error
    """The response cannot be read, or is not what the target's description says. A repeated request gets the same response."""


class translated:  # noqa: N801 - used like a function of contextlib's, which takes three times as long
    """Translate what requests raises inside a with-block into `TargetError`.

    Args:
        about: the key, the container, or the listing.
        url: the request's URL; what may be secret in it is left out of the message.
    """

    __slots__ = ("_about", "_url")

    def __init__(self, about: str, url: str) -> None:
        self._about = about
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, OSError):  # those of requests are; a CA bundle that cannot be read is a plain OSError
            raise error_of_exception(f"{self._about} at {public_url(self._url)}", error, self._url) from None


def proxy_refused(what: str, url: str) -> TargetRefused:
    """The error for a proxy that wants other credentials.

    Args:
        what: the request failed for, and where.
        url: the request's URL; "" if it is not known.
    """
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    name = f" by the proxy {public_url(with_scheme(proxy))}" if proxy else ""
    return TargetRefused(f"{what}{name}: {CREDENTIALS_WANTED}", CURE)


def error_of_exception(what: str, error: OSError, url: str = "") -> TargetError:
    """The error for an exception of requests.

    Args:
        what: the request failed for, and where.
        error: the exception.
        url: the request's URL.
    """
    what = one_line(what, _LONGEST)
    if isinstance(error, ResponseError):
        return UnreadableResponse(f"{what}: {one_line(str(error))}")
    if isinstance(error, requests.exceptions.ProxyError) and _TUNNEL_REFUSED.search(str(error)):
        return proxy_refused(what, url)
    is_about_certificates = isinstance(error, requests.exceptions.SSLError) or "TLS CA" in str(error)
    reason = reason_of(error)
    kind = NothingSent if isinstance(reason, NewConnectionError | ConnectTimeoutError) else TargetError
    return kind(f"{what}: {type(error).__name__}: {one_line(str(reason))}", _CERTIFICATE if is_about_certificates else "")


def reason_of(error: BaseException) -> object:
    """The reason inside an exception of requests, without the URL of the request."""
    inner = error.args[0] if isinstance(error, requests.RequestException | HTTPError) and error.args else error
    return getattr(inner, "reason", None) or inner


def kind_of_status(status: int, permanent: Container[int], slow: Container[int] = SLOW) -> type[TargetError]:
    """The kind of error that the status of a response means.

    Args:
        status: the HTTP status code of a response that is not a success.
        permanent: statuses that no retry cures.
        slow: statuses by which the target demands fewer requests.
    """
    if status in _REFUSED or status in _REDIRECTION:
        return TargetRefused
    if status in slow:
        return SlowDown
    return PermanentError if status in permanent else TargetError
