"""Access tokens: obtained by one thread at a time, and replaced before they expire."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

#: A token is replaced when it has less than this left, in seconds.
_EARLY = 300.0


class Token(NamedTuple):
    """An access token.

    Attributes:
        text: what a request carries.
        expires: seconds since the epoch.
    """

    text: str
    expires: float


def token_of(text: object, expires: float) -> Token:
    """A token.

    Raises:
        ValueError: the text cannot be the value of a header (RFC 6750, 2.1). The error does not contain the text.
    """
    if not (isinstance(text, str) and text.isascii() and text.isprintable() and text):
        raise ValueError("the service gave a token that is none")
    return Token(text, expires)


class TokenCache:
    """The current token of one set of credentials.

    Args:
        request_token: obtains a new one; it may raise anything.
    """

    def __init__(self, request_token: Callable[[], Token]) -> None:
        self._request_token = request_token
        self._token: Token | None = None
        self._lock = threading.Lock()
        self._last_error: tuple[float, Exception] | None = None

    @property
    def last(self) -> str:
        """The text of the last token; "" if none was obtained yet."""
        return self._token.text if self._token is not None else ""

    def token(self) -> str:
        """The text of a valid token. While one thread replaces a token that is still valid, the others use that.

        Raises:
            Exception: what `request_token` raised. All threads that waited for it raise the same.
        """
        token = self._token
        left = token.expires - time.time() if token is not None else 0.0
        if token is not None and left > _EARLY:
            return token.text
        since = time.monotonic()
        if token is not None and left > 0:
            if not self._lock.acquire(blocking=False):
                return token.text
        else:
            self._lock.acquire()
        try:
            return self._replaced(token, since).text
        finally:
            self._lock.release()

    def _replaced(self, before: Token | None, since: float) -> Token:
        if self._token is not None and self._token is not before:
            return self._token
        if self._last_error is not None and self._last_error[0] >= since:
            raise self._last_error[1]
        try:
            self._token = self._request_token()
        except Exception as error:
            if before is not None and before.expires > time.time():
                return before
            self._last_error = (time.monotonic(), error)
            raise
        return self._token
