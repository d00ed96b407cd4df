"""Credentials whose requests carry an access token (RFC 6750), which a library of the vendor's obtains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import TargetError, TargetRefused
from ._errors import error_of_exception
from ._sessions import session as new_session
from ._token_cache import Token, TokenCache

if TYPE_CHECKING:
    import requests

#: What the libraries raise for a response that is JSON of another form: they do not check it.
MALFORMED = (AttributeError, TypeError, LookupError, ArithmeticError, RecursionError)


class BearerTokens(ABC):
    """Authorizes requests with a token; see `Credentials`.

    Args:
        base_url: the URL of the storage, for messages.
        cure: what to do about credentials that are missing or refused.
    """

    secret_query = ""

    def __init__(self, base_url: str, cure: str) -> None:
        self._base_url = base_url
        self._cure = cure
        self._session: requests.Session | None = None
        self._tokens = TokenCache(self._request_token)

    def authorize(self, method: str, path: str, query: Mapping[str, str], headers: dict[str, str]) -> None:
        """Add Authorization; see `Credentials`."""
        headers["Authorization"] = f"Bearer {self._tokens.token()}"

    @property
    def secret(self) -> str:
        """The last token; "" if none was obtained yet."""
        return self._tokens.last

    def close(self) -> None:
        """Close the connections to the services that give tokens."""
        if self._session is not None:
            self._session.close()

    @abstractmethod
    def _request_token(self) -> Token:
        """Obtain a new token. One thread at a time calls this.

        Raises:
            TargetError: there is none: for the credentials, or for now.
        """

    def _open_session(self) -> requests.Session:
        """The session for the vendor's library, which `close` closes. The first call makes it."""
        if self._session is None:
            self._session = new_session(4)
        return self._session

    def _refused(self, reason: str) -> TargetRefused:
        """The error for credentials that no retry makes good."""
        return TargetRefused(f"{self._base_url}: the credentials cannot be used ({reason})", self._cure)

    def _unanswered(self, error: OSError) -> TargetError:
        """The error for an exception of requests, or of a session with bounded responses."""
        return error_of_exception(f"a token for {self._base_url}", error)

    def _failed(self, reason: str) -> TargetError:
        """The error for a service that gave no token this time."""
        return TargetError(f"{self._base_url}: no token could be had for the credentials ({reason})")
