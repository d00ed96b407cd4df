"""Real parts for the tests. A part that is missing skips on a laptop, and fails where CI=true."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from autosync.testing import Content
from lab.hosts import Host
from lab.servers import Missing, Moto, S3Server, SeaweedFS, Server, Valkey, wait_until

BIN = Path(sys.executable).parent
AnyServer = TypeVar("AnyServer", bound=Server)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A process forks only as long as it has one thread; other tests leave some behind."""
    items.sort(key=lambda item: item.path.name not in ("test_apart.py", "test_processes.py"))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings, credentials or state of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(("AUTOSYNC_", "AWS_", "AZURE_", "BOTO_", "CELERY_", "GOOGLE_", "OS_", "ST_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def lacking(what: str) -> NoReturn:
    """This machine lacks something that the test needs: it is skipped on a laptop, and fails where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def running(make: Callable[[], AnyServer]) -> Iterator[AnyServer]:
    """For fixtures: a server as long as it is needed."""
    try:
        server = make()
    except Missing as missing:
        lacking(f"{missing} is not installed")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey for the whole session."""
    yield from running(lambda: Valkey(tmp_path_factory.mktemp("valkey")))


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey for one test, which may kill, freeze or empty it."""
    yield from running(lambda: Valkey(tmp_path / "valkey"))


@pytest.fixture
def broker(valkey: Valkey) -> str:
    """The URL of an empty broker."""
    valkey.client().flushall()
    return valkey.url


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """SeaweedFS for the whole session."""
    yield from running(lambda: SeaweedFS(tmp_path_factory.mktemp("seaweed")))


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """moto's server for the whole session."""
    yield from running(lambda: Moto(tmp_path_factory.mktemp("moto")))


class Bucket:
    """One bucket of a running S3 server, made for one test."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.name = f"t{uuid.uuid4().hex[:16]}"
        self.client = server.client()
        self.client.create_bucket(Bucket=self.name)

    def sizes(self) -> dict[str, int]:
        """Every key and its size."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", ())}

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def begin_upload(self, key: str) -> tuple[str, str]:
        """Open a multipart upload, as another program would. Returns the key and the upload's name."""
        return key, self.client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]

    def open_uploads(self) -> list[tuple[str, str]]:
        """Key and name of every multipart upload that is open, in order."""
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())
        return sorted((upload["Key"], upload["UploadId"]) for upload in found)

    def options(self) -> list[str]:
        return [f"--target-container={self.name}", f"--endpoint-url={self.server.url}"]


