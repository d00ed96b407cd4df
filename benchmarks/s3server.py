"""A small S3 server that keeps no content, so that what is measured is the client: keys, sizes, times and ETags in memory, one process.

    python benchmarks/s3server.py --port 9000 --latency 0.05

It knows what the clients of the benchmarks ask for: PUT, HEAD and DELETE of objects, uploads in parts, both listings, deleting many. It
checks no signature. Requests below `/-/` are the laboratory's own:

    POST /-/latency?seconds=0.05   answer each request so much later
    POST /-/fill?bucket=b&directory=/path   hold what is in that directory, as if it had just been sent
    POST /-/empty?bucket=b         hold nothing
    GET  /-/stats                  requests by kind, objects and bytes by bucket
    GET  /-/times                  when each object was complete, on the monotonic clock of this host
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

#: ETags of longer bodies are made up: their MD5 would cost more than all the rest.
_MD5_UP_TO = 1 << 20
_PAGE = 1000
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class Stored(NamedTuple):
    """What is known of an object: `modified` in seconds since the epoch, `done` on the monotonic clock."""

    size: int
    etag: str
    modified: float
    done: float


class Bucket:
    """The objects of one bucket, by key."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self._sorted: list[str] | None = None

    def put(self, key: str, stored: Stored) -> None:
        """Hold an object."""
        if self._sorted is not None and key not in self.objects:
            self._sorted = None
        self.objects[key] = stored

    def delete(self, key: str) -> None:
        """Hold it no longer."""
        if self.objects.pop(key, None) is not None:
            self._sorted = None

    def keys(self) -> list[str]:
        """All keys in the order of their code points, which is that of their UTF-8 bytes."""
        if self._sorted is None:
            self._sorted = sorted(self.objects)
        return self._sorted

    def page(self, prefix: str, after: str, delimiter: str, most: int) -> tuple[list[str], list[str], str]:
        """Keys and common prefixes of one page of a listing, and the key to go on behind, or ""."""
        keys = self.keys()
        at = max(bisect_left(keys, prefix), bisect_right(keys, after) if after else 0)
        found: list[str] = []
        common: list[str] = []
        last = ""
        while at < len(keys) and keys[at].startswith(prefix):
            if len(found) + len(common) == most:
                return found, common, last
            key = keys[at]
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end < 0:
                found.append(key)
                last, at = key, at + 1
            else:
                common.append(key[: end + len(delimiter)])
                last = common[-1] + "\U0010ffff"
                at = bisect_right(keys, last)
        return found, common, ""


