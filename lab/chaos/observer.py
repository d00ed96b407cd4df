"""Reads the bucket all the time, and at each quiet point every version of its objects."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

import botocore.exceptions

from ..servers import S3Server
from .book import Book
from .versions import describe, digest


def versioned_bucket(server: S3Server, name: str) -> str:
    """Make a bucket that keeps every version of its objects. Returns its name."""
    client: Any = server.client()
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


class Observer:
    """Watches one prefix of a versioned bucket, and records in `violations` what should never have been visible.

    Args:
        server: the S3 server.
        bucket: name of the bucket.
        prefix: of the keys in the book.
        book: the expected contents.
        pause: between two checks, in seconds.
    """

    def __init__(self, server: S3Server, bucket: str, prefix: str, book: Book, pause: float = 0.2) -> None:
        self.violations: list[str] = []
        self.checks = self.versions = 0
        self._client: Any = server.client(read_timeout=120.0)  # after an hour, a page of versions takes long on a busy machine
        self._bucket = bucket
        self._prefix = prefix
        self._book = book
        self._pause = pause
        #: Pairs of key and ETag that were right, with the MD5 of the content.
        self._checked: dict[tuple[str, str], str] = {}
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)

    def start(self) -> None:
        """Start to check, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def differences(self, *, with_extra: bool = True) -> list[str]:
        """The differences between the bucket and the book, in words.

        Args:
            with_extra: whether objects without a file count.
        """
        there = {key: self._digest(key, etag) for key, etag in self._listed().items()}
        ours = self._book.now
        return [
            f"{key!r}: {'missing' if key not in there else 'should not be there' if key not in ours else 'has another content'}"
            for key in sorted(there.keys() | ours.keys())
            if there.get(key) != ours.get(key) and (key in ours or (with_extra and not self._book.may_stay(key)))
        ]

    def extra(self, *, with_allowed: bool = False) -> list[str]:
        """The keys of objects without a file.

        Args:
            with_allowed: whether those count that may stay.
        """
        extra = self._listed().keys() - self._book.now.keys()
        return sorted(key for key in extra if with_allowed or not self._book.may_stay(key))

    def check_versions(self) -> None:
        """Check every version and every deletion since the last call, then delete those that are not the latest."""
        past = []
        for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=self._prefix):
            for found in page.get("Versions", ()):
                if self._is_new(found):
                    self._judge(found["Key"], found["ETag"].strip('"'), found["VersionId"])
                past += [] if found["IsLatest"] else [found]
            for found in page.get("DeleteMarkers", ()):
                # The server's times are whole seconds.
                if self._is_new(found) and self._book.was_steady(found["Key"], found["LastModified"].timestamp() + 1.0):
                    self._note(f"{found['Key']!r} was deleted at {found['LastModified']:%X} while its file was there")
                past += [] if found["IsLatest"] else [found]
        for start in range(0, len(past), 500):
            names = [{"Key": found["Key"], "VersionId": found["VersionId"]} for found in past[start : start + 500]]
            self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": names, "Quiet": True})

    def _is_new(self, found: Mapping[str, Any]) -> bool:
        name = f"{found['VersionId']} {found['Key']}"
        new = name not in self._seen
        self._seen.add(name)
        self.versions += new
        return new

    def _watch(self) -> None:
        while not self._stop.wait(self._pause):
            with contextlib.suppress(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):  # a server that stands still
                self._check_bucket()

    def _check_bucket(self) -> None:
        before, _ = self._book.steady()
        there = self._listed()
        after, steady = self._book.steady()
        if before == after:
            for key in sorted(steady - there.keys()):
                self._note(f"{key!r} was missing at {time.strftime('%X')} while its file was there")
        for key, etag in there.items():
            self._judge(key, etag)
        self.checks += 1

    def _listed(self) -> dict[str, str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        return {found["Key"]: found["ETag"].strip('"') for page in pages for found in page.get("Contents", ())}

    def _judge(self, key: str, etag: str, version: str | None = None) -> None:
        if (key, etag) in self._checked:
            return
        found = self._digest(key, etag, version)
        if found is None or self._book.ever_had(key, found):
            return
        data = self._read(key, version)
        self._note(f"{key!r} (ETag {etag}) was never the content of its file: {describe(data or b'')}")

    def _digest(self, key: str, etag: str, version: str | None = None) -> str | None:
        """The MD5 of an object's content: its ETag, unless it was sent in parts. None if the object does not exist any more."""
        if "-" not in etag:
            return etag
        if (key, etag) not in self._checked:
            data = self._read(key, version, etag)
            if data is None:
                return None
            found = digest(data)
            if self._book.ever_had(key, found):
                self._checked[key, etag] = found
            return found
        return self._checked[key, etag]

    def _read(self, key: str, version: str | None, etag: str | None = None) -> bytes | None:
        which = {"VersionId": version} if version else {"IfMatch": etag} if etag else {}
        try:
            data: bytes = self._client.get_object(Bucket=self._bucket, Key=key, **which)["Body"].read()
            return data
        except self._client.exceptions.ClientError:
            return None

    def _note(self, violation: str) -> None:
        if violation not in self.violations:
            self.violations.append(violation)
