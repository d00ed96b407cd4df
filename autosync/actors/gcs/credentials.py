"""Credentials for Google: the key of a service account, or the application default credentials.

They come from google-auth, which is loaded when the first token is needed.
"""

from __future__ import annotations

import json
import time
from datetime import UTC
from typing import Any

from .._bearer_tokens import MALFORMED, BearerTokens
from .._object_client import NoCredentials
from .._server_text import first_line
from .._token_cache import Token, token_of

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
#: How long a token is used that does not say when it expires, in seconds.
_UNKNOWN_EXPIRY = 600.0


class GoogleTokens(BearerTokens):
    """Authorizes requests with a token of Google's.

    Args:
        path: the JSON file with the key of a service account; None for the application default credentials.
        base_url: the URL of the storage, for messages.
        cure: what to do about credentials that are missing or refused.
    """

    def __init__(self, path: str | None, base_url: str, cure: str) -> None:
        super().__init__(base_url, cure)
        self._path = path
        self._credentials: Any = None

    def _request_token(self) -> Token:
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError, TransportError

        try:
            request = self._make_request()
            if self._credentials is None:
                self._credentials = self._load(request)
            self._credentials.refresh(request)
        except DefaultCredentialsError as error:
            raise NoCredentials(f"{self._base_url}: no credentials were found ({_first_line(error)})", self._cure) from None
        except RefreshError as error:
            is_passing = isinstance(error.__cause__, TransportError) or getattr(error, "retryable", False)
            kind = self._failed if is_passing else self._refused
            raise kind(_first_line(error)) from None
        except TransportError as error:
            raise self._failed(_first_line(error)) from None
        except OSError as error:
            raise self._unanswered(error) from None
        except (GoogleAuthError, ValueError) as error:
            raise self._refused(_first_line(error)) from None
        except MALFORMED as error:
            raise self._failed(_first_line(error)) from None
        expiry = self._credentials.expiry  # UTC, without a time zone
        expires = expiry.replace(tzinfo=UTC).timestamp() if expiry is not None else time.time() + _UNKNOWN_EXPIRY
        try:
            return token_of(self._credentials.token, expires)
        except ValueError as error:
            raise self._failed(_first_line(error)) from None

    def _make_request(self) -> Any:
        from google.auth.transport.requests import Request

        session = self._open_session()
        session.max_redirects = 0  # a redirected request would carry credentials to another server
        return Request(session=session)

    def _load(self, request: Any) -> Any:
        import google.auth

        found = self._service_account(self._path) if self._path else google.auth.default(scopes=[_SCOPE], request=request)[0]
        # A service account signs its tokens itself, so no service needs to be reached (https://google.aip.dev/auth/4111).
        return found.with_always_use_jwt_access(True) if hasattr(found, "with_always_use_jwt_access") else found

    def _service_account(self, path: str) -> Any:
        import google.oauth2.service_account

        try:
            with open(path, encoding="utf-8") as file:
                info = json.load(file)
        except OSError as error:
            raise self._refused(f"{path}: {error.strerror}") from None
        except ValueError:
            raise self._refused(f"{path} is not JSON") from None
        if not isinstance(info, dict) or not all(isinstance(info.get(name), str) for name in ("client_email", "private_key")):
            raise self._refused(f"{path} is not the key of a service account")
        make: Any = google.oauth2.service_account.Credentials
        try:
            return make.from_service_account_info({"token_uri": "https://oauth2.googleapis.com/token", **info}, scopes=[_SCOPE])
        except ValueError:
            raise self._refused(f"{path}: its private_key is no key in PEM format") from None


def _first_line(error: Exception) -> str:
    """What google-auth says: a code of RFC 6749 and a sentence, no secret. The response of the service, which may follow, is left out."""
    return first_line(str(error.args[0] if error.args else error)) or type(error).__name__