class Store:
    """Everything that the server holds."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[str, tuple[str, str, dict[int, int]]] = {}
        self.counts: Counter[str] = Counter()
        self.latency = 0.0

    def bucket(self, name: str) -> Bucket:
        """A bucket, which is created by its first request."""
        return self.buckets.setdefault(name, Bucket())


class Request:
    """The head of a request, and what is kept of its body: the length, the MD5 of a short one, the content of a POST."""

    __slots__ = ("body", "bucket", "digest", "fields", "key", "left", "length", "method", "query", "short")

    def __init__(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.method, target, _ = lines[0].split(" ")
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        path, _, query = target.partition("?")
        self.bucket, _, key = path[1:].partition("/")
        self.key = unquote(key)
        self.query = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        self.length = self.left = int(self.fields.get("content-length", 0))
        self.short = self.length <= _MD5_UP_TO
        self.digest = hashlib.md5(usedforsecurity=False)
        self.body = bytearray()

    def receive(self, data: bytes | memoryview) -> None:
        """Some of the body came."""
        self.left -= len(data)
        if self.method == "POST":
            self.body += data
        elif self.short:
            self.digest.update(data)

    @property
    def size(self) -> int:
        """The length of the content, without what signs or checks its pieces (aws-chunked)."""
        return int(self.fields.get("x-amz-decoded-content-length", self.length))

    def etag(self) -> str:
        """The MD5 of a short body; of others something that clients do not take for one."""
        return self.digest.hexdigest() if self.short and self.size == self.length else f"{self.length:032x}-1"


class Connection(asyncio.Protocol):
    """One client's connection; requests come one after the other."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._buffer = b""
        self._request: Request | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        while data:
            request = self._request
            if request is None:
                data = self._buffer + data
                end = data.find(b"\r\n\r\n")
                if end < 0:
                    self._buffer = data
                    return
                self._buffer = b""
                request = self._request = Request(data[:end])
                data = data[end + 4 :]
                if request.fields.get("expect"):
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if request.left:
                chunk = data if len(data) <= request.left else data[: request.left]
                request.receive(chunk)
                data = data[len(chunk) :]
            if not request.left:
                self._request = None
                self._respond(request)

    def _respond(self, request: Request) -> None:
        response = respond(self._store, request)
        if self._store.latency and request.bucket != "-":
            self._loop.call_later(self._store.latency, self._send, response)
        else:
            self._send(response)

    def _send(self, response: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(response)


class _Clock:
    """The Date of now, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._date = ""

    def date(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, formatdate(now, usegmt=True)
        return self._date


_clock = _Clock()


def _http_response(status: str, body: str | bytes = b"", *fields: str, length: int | None = None) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    head = [f"HTTP/1.1 {status}", f"Date: {_clock.date()}", f"Content-Length: {len(content) if length is None else length}", *fields]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def respond(store: Store, request: Request) -> bytes:
    """Carry out a request, and return the response."""
    if request.bucket == "-":
        return _laboratory(store, request)
    kind, act = _kind(request)
    store.counts[kind] += 1
    return act(store, request)


def _kind(request: Request) -> tuple[str, Callable[[Store, Request], bytes]]:
    query, method = request.query, request.method
    if request.key:
        if method == "PUT":
            return ("put part", _put_part) if "uploadId" in query else ("put", _put)
        if method == "POST":
            return ("complete", _complete) if "uploadId" in query else ("begin", _begin)
        if method == "DELETE":
            return ("abort", _abort) if "uploadId" in query else ("delete", _delete)
        return "head", _head
    if method == "POST" and "delete" in query:
        return "delete many", _delete_many
    if method == "GET" and "uploads" in query:
        return "list uploads", lambda *_: _http_response("200 OK", f"{_XML}<ListMultipartUploadsResult {_NAMESPACE}/>")
    if method == "GET" and "location" in query:
        return "location", lambda *_: _http_response("200 OK", f"{_XML}<LocationConstraint {_NAMESPACE}/>")
    if method == "GET" and request.bucket:
        return "list", _list
    return "bucket", lambda *_: _http_response("200 OK")


# Objects


def _put(store: Store, request: Request) -> bytes:
    etag = request.etag()
    store.bucket(request.bucket).put(request.key, Stored(request.size, etag, time.time(), time.monotonic()))
    return _http_response("200 OK", b"", f'ETag: "{etag}"')


def _head(store: Store, request: Request) -> bytes:
    found = store.bucket(request.bucket).objects.get(request.key)
    if found is None:
        return _http_response("404 Not Found")
    fields = (f'ETag: "{found.etag}"', f"Last-Modified: {formatdate(found.modified, usegmt=True)}", "Content-Type: binary/octet-stream")
    return _http_response("200 OK", b"", *fields, length=found.size)


def _delete(store: Store, request: Request) -> bytes:
    store.bucket(request.bucket).delete(request.key)
    return _http_response("204 No Content")


def _delete_many(store: Store, request: Request) -> bytes:
    bucket = store.bucket(request.bucket)
    keys = re.findall(rb"<Key>(.*?)</Key>", request.body, re.DOTALL)
    lines = []
    for key in keys:
        text = key.decode().replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
        bucket.delete(text)
        lines.append(f"<Deleted><Key>{escape(text)}</Key></Deleted>")
    quiet = b"<Quiet>true</Quiet>" in request.body
    return _http_response("200 OK", f"{_XML}<DeleteResult {_NAMESPACE}>{'' if quiet else ''.join(lines)}</DeleteResult>")


# Uploads in parts


def _begin(store: Store, request: Request) -> bytes:
    upload = f"{len(store.uploads):x}-{time.monotonic_ns():x}"
    store.uploads[upload] = (request.bucket, request.key, {})
    body = f"<Bucket>{request.bucket}</Bucket><Key>{escape(request.key)}</Key><UploadId>{upload}</UploadId>"
    return _http_response("200 OK", f"{_XML}<InitiateMultipartUploadResult {_NAMESPACE}>{body}</InitiateMultipartUploadResult>")


def _put_part(store: Store, request: Request) -> bytes:
    upload = store.uploads.get(request.query["uploadId"])
    if upload is None:
        return _http_response("404 Not Found", f"{_XML}<Error><Code>NoSuchUpload</Code></Error>")
    upload[2][int(request.query["partNumber"])] = request.size
    return _http_response("200 OK", b"", f'ETag: "{request.etag()}"')


def _complete(store: Store, request: Request) -> bytes:
    upload = store.uploads.pop(request.query["uploadId"], None)
    if upload is None:
        return _http_response("404 Not Found", f"{_XML}<Error><Code>NoSuchUpload</Code></Error>")
    sizes = upload[2]
    etag = f"{sum(sizes.values()):032x}-{len(sizes)}"
    store.bucket(request.bucket).put(request.key, Stored(sum(sizes.values()), etag, time.time(), time.monotonic()))
    body = f"<Bucket>{request.bucket}</Bucket><Key>{escape(request.key)}</Key><ETag>&quot;{etag}&quot;</ETag>"
    return _http_response("200 OK", f"{_XML}<CompleteMultipartUploadResult {_NAMESPACE}>{body}</CompleteMultipartUploadResult>")


def _abort(store: Store, request: Request) -> bytes:
    store.uploads.pop(request.query["uploadId"], None)
    return _http_response("204 No Content")


# Listing


def _list(store: Store, request: Request) -> bytes:
    query = request.query
    second = query.get("list-type") == "2"
    after = (query.get("continuation-token") or query.get("start-after", "")) if second else query.get("marker", "")
    most = min(int(query.get("max-keys") or _PAGE), _PAGE)
    bucket = store.bucket(request.bucket)
    found, common, last = bucket.page(query.get("prefix", ""), after, query.get("delimiter", ""), most)
    spelled = (lambda key: quote(key, safe="/")) if query.get("encoding-type") == "url" else escape
    lines = [f"<Name>{request.bucket}</Name><Prefix>{spelled(query.get('prefix', ''))}</Prefix><MaxKeys>{most}</MaxKeys>"]
    if "encoding-type" in query:
        lines.append("<EncodingType>url</EncodingType>")
    lines.append(f"<IsTruncated>{'true' if last else 'false'}</IsTruncated>")
    if second:
        lines.append(f"<KeyCount>{len(found) + len(common)}</KeyCount>")
    if last:
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>"
        lines.append(token if second else f"<NextMarker>{spelled(last)}</NextMarker>")
    for key in found:
        one = bucket.objects[key]
        lines.append(
            f"<Contents><Key>{spelled(key)}</Key><LastModified>{_iso(one.modified)}</LastModified><ETag>&quot;{one.etag}&quot;</ETag>"
            f"<Size>{one.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    lines += [f"<CommonPrefixes><Prefix>{spelled(prefix)}</Prefix></CommonPrefixes>" for prefix in common]
    body = f"{_XML}<ListBucketResult {_NAMESPACE}>{''.join(lines)}</ListBucketResult>"
    return _http_response("200 OK", body, "Content-Type: application/xml")


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


# The laboratory's own


def _laboratory(store: Store, request: Request) -> bytes:
    what, query = request.key, request.query
    if what == "latency":
        store.latency = float(query["seconds"])
    elif what == "empty":
        store.buckets.pop(query["bucket"], None)
        store.counts.clear()
    elif what == "fill":
        bucket = store.bucket(query["bucket"])
        for key, stored in _files(Path(query["directory"])):
            bucket.put(key, stored)
    elif what == "stats":
        objects = {
            name: {"objects": len(bucket.objects), "bytes": sum(one.size for one in bucket.objects.values())}
            for name, bucket in store.buckets.items()
        }
        return _http_response("200 OK", json.dumps({"requests": store.counts, "buckets": objects}))
    elif what == "times":
        object_times = {name: {key: one.done for key, one in bucket.objects.items()} for name, bucket in store.buckets.items()}
        return _http_response("200 OK", json.dumps(object_times))
    else:
        return _http_response("404 Not Found")
    return _http_response("200 OK")


def _files(directory: Path) -> Iterator[tuple[str, Stored]]:
    now, done = time.time(), time.monotonic()
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            size = path.stat().st_size
            etag = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if size <= _MD5_UP_TO else f"{size:032x}-1"
            yield path.relative_to(directory).as_posix(), Stored(size, etag, now, done)


async def _serve(port: int, latency: float) -> None:
    store = Store()
    store.latency = latency
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(store, loop), "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve until the end."""
    parser = argparse.ArgumentParser(description="An S3 server that keeps no content.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each answer is held back")
    options = parser.parse_args()
    try:
        import uvloop

        uvloop.run(_serve(options.port, options.latency))
    except ImportError:
        asyncio.run(_serve(options.port, options.latency))


if __name__ == "__main__":
    main()
