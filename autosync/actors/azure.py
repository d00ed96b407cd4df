"""Azure Blob Storage, and servers that speak its protocol."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import click
from obstore.store import AzureStore, ObjectStore

from ..actor import SecretOption
from ..errors import ConfigurationError
from ._obstore import ObstoreActor

#: https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
_LONGEST_KEY, _MOST_SEGMENTS = 1024, 254
#: https://learn.microsoft.com/rest/api/storageservices/put-block-list
_MOST_PARTS = 50_000
#: What obstore calls the identities that a host may have.
_IDENTITIES = {"managed": "managed_identity", "workload": "workload_identity", "cli": "azure_cli"}


class AzureActor(ObstoreActor):
    """Block blobs in a container of a storage account."""

    container_is: ClassVar[str] = "container"
    container_name: ClassVar[re.Pattern[str]] = re.compile(r"(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*|\$(?:root|web)")
    options: ClassVar[Sequence[click.Option]] = (
        click.Option(["--account"], metavar="NAME", help="Storage account."),
        SecretOption(["--account-key"], help="Key of the storage account."),
        SecretOption(["--sas-token"], help="Shared access signature, for the account or the container."),
        click.Option(["--tenant-id"], metavar="ID", help="Tenant of the service principal."),
        click.Option(["--client-id"], metavar="ID", help="Client ID of the service principal, or of the identity of this host."),
        SecretOption(["--client-secret"], help="Secret of the service principal."),
        click.Option(["--identity"], type=click.Choice([*_IDENTITIES]), help="Identity of this host to use, and no other credentials."),
        click.Option(["--endpoint-url"], metavar="URL", help="Blob service to use instead of https://ACCOUNT.blob.core.windows.net"),
    )
    server: ClassVar[str] = "Azure"
    identify: ClassVar[str] = "check --account-key, --sas-token, or --tenant-id, --client-id and --client-secret, or --identity"
    most_parts: ClassVar[int] = _MOST_PARTS

    account: str | None = None
    account_key: str | None = None
    sas_token: str | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    identity: str | None = None
    endpoint_url: str | None = None

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        if not self.account:
            raise ConfigurationError("--account is missing", "name the storage account")
        if self.client_secret and not (self.client_id and self.tenant_id):
            raise ConfigurationError("--client-secret needs --client-id and --tenant-id", "give all three")
        given = [name for name in ("account_key", "sas_token", "client_secret", "identity") if getattr(self, name)]
        if len(given) > 1:
            named = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ConfigurationError(f"{named} are ways to the same target", "give one of them")

    @property
    def base_url(self) -> str:
        """The blob service."""
        return (self.endpoint_url or f"https://{self.account}.blob.core.windows.net").rstrip("/")

    def _open(self, **how: Any) -> ObjectStore:
        return AzureStore(str(self.target_container), account_name=self.account, endpoint=self.base_url, **self._credentials(), **how)

    def _credentials(self) -> dict[str, Any]:
        """For obstore, which takes what the environment has as well: so its choice among them is made here, if anything is given."""
        principal = {name: value for name in ("client_id", "tenant_id") if (value := getattr(self, name))}
        if self.account_key:
            return {"account_key": self.account_key, "credential_type": "access_key"}
        if self.sas_token:
            return {"sas_key": self.sas_token.lstrip("?"), "credential_type": "sas_token"}
        if self.client_secret:
            return {**principal, "client_secret": self.client_secret, "credential_type": "client_secret"}
        if self.identity:
            return {**principal, "credential_type": _IDENTITIES[self.identity]}
        return principal

    def _refusal(self, key: str) -> str | None:
        """Azure takes a backslash for a slash, and leaves out a dot at the end of a segment."""
        segments = key.split("/")
        if "\\" in key:
            return "it has a backslash, which Azure takes for a slash"
        if any(segment.endswith(".") for segment in segments):
            return "a part of its path ends with a dot, which Azure may leave out"
        if len(key.encode("utf-16-le")) // 2 > _LONGEST_KEY:
            return f"it has more than {_LONGEST_KEY:,} characters"
        return f"its path has more than {_MOST_SEGMENTS} parts" if len(segments) > _MOST_SEGMENTS else None
