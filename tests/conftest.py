"""Real parts for the tests. A part that is missing skips on a laptop, and fails where CI=true."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.servers import Missing, Moto, S3Server, SeaweedFS, Server, Valkey, wait_until

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings, credentials or state of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(("AUTOSYNC_", "AWS_", "CELERY_", "BOTO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def _running(make: Callable[[], Server]) -> Iterator[Server]:
    try:
        server = make()
    except Missing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{missing} is not installed")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey for the whole session."""
    yield from _running(lambda: Valkey(tmp_path_factory.mktemp("valkey")))  # type: ignore[misc]


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey for one test, which may kill, freeze or empty it."""
    yield from _running(lambda: Valkey(tmp_path / "valkey"))  # type: ignore[misc]


@pytest.fixture
def broker(valkey: Valkey) -> str:
    """The URL of an empty broker."""
    valkey.client().flushall()
    return valkey.url


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """SeaweedFS for the whole session."""
    yield from _running(lambda: SeaweedFS(tmp_path_factory.mktemp("seaweed")))  # type: ignore[misc]


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """moto's server for the whole session."""
    yield from _running(lambda: Moto(tmp_path_factory.mktemp("moto")))  # type: ignore[misc]


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


class Programs:
    """Starts the installed commands as processes, and sees that none is left behind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *command: str, cwd: Path | None = None, **environ: str) -> subprocess.Popen[str]:
        """Start one; what it writes goes to a file, see `said`."""
        log = self._directory / f"said-{len(self._started)}.txt"
        with open(log, "w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]], stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True,
                cwd=cwd or self._directory, env={**os.environ, "PYTHONWARNINGS": "ignore", **environ}, start_new_session=True,
            )  # fmt: skip
        process.said = lambda: log.read_text(errors="replace")  # type: ignore[attr-defined]
        self._started.append(process)
        return process

    def run(self, *command: str, cwd: Path | None = None, timeout: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one to its end."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
            cwd=cwd or self._directory, env={**os.environ, "PYTHONWARNINGS": "ignore", **environ},
        )  # fmt: skip

    def worker(self, *options: str, broker: str, cwd: Path | None = None, **environ: str) -> subprocess.Popen[str]:
        """Start an upload box, and wait until it serves its queue."""
        environ = {"CELERY_BROKER_URL": broker, **environ}
        command = ("celery", "-A", "autosync", "worker", "--without-gossip", "--without-mingle", "-l", "INFO", *options)
        process = self.start(*command, cwd=cwd, **environ)
        wait_until(lambda: " ready." in process.said() or process.poll() is not None, 30, "the worker is ready")  # type: ignore[attr-defined]
        return process

    def end(self) -> None:
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
    assert shutil.which(str(BIN / "autosync")), "install the project into this environment first: make .venv"
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