@pytest.fixture
def bucket(seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket on SeaweedFS, with its credentials in the environment."""
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    return Bucket(seaweed)


@pytest.fixture
def exact_bucket(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket that keeps keys exact to the byte and lists in byte order, as Amazon does."""
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    return Bucket(moto)


@pytest.fixture
def content(tmp_path: Path) -> Iterator[Content]:
    """Makes files to be uploaded."""
    made = Content(tmp_path)
    yield made
    made.close()


class Refusing:
    """A server that answers every request alike, and counts them."""

    def __init__(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(handler) -> None:  # noqa: N805
                handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                self.asked.append(handler.command)
                handler.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    handler.send_header(name, value)
                handler.end_headers()
                if handler.command != "HEAD":
                    handler.wfile.write(body)

            do_GET = do_POST = do_DELETE = do_HEAD = do_PUT  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of whoever runs the test is used."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def refusing() -> Iterator[Callable[..., Refusing]]:
    """Starts servers that answer everything alike: give a status, what they say, and headers."""
    servers: list[Refusing] = []

    def start(*said: Any, **headers: str) -> Refusing:
        servers.append(Refusing(*said, **headers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def on_disk(tree: Path) -> dict[str, int]:
    """Every file below a directory, by its path, with its size."""
    return {str(path.relative_to(tree)): path.stat().st_size for path in tree.rglob("*") if path.is_file()}


def equal_soon(bucket: Bucket, tree: Path, what: str, seconds: float = 20, *, to_the_byte: bool = False) -> float:
    """Wait until the bucket equals the tree, in names and sizes or to the byte, and say how long it took."""
    began = time.monotonic()

    def different() -> list[str]:
        there, here = bucket.sizes(), on_disk(tree)
        keys = {key for key, _ in there.items() ^ here.items()}
        if to_the_byte and not keys:
            keys = {key for key in here if bucket.read(key) != (tree / key).read_bytes()}
        return sorted(keys)

    try:
        wait_until(lambda: not different(), seconds, what, pause=0.2 if to_the_byte else 0.01)
    except AssertionError:
        left = different()
        assert not left, f"{what}: {len(left)} differ, the first are {left[:5]}"
    return time.monotonic() - began


class Program(subprocess.Popen[str]):
    """A command that runs; what it writes goes to a file."""

    def __init__(self, command: list[str], log: Path, cwd: Path, environ: dict[str, str]) -> None:
        self._log = log
        with open(log, "w", encoding="utf-8") as output:
            super().__init__(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, cwd=cwd, env=environ, start_new_session=True
            )

    def said(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def children(self, word: str = "") -> list[psutil.Process]:
        """Its children and theirs that have a word in their command line: there is one."""
        everything = psutil.Process(self.pid).children(recursive=True)
        found = [child for child in everything if word in " ".join(child.cmdline())]
        assert found, [child.cmdline() for child in everything]
        return found


class Programs:
    """Starts the installed commands as processes, and sees that none is left behind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Program] = []

    def start(
        self, *command: str, cwd: Path | None = None, host: Host | None = None, mounts: Mapping[Path, Path] | None = None, **environ: str
    ) -> Program:
        """Start one, maybe on another host, with directories mounted there."""
        log = self._directory / f"said-{len(self._started)}.txt"
        full, environ = [str(BIN / command[0]), *command[1:]], {**os.environ, "PYTHONWARNINGS": "ignore", **environ}
        if host is not None:
            full = host.runs(full, mounts)
        process = Program(full, log, cwd or self._directory, environ)
        self._started.append(process)
        return process

    def run(self, *command: str, cwd: Path | None = None, timeout: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one to its end."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
            cwd=cwd or self._directory, env={**os.environ, "PYTHONWARNINGS": "ignore", **environ},
        )  # fmt: skip

    def worker(
        self,
        *options: str,
        broker: str,
        cwd: Path | None = None,
        host: Host | None = None,
        mounts: Mapping[Path, Path] | None = None,
        **environ: str,
    ) -> Program:
        """Start an upload box, and wait until it serves its queues."""
        environ = {"CELERY_BROKER_URL": broker, **environ}
        command = ("celery", "-A", "autosync", "worker", "--without-gossip", "--without-mingle", "-l", "INFO", *options)
        process = self.start(*command, cwd=cwd, host=host, mounts=mounts, **environ)
        wait_until(lambda: " ready." in process.said() or process.poll() is not None, 30, "the worker is ready")  # type: ignore[attr-defined]
        return process

    def end(self) -> None:
        """End those that still run."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """The commands, as processes."""
    assert shutil.which(str(BIN / "autosync")), "the project is not installed in this environment: see `make test`"
    started = Programs(tmp_path)
    try:
        yield started
    finally:
        started.end()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty source directory."""
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


@pytest.fixture
def once(bucket: Bucket, tree: Path) -> list[str]:
    """The command that makes `bucket` equal to `tree`, and ends."""
    return ["autosync", "--once", *bucket.options(), f"--source-prefix={tree}/", str(tree)]


@pytest.fixture
def bindfs() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Mounts one directory on another through FUSE, which stands for a share: what is done behind it gives no event in it."""
    if not shutil.which("bindfs"):
        lacking("bindfs is not installed")
    mounted: list[tuple[Path, subprocess.Popen[bytes]]] = []

    def mount(behind: Path, share: Path, *options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["bindfs", "-f", *options, str(behind), str(share)])
        mounted.append((share, process))
        wait_until(lambda: share.is_mount() or process.poll() is not None, what="the share is mounted")
        if not share.is_mount():
            lacking("bindfs may not mount here")
        return process

    yield mount
    for share, process in mounted:
        subprocess.run(["umount", "--lazy", str(share)], check=False)
        process.kill()
        process.wait()
