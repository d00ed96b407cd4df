"""Azurite, Microsoft's emulator of Azure Blob Storage (https://github.com/Azure/Azurite), as a server for tests.

`python -m lab.azurite` installs it; otherwise the first test that needs it does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote, urlencode
from xml.sax.saxutils import unescape

import requests

from .ports import free_port
from .servers import Missing, Server

#: The account that every Azurite has, and its well-known key.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_PINNED = Path(__file__).parent / "npm"
_INSTALLED = Path(__file__).parent.parent / ".azurite"
_NEVER = "2099-01-01T00:00:00Z"


def installed() -> Path:
    """The directory of an Azurite of the pinned version. It is installed once, which takes half a minute and 190 MB; other versions go.

    Raises:
        Missing: there is no npm.
        RuntimeError: npm could not install it.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Missing("npm of Node.js, which Azurite needs,")
    lock = (_PINNED / "package-lock.json").read_bytes()
    directory = _INSTALLED / hashlib.sha256(lock).hexdigest()[:16]
    if not directory.exists():
        # Made beside its place, so that what is there is whole, though several may be at it.
        making = _INSTALLED / f"making-{os.getpid()}"
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(_PINNED, making)
        words = [npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        run = subprocess.run(words, cwd=making, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if run.returncode:
            shutil.rmtree(making, ignore_errors=True)
            raise RuntimeError(f"npm could not install Azurite: {run.stderr.strip()[-500:]}")
        try:
            making.rename(directory)
        except OSError:
            shutil.rmtree(making)  # another one was quicker
    return directory


class Azurite(Server):
    """Azurite's blob service, in memory. Checks keys and signatures; takes a backslash for a slash; lists in the order of UTF-16. Has
    `PAGE` objects on a page of a listing instead of 5,000, which it takes minutes to store."""

    PAGE = 100

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        code = installed() / "node_modules/azurite/dist/src/blob"
        self._main = code / "main.js"
        # No option sets it. Its modules read this constant when they list.
        self._pages = directory / "pages.js"
        self._pages.write_text(f"require({json.dumps(str(code / 'utils/constants'))}).DEFAULT_LIST_BLOBS_MAX_RESULTS = {self.PAGE}\n")
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/{ACCOUNT}"

    def command(self) -> list[str]:
        return [
            str(shutil.which("node")), "--require", str(self._pages), str(self._main), "--inMemoryPersistence", "--silent",
            "--skipApiVersionCheck", "--disableTelemetry", "--disableProductStyleUrl", "--blobPort", str(self._port),
        ]  # fmt: skip

    def responds(self) -> bool:
        try:
            return requests.get(self.url, timeout=2).status_code < 500
        except requests.RequestException:
            return False

    def account_signature(self, permissions: str = "rwdlac") -> str:
        """A SAS token of the account (learn.microsoft.com, Create an account SAS)."""
        fields = {"sv": "2020-12-06", "ss": "b", "srt": "sco", "sp": permissions, "se": _NEVER}
        lines = [ACCOUNT, permissions, fields["ss"], fields["srt"], "", _NEVER, "", "", fields["sv"], "", ""]
        return urlencode({**fields, "sig": _signed(lines)})

    def signature(self, container: str, permissions: str = "racwdl", expires: str = _NEVER) -> str:
        """A SAS token of a container (learn.microsoft.com, Create a service SAS)."""
        fields = {"sv": "2020-12-06", "sr": "c", "sp": permissions, "se": expires}
        lines = [permissions, "", expires, f"/blob/{ACCOUNT}/{container}", "", "", "", fields["sv"], fields["sr"], *[""] * 7]
        return urlencode({**fields, "sig": _signed(lines)})

    def create(self, container: str) -> None:
        """Make a container."""
        self._request("PUT", container, "restype=container")

    def remove(self, container: str) -> None:
        """Remove a container; the more there is in memory, the longer everything takes."""
        self._request("DELETE", container, "restype=container")

    def put(self, container: str, key: str, content: bytes) -> None:
        """Store an object as another program would, under any name."""
        self._request("PUT", f"{container}/{quote(key)}", "", content, {"x-ms-blob-type": "BlockBlob"})

    def read(self, container: str, key: str) -> requests.Response:
        """An object, with its headers."""
        return self._request("GET", f"{container}/{quote(key)}", "")

    def blocks(self, container: str, key: str) -> int:
        """How many blocks were sent for an object that is no object yet."""
        try:
            return self._request("GET", f"{container}/{quote(key)}", "comp=blocklist&blocklisttype=uncommitted").text.count("<Block>")
        except requests.HTTPError as error:
            if error.response.status_code == 404:
                return 0
            raise

    def names(self, container: str) -> list[str]:
        """What a container has."""
        found: list[str] = []
        marker: str | None = ""
        while marker is not None:
            page, marker = self.page(container, marker)
            found += page
        return found

    def page(self, container: str, marker: str = "") -> tuple[list[str], str | None]:
        """Names on one page of a listing, and the marker of the next page."""
        text = self._request("GET", container, f"restype=container&comp=list&marker={quote(marker, safe='')}").text
        (following,) = re.findall(r"<NextMarker>(.*?)</NextMarker>", text, re.DOTALL) or [""]
        return [unescape(name) for name in re.findall(r"<Name>(.*?)</Name>", text, re.DOTALL)], unescape(following) or None

    def _request(
        self, method: str, path: str, query: str, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> requests.Response:
        request = requests.Request(method, self.url, data=content, headers=headers).prepare()
        request.url = f"{self.url}/{path}?{query}&{self.account_signature()}"  # requests would leave out dot segments
        with requests.Session() as session:
            response = session.send(request, timeout=20)
        response.raise_for_status()
        return response


def _signed(lines: list[str]) -> str:
    text = "\n".join(lines).encode()
    return base64.b64encode(hmac.new(base64.b64decode(ACCOUNT_KEY), text, hashlib.sha256).digest()).decode()


if __name__ == "__main__":
    try:
        installed()
    except Missing as missing:
        print(f"{missing} is not installed: there are no tests with it")
    except RuntimeError as error:  # the tests report it too
        print(error)
