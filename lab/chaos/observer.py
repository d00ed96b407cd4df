"""Reads the bucket all the time, and at each quiet point every version that the bucket ever held."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

import botocore.exceptions

from ..servers import S3Server
from .book import Book
from .versions import digest, told


def versioned_bucket(server: S3Server, name: str) -> str:
    """Make a bucket that keeps every version of its objects. Returns its name."""
    client: Any = server.client()
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


class Observer:
    """Watches one prefix of a versioned bucket, and notes what should never have been visible in `violations`.

    Args:
        server: the S3 server.
        bucket: its name.
        prefix: of the keys that the book is about.
        book: says what may be there.
        pause: between two looks, in seconds.
    """

    def __init__(self, server: S3Server, bucket: str, prefix: str, book: Book, pause: float = 0.2) -> None:
        self.violations: list[str] = []
        self.looks = self.versions = 0
        self._client: Any = server.client()
        self._bucket = bucket
        self._prefix = prefix
        self._book = book
        self._pause = pause
        #: Pairs of key and ETag that were found right, with the MD5 of the content.
        self._known: dict[tuple[str, str], str] = {}
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)

    def start(self) -> None:
        """Look on, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def differences(self) -> list[str]:
        """In what the bucket is not what the book says, in words."""
        there = {key: self._digest(key, etag) for key, etag in self._listed().items()}
        ours = self._book.now
        return [
            f"{key!r}: {'missing' if key not in there else 'should not be there' if key not in ours else 'has another content'}"
            for key in sorted(there.keys() | ours.keys())
            if there.get(key) != ours.get(key) and not (key not in ours and self._book.may_stay(key))
        ]

    def look_back(self) -> None:
        """Look at every version and every deletion since the last time, and then forget those that are history."""
        past = []
        for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=self._prefix):
            for found in page.get("Versions", ()):
                if self._is_new(found):
                    self._judge(found["Key"], found["ETag"].strip('"'), found["VersionId"])
                past += [] if found["IsLatest"] else [found]
            for found in page.get("DeleteMarkers", ()):
                # The server tells whole seconds.
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
                self._look()

    def _look(self) -> None:
        before, _ = self._book.steady()
        there = self._listed()
        after, steady = self._book.steady()
        if before == after:
            for key in sorted(steady - there.keys()):
                self._note(f"{key!r} was missing at {time.strftime('%X')} while its file was there")
        for key, etag in there.items():
            self._judge(key, etag)
        self.looks += 1

    def _listed(self) -> dict[str, str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        return {found["Key"]: found["ETag"].strip('"') for page in pages for found in page.get("Contents", ())}

    def _judge(self, key: str, etag: str, version: str | None = None) -> None:
        if (key, etag) in self._known:
            return
        found = self._digest(key, etag, version)
        if found is None or self._book.ever_stood(key, found):
            return
        data = self._read(key, version)
        self._note(f"{key!r} (ETag {etag}) was never the content of its file: {told(data or b'')}")

    def _digest(self, key: str, etag: str, version: str | None = None) -> str | None:
        """The MD5 of an object's content: its ETag, unless it was sent in parts. None if it is not there any more."""
        if "-" not in etag:
            return etag
        if (key, etag) not in self._known:
            data = self._read(key, version, etag)
            if data is None:
                return None
            found = digest(data)
            if self._book.ever_stood(key, found):
                self._known[key, etag] = found
            return found
        return self._known[key, etag]

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
