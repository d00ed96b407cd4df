"""Azure Blob Storage, and servers that speak its protocol: https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import BinaryIO, ClassVar, cast

import click

from ...actor import SecretOption
from ...errors import ConfigurationError
from ...files import File
from ...source.source_file import SourceFile
from .._content import guess_content_type, md5_of
from .._object_client import Dialect
from .._object_store import SMALL, ListedPage, ObjectStoreActor
from .._parts import part_ranges, send_one_version, tried
from .credentials import Principal, credentials_of
from .list_page import parse_page

if find_spec("azure.identity") is None:  # loaded when the first token is needed; that it is missing shows now
    raise ModuleNotFoundError("No module named 'azure.identity'", name="azure.identity")

#: Of the protocol. Since 2021-02-12 names that XML cannot carry are listed percent-encoded.
_VERSION = "2023-11-03"
#: https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
_LONGEST_KEY, _MOST_SEGMENTS = 1024, 254
#: Characters that Azure does not take, or may not (same page). XML 1.0 cannot carry U+FFFE and U+FFFF either.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
#: https://learn.microsoft.com/azure/storage/common/storage-account-overview#storage-account-name; the secondary location has a host of its
#: own. Emulators and proxies may have other names.
_ACCOUNT, _OTHER_ACCOUNT = re.compile(r"[a-z0-9]{3,24}(?:-secondary)?"), re.compile(r"[A-Za-z0-9._-]+")
#: https://learn.microsoft.com/rest/api/storageservices/put-block-list
_MOST_PARTS = 50_000
_IDENTITIES = ("managed", "workload", "cli")
_MD5 = re.compile(r"[0-9a-f]{32}")


class AzureActor(ObjectStoreActor):
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
        click.Option(["--identity"], type=click.Choice(_IDENTITIES), help="Identity of this host to use, and no other credentials."),
        click.Option(["--endpoint-url"], metavar="URL", help="Blob service to use instead of https://ACCOUNT.blob.core.windows.net"),
    )
    server: ClassVar[str] = "Azure"
    headers: ClassVar[dict[str, str]] = {"x-ms-version": _VERSION}
    #: The codes: learn.microsoft.com, Blob service error codes.
    dialect: ClassVar[Dialect] = Dialect(
        container_is="container",
        cure="check --account-key, --sas-token, or --tenant-id, --client-id and --client-secret, or --identity",
        no_container="ContainerNotFound",
        refused=frozenset(
            {"AccountIsDisabled", "AuthenticationFailed", "AuthorizationFailure", "InvalidAuthenticationInfo", "PublicAccessNotPermitted"}
        ),
        permanent=frozenset(
            {
                "BlobImmutableDueToPolicy", "InvalidBlobType", "InvalidResourceName", "InvalidUri", "OutOfRangeInput",
                "RequestBodyTooLarge", "UnauthorizedBlobOverwrite",
            }
        ),
        # Of blocks: the next try sends all of them again.
        passing=frozenset({"BlobNotFound", "InvalidBlobOrBlock", "InvalidBlockList"}),
    )  # fmt: skip

    account: str | None = None
    account_key: str | None = None
    sas_token: str | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    identity: str | None = None

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        if not self.account:
            raise ConfigurationError("--account is missing", "name the storage account")
        if not (_OTHER_ACCOUNT if self.endpoint_url else _ACCOUNT).fullmatch(self.account):
            what = f"--account {self.account!r} cannot be the name of a storage account"
            raise ConfigurationError(what, "names have 3-24 small letters and digits")
        if self.client_secret and not (self.client_id and self.tenant_id):
            raise ConfigurationError("--client-secret needs --client-id and --tenant-id", "give all three")
        present = [name for name in ("account_key", "sas_token", "client_secret", "identity") if getattr(self, name)]
        if len(present) > 1:
            named = " and ".join(f"--{name.replace('_', '-')}" for name in present)
            raise ConfigurationError(f"{named} are ways to the same target", "give one of them")
        principal = Principal(self.identity, self.tenant_id, self.client_id, self.client_secret)
        cure = self.dialect.cure
        self._connect(credentials_of(self.account, self.account_key, self.sas_token, principal, self.base_url, cure))

    @property
    def base_url(self) -> str:
        """URL of the blob service."""
        return (self.endpoint_url or f"https://{self.account}.blob.core.windows.net").rstrip("/")

    def can_match(self, listed: File) -> bool:
        """An etag can be compared if it is an MD5. Azure computes that of a blob that is sent with one request."""
        return _MD5.fullmatch(listed.etag or "") is not None

    def matches(self, file: File, etag: str) -> bool:
        """Compare the MD5."""
        return self.can_match(File(file.key, etag=etag)) and md5_of(cast(SourceFile, file)) == etag

    def _fetch_page(self, prefix: str, token: str, limit: int | None = None) -> ListedPage:
        query = {"comp": "list", "restype": "container"}
        query |= {name: value for name, value in (("prefix", prefix), ("marker", token), ("maxresults", str(limit or ""))) if value}
        response = self._client.send("GET", self._client.about, query=query)
        return parse_page(self._client.checked(response, self._client.about).content)

    def _put(self, key: str, content: bytes, content_type: str) -> None:
        headers = {"Content-Type": content_type, "x-ms-blob-type": "BlockBlob"}
        self._client.checked(self._client.send("PUT", key, key, body=content, headers=headers), key)

    def _send_in_parts(self, file: SourceFile) -> None:
        """Send blocks, and make the blob of them in one step. Azure removes blocks that no blob is made of."""

        def send_block(number: int, content: BinaryIO, size: int) -> str:
            # Each try has a name of its own, so the blob is made of what the last try has sent. All names in a blob have the same length.
            name = secrets.token_hex(10)
            self._put_block(file.key, name, content, size)
            return name

        names = send_one_version(file, part_ranges(file.size, SMALL, _MOST_PARTS), send_block)
        tried(file, lambda: self._put_block_list(file, names))

    def _put_block(self, key: str, name: str, content: BinaryIO, size: int) -> None:
        query = {"comp": "block", "blockid": _block_id(name)}
        content.seek(0)
        self._client.checked(self._client.send("PUT", key, key, query, content, size), key)

    def _put_block_list(self, file: SourceFile, names: Mapping[int, str]) -> None:
        file.wait_for_request()
        listed = "".join(f"<Latest>{_block_id(names[number])}</Latest>" for number in sorted(names))
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
        headers = {"Content-Type": "application/xml", "x-ms-blob-content-type": guess_content_type(file.key)}
        self._client.checked(self._client.send("PUT", file.key, file.key, {"comp": "blocklist"}, body, headers=headers), file.key)

    def _refusal(self, key: str) -> str | None:
        """Azure takes a backslash for a slash, and leaves out a dot at the end of a segment. An account with a hierarchical namespace has
        no empty segments."""
        segments = key.split("/")
        if _CONTROL.search(key):
            return "it has a control character, U+FFFE or U+FFFF"
        if "\\" in key:
            return "it has a backslash, which Azure takes for a slash"
        if "" in segments:
            return "a part of its path is empty, which Azure may leave out"
        if any(segment.endswith(".") for segment in segments):
            return "a part of its path ends with a dot, which Azure may leave out"
        if len(key.encode("utf-16-le")) // 2 > _LONGEST_KEY:
            return f"it has more than {_LONGEST_KEY:,} characters"
        return f"its path has more than {_MOST_SEGMENTS} parts" if len(segments) > _MOST_SEGMENTS else None


def _block_id(name: str) -> str:
    return base64.b64encode(name.encode()).decode()
