"""Login and connections to Swift. Tokens come from keystoneauth, requests go through python-swiftclient."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import swiftclient.client
from keystoneauth1.identity import v2, v3
from keystoneauth1.identity.base import BaseIdentityPlugin
from keystoneauth1.session import Session
from swiftclient.authv1 import PasswordPlugin

from ...errors import ConfigurationError, TargetError, TargetRefused
from .._sessions import session
from .errors import status_of, translated

T = TypeVar("T")

#: Timeouts for connecting and for a response, in seconds. Swift checks every segment before it stores a manifest.
_TIMEOUT = (30, 120)
_LOGIN_TIMEOUT = 30
_UNAUTHORIZED = 401
#: Host of Rackspace's identity service, which expects an API key in place of a password.
_RACKSPACE = "identity.api.rackspacecloud.com"
_VERSION = re.compile(r"v?([123])(?:\.[0-9]+)?")

#: The part of an account's URL behind that of the server (https://docs.openstack.org/api-ref/object-store/, discoverability).
_ACCOUNT = re.compile(r"/v[0-9.]+(?:/.*)?$")

VERSIONS = ("1", "2", "3", "rackspace")


@dataclass(frozen=True)
class Login:
    """Credentials from the actor's options; None for an option that is not set.

    Attributes:
        url: the URL of the identity service.
        version: one of `VERSIONS`; None to derive it from the URL.
        credential: an application credential and its secret.
    """

    url: str
    version: str | None = None
    user: str | None = None
    password: str | None = None
    project: str | None = None
    user_domain: str = "Default"
    project_domain: str = "Default"
    credential: tuple[str, str] | None = None


class _ApiKey(v2.Auth):
    """Rackspace's addition to version 2 (https://docs.rackspace.com/docs/cloud-identity, RAX-KSKEY)."""

    def __init__(self, url: str, user: str, key: str, tenant: str | None) -> None:
        super().__init__(url, tenant_id=tenant)
        self._user = user
        self._key = key

    def get_auth_data(self, headers: MutableMapping[str, str] | None = None) -> dict[str, object]:
        return {"RAX-KSKEY:apiKeyCredentials": {"username": self._user, "apiKey": self._key}}

    def get_cache_id_elements(self) -> dict[str, str | None]:
        return {"auth_url": self.auth_url, "user": self._user, "key": self._key}


def identity_of(login: Login) -> BaseIdentityPlugin:
    """The plugin of keystoneauth that gets tokens with these credentials.

    Raises:
        ConfigurationError: an option that this version needs is missing.
    """
    version = login.version or _version_of(login.url)
    if login.credential:
        if version != "3":
            raise ConfigurationError(
                "application credentials need version 3 of the identity service", "correct --auth-url or --auth-version"
            )
        return v3.ApplicationCredential(_with(login.url, "v3"), login.credential[1], application_credential_id=login.credential[0])
    if not login.user or not login.password:
        missing = "--password" if login.user else "--user"
        raise ConfigurationError(f"{missing} is missing", "give --user and --password, or an application credential")
    if version == "1":
        return cast(BaseIdentityPlugin, PasswordPlugin(login.url, login.user, login.password))
    if version == "rackspace":
        return _ApiKey(_with(login.url, "v2.0"), login.user, login.password, login.project)
    if not login.project:
        raise ConfigurationError("--project is missing", "name the project (tenant) that the container is in")
    if version == "2":
        return v2.Password(_with(login.url, "v2.0"), login.user, login.password, tenant_name=login.project)
    return v3.Password(
        _with(login.url, "v3"), login.password, username=login.user, user_domain_name=login.user_domain,
        project_name=login.project, project_domain_name=login.project_domain,
    )  # fmt: skip


def _version_of(url: str) -> str:
    """The version of the identity service in a URL; "3" if the URL has none."""
    parts = urlsplit(url)
    if parts.hostname == _RACKSPACE:
        return "rackspace"
    found = _VERSION.fullmatch(parts.path.rstrip("/").rpartition("/")[2])
    return found[1] if found else "3"


def _with(url: str, version: str) -> str:
    last = url.rstrip("/").rpartition("/")[2]
    return url.rstrip("/") if _VERSION.fullmatch(last) else f"{url.rstrip('/')}/{version}"


class Access:
    """Tokens and connections for many threads at once.

    Args:
        login: credentials.
        region: the region of the object store in the catalog; None for the only one, or the first.
        interface: `public`, `internal` or `admin`.
        storage_url: URL of the account, in place of that in the catalog.
    """

    def __init__(self, login: Login, region: str | None, interface: str, storage_url: str | None) -> None:
        self.auth_url = login.url
        self._auth = Session(identity_of(login), session=session(1), timeout=_LOGIN_TIMEOUT, user_agent="autosync")
        self._region = region
        self._interface = interface
        self._url = storage_url and storage_url.rstrip("/")
        self._lock = threading.Lock()
        #: swiftclient's connections are for one thread at a time.
        self._idle: deque[tuple[Any, Any]] = deque()

    def request(self, about: str, do: Callable[[str, str, Any], T]) -> T:
        """Send a request to Swift.

        Args:
            about: the key or the container, for error messages.
            do: sends it, with the URL of the account, a token, and swiftclient's `http_conn`. Called once more if the token is refused.

        Returns:
            The value that `do` returns.

        Raises:
            TargetError: see docs/targets/swift.md.
        """
        with self._connection() as connection:
            url, token = self._url or "", self._token()
            try:
                with translated(about, url):
                    return do(url, token, connection)
            except TargetRefused as error:
                if status_of(error) != _UNAUTHORIZED or not self._forget(token):
                    raise
            with translated(about, url):
                return do(url, self._token(), connection)

    def has_middleware(self, name: str) -> bool:
        """Whether this Swift has a middleware; True if the server does not list its middleware."""

        def do(url: str, token: str, connection: Any) -> dict[str, Any]:
            info_url = _ACCOUNT.sub("/info", url)
            try:
                found: dict[str, Any] = swiftclient.client.get_capabilities((urlsplit(info_url), connection[1]))
            except ValueError:  # HTML in place of JSON
                return {name: {}}
            return found

        try:
            return name in self.request("the list of capabilities", do)
        except TargetError as error:
            if status_of(error):
                return True
            raise

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop()[1].close()

    def _token(self) -> str:
        with translated("the login", self.auth_url):
            return str(self._auth.get_token())

    def _forget(self, token: str) -> bool:
        """Discard an expired token. Returns whether there is a new one, or will be with the next request."""
        with self._lock:
            return self._token() != token or self._auth.invalidate()

    @contextmanager
    def _connection(self) -> Iterator[tuple[Any, Any]]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        finally:
            self._idle.append(connection)

    def _connect(self) -> tuple[Any, Any]:
        self._url = self._url or self._endpoint()
        # Otherwise swiftclient writes a part of each token into its log.
        swiftclient.client.logger_settings["reveal_sensitive_prefix"] = 0
        made = swiftclient.client.http_connection(self._url, timeout=_TIMEOUT)
        made[1].request_session = session(1, has_pages=True, stored="multipart-manifest=get")
        # A redirected DELETE would become a GET, and the token would go to the host that the redirect names.
        made[1].requests_args["allow_redirects"] = False
        return (made[0], made[1])

    def _endpoint(self) -> str:
        with translated("the login", self.auth_url):
            found = self._auth.get_endpoint(service_type="object-store", interface=self._interface, region_name=self._region)
        if not found:
            raise TargetRefused(f"the login at {self.auth_url}: it names no object store", "give --storage-url")
        return found.rstrip("/")
