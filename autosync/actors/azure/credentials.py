"""Credentials for Azure: the key of the account, a shared access signature, or a token of Microsoft Entra ID.

Tokens come from azure-identity, which is loaded when the first one is needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import unquote

from ...errors import TargetError, TargetRefused
from .._bearer_tokens import MALFORMED, BearerTokens
from .._object_client import Credentials, NoCredentials
from .._server_text import one_line
from .._token_cache import Token, token_of
from .shared_key import SharedKey

_SCOPE = "https://storage.azure.com/.default"
#: What a query may be made of (RFC 3986, 3.4). A signature without `sig` authorizes nothing.
_SIGNATURE = re.compile(r"(?=(?:.*&)?sig=[^&])[A-Za-z0-9\-._~:@!$'()*+,;=&%/?]+")
_VALUE = re.compile(r"\bsig=([^&]*)")


class Principal(NamedTuple):
    """How tokens are obtained.

    Attributes:
        identity: `managed`, `workload` or `cli`; None for a service principal or for whatever there is.
        tenant_id: the tenant of the service principal.
        client_id: the client ID of the service principal, or of the identity of this host.
        client_secret: the secret of the service principal.
    """

    identity: str | None
    tenant_id: str | None
    client_id: str | None
    client_secret: str | None


def credentials_of(account: str, key: str | None, signature: str | None, principal: Principal, base_url: str, cure: str) -> Credentials:
    """The credentials that the options name; without any, those of the environment.

    Args:
        account: name of the storage account.
        key: the account's key.
        signature: a shared access signature.
        principal: how tokens are obtained.
        base_url: the URL of the blob service.
        cure: what to do about credentials that cannot be used.
    """
    if not (key or signature or principal.client_secret or principal.identity):
        key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or os.environ.get("AZURE_STORAGE_KEY")
        signature = None if key else os.environ.get("AZURE_STORAGE_SAS_TOKEN")
    if key:
        return SharedKey(account, key, base_url, cure)
    return Signature(signature, base_url, cure) if signature else EntraTokens(principal, base_url, cure)


class Signature:
    """Authorizes requests with a shared access signature, which is a query.

    Args:
        signature: the query, with or without `?`.
        base_url: the URL of the blob service.
        cure: what to do about a signature that cannot be used.
    """

    def __init__(self, signature: str, base_url: str, cure: str) -> None:
        text = signature.strip()
        text = text.partition("?")[2] if "://" in text else text.lstrip("?")  # the portal has a URL with the signature beside it
        query = text.replace("+", "%2B")  # base64 has plus signs, and a query means spaces by them
        self.secret_query = query if _SIGNATURE.fullmatch(query) else ""
        found = _VALUE.search(self.secret_query)
        self.secret = unquote(found[1]) if found else ""
        self._base_url = base_url
        self._cure = cure

    def authorize(self, method: str, path: str, query: Mapping[str, str], headers: dict[str, str]) -> None:
        """See `Credentials`; the session adds the signature."""
        if not self.secret_query:
            what = f"{self._base_url}: the credentials cannot be used (the shared access signature is not a query with sig=)"
            raise TargetRefused(what, self._cure)

    def close(self) -> None:
        """Do nothing; there are no connections."""


class EntraTokens(BearerTokens):
    """Authorizes requests with a token of Microsoft Entra ID.

    Args:
        principal: how tokens are obtained.
        base_url: the URL of the blob service.
        cure: what to do about credentials that are missing or refused.
    """

    def __init__(self, principal: Principal, base_url: str, cure: str) -> None:
        super().__init__(base_url, cure)
        self._principal = principal
        self._credential: Any = None

    def _request_token(self) -> Token:
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.identity import CredentialUnavailableError

        try:
            if self._credential is None:
                self._credential = self._make_credential()
            found = self._credential.get_token(_SCOPE)
        except CredentialUnavailableError as error:
            raise self._unavailable(error) from None
        except ClientAuthenticationError as error:
            cause = error.__cause__  # azure-identity makes this error of any other
            is_refusal = getattr(error.response, "status_code", 400) < 500 and not isinstance(cause, AzureError | OSError)
            raise (self._unusable(error) if is_refusal else self._no_token(cause or error)) from None
        except AzureError as error:
            raise self._no_token(error) from None
        except OSError as error:
            raise self._unanswered(error) from None
        except ValueError as error:  # something is missing in the environment
            raise self._unusable(error) from None
        except MALFORMED as error:
            raise self._no_token(error) from None
        try:
            return token_of(found.token, float(found.expires_on))
        except (ValueError, TypeError) as error:
            raise self._no_token(error) from None

    def _make_credential(self) -> Any:
        import azure.identity as library
        from azure.core.pipeline.transport import RequestsTransport

        sent: dict[str, Any] = {"transport": RequestsTransport(session=self._open_session(), session_owner=False)}
        identity, tenant_id, client_id, client_secret = self._principal
        if client_secret:
            return library.ClientSecretCredential(str(tenant_id), str(client_id), client_secret, retry_total=1, **sent)
        by_id: dict[str, Any] = {"client_id": client_id} if client_id else {}
        in_tenant: dict[str, Any] = {"tenant_id": tenant_id} if tenant_id else {}
        if identity == "managed":
            return library.ManagedIdentityCredential(**by_id, **sent)
        if identity == "workload":
            return library.WorkloadIdentityCredential(**by_id, **in_tenant, retry_total=1, **sent)
        if identity == "cli":
            return library.AzureCliCredential(**in_tenant)
        # As DefaultAzureCredential, without what developers use at their desks but for `az login`.
        chain: list[Any] = [library.EnvironmentCredential(retry_total=1, **sent)]
        with suppress(ValueError):  # this host has none
            chain.append(library.WorkloadIdentityCredential(**by_id, **in_tenant, retry_total=1, **sent))
        return library.ChainedTokenCredential(*chain, library.ManagedIdentityCredential(**by_id, **sent), library.AzureCliCredential())

    def _unavailable(self, error: Exception) -> TargetError:
        if self._principal.identity == "managed":
            return NoCredentials(f"{self._base_url}: this host has no identity of its own ({_first_line(error)})", self._cure)
        return self._unusable(error)

    def _unusable(self, error: Exception) -> TargetError:
        if self._credential is not None and hasattr(self._credential, "credentials"):
            refused = _refused_of_chain(str(error))
            reason = refused or "no credentials were found, and this host has no identity of its own"
            return NoCredentials(f"{self._base_url}: {reason}", self._cure)
        name = f"{self._principal.identity} identity: " if self._principal.identity else ""
        return self._refused(f"{name}{_first_line(error)}")

    def _no_token(self, error: BaseException) -> TargetError:
        error = getattr(error, "inner_exception", None) or error
        return self._unanswered(error) if isinstance(error, OSError) else self._failed(_first_line(error))


def _refused_of_chain(text: str) -> str:
    """Which credentials of a chain were refused, and why; "" if there are none. After that one, the chain tries no other."""
    refused = [line.strip() for line in text.splitlines() if line.startswith("\t") and "Authentication failed" in line]
    return f"the credentials of the environment cannot be used ({one_line(refused[-1])})" if refused else ""


def _first_line(error: BaseException) -> str:
    """What azure-identity says of credentials: a code of Entra ID and a sentence, no secret."""
    return one_line(str(getattr(error, "message", None) or error))
