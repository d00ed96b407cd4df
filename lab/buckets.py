"""A bucket for one test, and how it is held against a directory."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from .servers import S3Server, wait_until


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
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def begin_upload(self, key: str) -> tuple[str, str]:
        """Open a multipart upload, as another program would. Returns the key and the upload's name."""
        return key, self.client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]

    def open_uploads(self) -> list[tuple[str, str]]:
        """Key and name of every multipart upload that is open, in order."""
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())
        return sorted((upload["Key"], upload["UploadId"]) for upload in found)

    def options(self) -> list[str]:
        return [f"--target-container={self.name}", f"--endpoint-url={self.server.url}"]


def on_disk(tree: Path) -> dict[str, int]:
    """Every file below a directory, by its path, with its size."""
    return {str(path.relative_to(tree)): path.stat().st_size for path in tree.rglob("*") if path.is_file()}


def equal_soon(bucket: Bucket, tree: Path, what: str, seconds: float = 20, *, to_the_byte: bool = False) -> float:
    """Wait until the bucket equals the tree, in names and sizes or to the byte. Returns the duration in seconds."""
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
