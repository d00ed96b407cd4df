"""The S3 side of a benchmark: our server that stores no content, and SeaweedFS. Both count their objects and requests."""

from __future__ import annotations

import json
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from lab.ports import free_port
from lab.servers import S3Server, SeaweedFS

from .measure import cpu_of

SERVER = Path(__file__).resolve().parent / "s3server.py"


@dataclass(frozen=True)
class BucketContent:
    """The objects and bytes of a bucket, and the server's requests by kind; empty if it does not count them."""

    objects: int
    bytes: int
    requests: dict[str, int] = field(default_factory=dict)


class Target(S3Server):
    """A server that speaks S3, for one work."""

    def empty(self, name: str) -> str:
        """Make an empty bucket for a run; `name` must be another each time. Returns the bucket's name, which may be another."""
        raise NotImplementedError

    def content_of(self, bucket: str) -> BucketContent:
        """The content of a bucket."""
        raise NotImplementedError

    def cpu(self) -> float:
        """CPU seconds that the server has used by now."""
        assert self.process is not None
        return cpu_of(self.process.pid)


class Metadata(Target):
    """`s3server.py` in a process of its own, on this Python, with uvloop if that is installed here."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def command(self) -> list[str]:
        return [sys.executable, str(SERVER), "--port", str(self._port)]

    def responds(self) -> bool:
        try:
            self._request("GET", "stats")
            return True
        except OSError:
            return False

    def empty(self, name: str) -> str:
        self._request("POST", "empty?bucket=bench")
        return "bench"

    def content_of(self, bucket: str) -> BucketContent:
        stats = json.loads(self._request("GET", "stats"))
        found = stats["buckets"].get(bucket, {"objects": 0, "bytes": 0})
        return BucketContent(found["objects"], found["bytes"], stats["requests"])

    def fill(self, bucket: str, tree: Path) -> None:
        """Add the files of a tree as if they had just been sent."""
        self._request("POST", f"fill?bucket={bucket}&directory={quote(str(tree))}")

    def delay(self, seconds: float) -> None:
        """Delay each response by this time from now on."""
        self._request("POST", f"latency?seconds={seconds}")

    def times(self, bucket: str) -> dict[str, float]:
        """When each object was complete, on this host's monotonic clock."""
        found: dict[str, float] = json.loads(self._request("GET", "times")).get(bucket, {})
        return found

    def _request(self, method: str, what: str) -> bytes:
        request = urllib.request.Request(f"{self.url}/-/{what}", method=method)
        with urllib.request.urlopen(request, timeout=900) as response:
            content: bytes = response.read()
            return content


class Seaweed(SeaweedFS, Target):
    """SeaweedFS: one run against a server that stores what it is sent."""

    def empty(self, name: str) -> str:
        self.client().create_bucket(Bucket=name)
        return name

    def content_of(self, bucket: str) -> BucketContent:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        sizes = [found["Size"] for page in pages for found in page.get("Contents", ())]
        return BucketContent(len(sizes), sum(sizes))
