"""OpenStack Swift as a server for tests, and a stand-in for Keystone, its identity service."""

from __future__ import annotations

import json
import sys
import uuid
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from autosync.actor import Actor
from autosync.actors import load

from .http_service import HttpService
from .ports import free_port
from .servers import Missing, Server
from .swiftd import KEY, USER

_PARTS = ("account", "container", "object", "proxy")


class Swift(Server):
    """Swift itself (lab/swiftd.py), with its own simple accounts (tempauth).

    Args:
        directory: for what it stores.
        without: parts of it to leave out: "bulk", "slo".
        page: so many objects are on a page of a listing.
    """

    def __init__(self, directory: Path, *without: str, page: int = 1000) -> None:
        super().__init__(directory)
        try:
            import swift  # noqa: F401
        except ImportError as error:
            raise Missing("OpenStack Swift") from error
        self._without = without
        self._page = page
        self._login: tuple[str, str] | None = None
        self._ports = [free_port() for _ in _PARTS]
        self._server = f"http://127.0.0.1:{self._ports[-1]}"
        #: For --auth-url, of version 1.
        self.url = f"{self._server}/auth/v1.0"

    def command(self) -> list[str]:
        program = str(Path(__file__).parent / "swiftd.py")
        ports = ",".join(map(str, self._ports))
        return [sys.executable, "-W", "ignore", program, str(self.directory), ports, str(self._page), *self._without]

    def responds(self) -> bool:
        try:
            return requests.get(f"{self._server}/healthcheck", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def options(self, container: str) -> list[str]:
        """For the commands."""
        return ["--actor=swift", f"--auth-url={self.url}", f"--user={USER}", f"--target-container={container}"]

    def login(self, user: str = USER, key: str = KEY) -> tuple[str, str]:
        """A token, and the URL of the account."""
        response = requests.get(self.url, headers={"X-Auth-User": user, "X-Auth-Key": key}, timeout=20)
        response.raise_for_status()
        return response.headers["X-Auth-Token"], response.headers["X-Storage-Url"]

    def request(self, method: str, path: str, content: bytes = b"", **headers: str) -> requests.Response:
        """One request, as any client might make it; in the names of headers, _ stands for -."""
        token, url = self._login = self._login or self.login()
        request = requests.Request(method, url, data=content, headers={name.replace("_", "-"): value for name, value in headers.items()})
        prepared = request.prepare()
        prepared.headers["X-Auth-Token"] = token
        prepared.url = f"{url}/{path}"  # requests would leave out dot segments
        with requests.Session() as session:
            response = session.send(prepared, timeout=20)
        response.raise_for_status()
        return response

    def create(self, container: str, **headers: str) -> None:
        """Make a container."""
        self.request("PUT", container, b"", **headers)

    def put(self, container: str, key: str, content: bytes) -> None:
        """Store an object as another program would, under any name."""
        self.request("PUT", f"{container}/{quote(key)}", content)

    def read(self, container: str, key: str) -> requests.Response:
        """An object, with its headers."""
        return self.request("GET", f"{container}/{quote(key)}")

    def names(self, container: str) -> list[str]:
        """What a container has; [] if there is no such container."""
        try:
            found: list[str] = []
            while len(page := self.page(container, found[-1] if found else "")) == self._page:
                found += page
            return found + page
        except requests.HTTPError as error:
            if error.response.status_code == 404:
                return []
            raise

    def page(self, container: str, after: str = "") -> list[str]:
        """The names on one page of a listing."""
        return [one["name"] for one in self.request("GET", f"{container}?format=json&marker={quote(after, safe='')}").json()]


class Keystone(HttpService):
    """A stand-in for Keystone, versions 2 and 3, and for Rackspace's: gives out tokens of a Swift, to one user of one project, and a
    catalog with two regions. Written from https://docs.openstack.org/api-ref/identity/ and Rackspace's description of its extension.

    Args:
        swift: whose tokens they are.
    """

    USER, PASSWORD, PROJECT, DOMAIN = "anna", "pass-word", "photos", "Default"
    CREDENTIAL, SECRET, API_KEY = "f00d", "credential-secret", "api-key"

    def __init__(self, swift: Swift) -> None:
        self._swift = swift
        #: How often a token was given out.
        self.tokens_issued = 0
        keystone = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                requested = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                responses = {"/v3/auth/tokens": keystone._third, "/v2.0/tokens": keystone._second}
                status, headers, body = responses[self.path](requested["auth"]) if self.path in responses else (404, {}, {})
                self.send_response(status)
                content = json.dumps(body).encode()
                for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler)

    def _third(self, auth: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        domain = {"name": self.DOMAIN}
        user = {"name": self.USER, "password": self.PASSWORD, "domain": domain}
        scope = {"project": {"name": self.PROJECT, "domain": domain}}
        by_password = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        credential = {"id": self.CREDENTIAL, "secret": self.SECRET}
        by_credential = {"identity": {"methods": ["application_credential"], "application_credential": credential}}
        if auth not in (by_password, by_credential):
            return 401, {}, {"error": {"code": 401, "message": "The request you have made requires authentication."}}
        token, url = self._token()
        endpoints = [
            {"interface": kind, "region": region, "region_id": region, "url": where, "id": f"{kind}{region}"}
            for region, where in (("one", url), ("two", "http://127.0.0.1:1/v1/AUTH_lab"))
            for kind in ("public", "internal")
        ]
        catalog = [{"type": "object-store", "name": "swift", "id": "1", "endpoints": endpoints}]
        times = {"issued_at": "2020-01-01T00:00:00.000000Z", "expires_at": "2099-01-01T00:00:00.000000Z"}
        return 201, {"X-Subject-Token": token}, {"token": {**times, "methods": ["password"], "catalog": catalog, "user": {"name": "x"}}}

    def _second(self, auth: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        by_password = {"passwordCredentials": {"username": self.USER, "password": self.PASSWORD}, "tenantName": self.PROJECT}
        by_key = {"RAX-KSKEY:apiKeyCredentials": {"username": self.USER, "apiKey": self.API_KEY}}
        if auth not in (by_password, by_key):
            return 401, {}, {"unauthorized": {"code": 401, "message": "Unable to authenticate user with credentials provided."}}
        token, url = self._token()
        endpoints = [{"region": "ONE", "tenantId": "1", "publicURL": url, "internalURL": url}]
        catalog = [{"type": "object-store", "name": "cloudFiles", "endpoints": endpoints}]
        access = {"token": {"id": token, "expires": "2099-01-01T00:00:00Z"}, "serviceCatalog": catalog, "user": {"id": "1", "name": "x"}}
        return 200, {}, {"access": access}

    def _token(self) -> tuple[str, str]:
        self.tokens_issued += 1
        return self._swift.login()


def new_container(server: Swift) -> str:
    """Make an empty container. Returns its name."""
    name = f"t{uuid.uuid4().hex[:16]}"
    server.create(name)
    return name


def swift_actor(server: Swift, container: str, **change: Any) -> Actor:
    """An actor for a container, with segments of 1 MiB.

    Args:
        server, container: its target.
        change: other settings, or others for these.
    """
    settings = {"target_container": container, "auth_url": server.url, "user": USER, "password": KEY, "segment_size": 1}
    return load("swift")(**{**settings, **change})
