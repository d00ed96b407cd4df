"""A stand-in for Google Cloud Storage, whose server is not to be had: as much of its XML API as the actor uses
(https://cloud.google.com/storage/docs/xml-api/overview), written from that description."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, quote_plus, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .ports import free_port
from .servers import Server

#: The value of Authorization in requests of tests.
_OURS = "Bearer lab"
#: Service accounts name a service that gives tokens; it is not needed.
_NOWHERE = "http://127.0.0.1:1/token"
#: So many objects are on a page of a listing.
PAGE = 100
#: So many uploads that were begun only are on a page of theirs.
UPLOADS_PAGE = 2
_QUOTE = {"&quot;": '"'}


class Gcs(Server):
    """The stand-in. Takes tokens that a service account has signed; keeps keys to the byte, and lists them in its order."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._public = directory / "public.pem"
        #: For --service-account.
        self.service_account = _service_account(directory / "account.json", self._public)

    def command(self) -> list[str]:
        serves = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); from lab.gcs import main; main()"
        return [sys.executable, "-c", serves, str(self._port), str(self._public)]

    def responds(self) -> bool:
        try:
            return requests.get(self.url, timeout=2).status_code < 500
        except requests.RequestException:
            return False

    def stranger(self) -> Path:
        """A service account that it does not know."""
        return _service_account(self.directory / "stranger.json", self.directory / "stranger.pem")

    def create(self, bucket: str) -> None:
        """Make a bucket."""
        self._request("PUT", bucket)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object as another program would, under any name."""
        self._request("PUT", f"{bucket}/{quote(key, safe='')}", content)

    def read(self, bucket: str, key: str) -> requests.Response:
        """An object, with its headers."""
        return self._request("GET", f"{bucket}/{quote(key, safe='')}")

    def names(self, bucket: str) -> list[str]:
        """What a bucket has."""
        found: list[str] = self._request("GET", f"{bucket}?names").json()
        return found

    def open_uploads(self, bucket: str) -> list[str]:
        """The keys of what was begun only."""
        found: list[str] = self._request("GET", f"{bucket}?open-uploads").json()
        return found

    def _request(self, method: str, path: str, content: bytes = b"") -> requests.Response:
        response = requests.request(method, f"{self.url}/{path}", data=content, headers={"Authorization": _OURS}, timeout=20)
        response.raise_for_status()
        return response


def _service_account(path: Path, public: Path) -> Path:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    account = {"type": "service_account", "client_email": "lab@lab.iam", "private_key_id": "lab", "private_key": pem}
    path.write_text(json.dumps({**account, "token_uri": _NOWHERE}))
    return path


@dataclass
class _Stored:
    content: bytes
    kind: str
    etag: str
    changed: float = field(default_factory=time.time)


@dataclass
class _Upload:
    bucket: str
    key: str
    kind: str
    parts: dict[int, bytes] = field(default_factory=dict)
    initiated: float = field(default_factory=time.time)


class _Refused(Exception):  # noqa: N818
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


_buckets: dict[str, dict[str, _Stored]] = {}
_uploads: dict[str, _Upload] = {}
_lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    public: rsa.RSAPublicKey

    def _any(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        bucket, _, key = parts.path.lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        try:
            self._check_token()
            with _lock:
                self._do(bucket, unquote(key), query, content)
        except _Refused as refused:
            self._respond(refused.status, f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any  # noqa: N815

    def _check_token(self) -> None:
        """Service accounts sign their tokens themselves (RFC 7515, RS256)."""
        token = self.headers.get("Authorization", "")
        if token == _OURS:
            return
        text, _, signature = token.removeprefix("Bearer ").rpartition(".")
        try:
            self.public.verify(base64.urlsafe_b64decode(signature + "=="), text.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, ValueError):
            raise _Refused(401, "AuthenticationRequired", "Authentication required.") from None

    def _do(self, bucket: str, key: str, query: dict[str, str], content: bytes) -> None:
        if not key and self.command == "PUT":
            _buckets[bucket] = {}
            return self._respond(200)
        if bucket not in _buckets:
            raise _Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        if not key:
            return self._about_a_bucket(bucket, query)
        if "uploads" in query or "uploadId" in query:
            return self._in_parts(bucket, key, query, content)
        return self._about_an_object(_buckets[bucket], key, content)

    def _about_an_object(self, objects: dict[str, _Stored], key: str, content: bytes) -> None:
        if self.command == "PUT":
            etag = hashlib.md5(content).hexdigest()
            objects[key] = _Stored(content, self.headers.get("Content-Type", ""), etag)
            return self._respond(200, etag=etag)
        found = objects.get(key)
        if found is None:
            raise _Refused(404, "NoSuchKey", "The specified key does not exist.")
        if self.command == "DELETE":
            del objects[key]
            return self._respond(204)
        return self._respond(200, found.content, etag=found.etag, kind=found.kind)

    def _about_a_bucket(self, bucket: str, query: dict[str, str]) -> None:
        if "names" in query:
            return self._respond(200, json.dumps(sorted(_buckets[bucket])))
        if "open-uploads" in query:
            return self._respond(200, json.dumps([one.key for one in _uploads.values() if one.bucket == bucket]))
        if "uploads" in query:
            return self._open_uploads(bucket, query)
        prefix, after = query.get("prefix", ""), unquote(query.get("continuation-token", ""))
        keys = sorted((key for key in _buckets[bucket] if key.startswith(prefix) and key > after), key=str.encode)
        page = keys[:PAGE]
        more = f"<NextContinuationToken>{quote(page[-1])}</NextContinuationToken>" if len(keys) > len(page) else ""
        is_encoded = query.get("encoding-type") == "url"
        found = "".join(_listed(_quoted_name(key, is_encoded=is_encoded), _buckets[bucket][key]) for key in page)
        head = f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult><Name>{bucket}</Name>{_encoding(is_encoded=is_encoded)}"
        return self._respond(200, f"{head}<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{found}</ListBucketResult>")

    def _open_uploads(self, bucket: str, query: dict[str, str]) -> None:
        """A page of the uploads that were begun only, in the order of keys and then of ids."""
        is_encoded = query.get("encoding-type") == "url"
        after = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
        every = sorted((one.key, name) for name, one in _uploads.items() if one.bucket == bucket)
        left = [one for one in every if one > after and one[0].startswith(query.get("prefix", ""))]
        page = left[:UPLOADS_PAGE]
        found = "".join(
            f"<Upload><Key>{_quoted_name(key, is_encoded=is_encoded)}</Key><UploadId>{name}</UploadId>"
            f"<Initiated>{_iso_time(_uploads[name].initiated)}</Initiated></Upload>"
            for key, name in page
        )
        more = f"<IsTruncated>{str(len(left) > len(page)).lower()}</IsTruncated>"
        if len(left) > len(page):
            key, name = page[-1]
            marker = _quoted_name(key, is_encoded=is_encoded)
            more += f"<NextKeyMarker>{marker}</NextKeyMarker><NextUploadIdMarker>{name}</NextUploadIdMarker>"
        head = f"<ListMultipartUploadsResult><Bucket>{bucket}</Bucket>{_encoding(is_encoded=is_encoded)}"
        return self._respond(200, f"{head}{more}{found}</ListMultipartUploadsResult>")

    def _in_parts(self, bucket: str, key: str, query: dict[str, str], content: bytes) -> None:
        if "uploads" in query:
            name = uuid.uuid4().hex
            _uploads[name] = _Upload(bucket, key, self.headers.get("Content-Type", ""))
            return self._respond(200, f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>")
        name = query["uploadId"]
        if name not in _uploads:
            raise _Refused(404, "NoSuchUpload", "The requested upload was not found.")
        if self.command == "PUT":
            _uploads[name].parts[int(query["partNumber"])] = content
            return self._respond(200, etag=hashlib.md5(content).hexdigest())
        upload = _uploads.pop(name)
        if self.command == "DELETE":
            return self._respond(204)
        named = re.findall(r"<PartNumber>(\d+)</PartNumber><ETag>(.*?)</ETag>", content.decode())
        if any(f'"{hashlib.md5(upload.parts.get(int(number), b"")).hexdigest()}"' != unescape(etag, _QUOTE) for number, etag in named):
            _uploads[name] = upload
            raise _Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
        whole = b"".join(upload.parts[int(number)] for number, _ in named)
        etag = base64.b64encode(f"\x08{uuid.uuid4().hex[:10]}".encode()).decode()
        _buckets[bucket][key] = _Stored(whole, upload.kind, etag)
        text = f'<CompleteMultipartUploadResult><ETag>"{etag}"</ETag></CompleteMultipartUploadResult>'
        return self._respond(200, text, etag=etag)

    def _respond(self, status: int, content: str | bytes = b"", *, etag: str = "", kind: str = "application/xml") -> None:
        body = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        self.send_header("x-goog-generation", "1")
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _iso_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _encoding(*, is_encoded: bool) -> str:
    return "<EncodingType>url</EncodingType>" if is_encoded else ""


def _quoted_name(key: str, *, is_encoded: bool) -> str:
    return quote_plus(key) if is_encoded else escape(key)


def _listed(key: str, found: _Stored) -> str:
    return (
        f'<Contents><Key>{key}</Key><LastModified>{_iso_time(found.changed)}</LastModified><ETag>"{found.etag}"</ETag>'
        f"<Size>{len(found.content)}</Size></Contents>"
    )


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serve until ended; the arguments are a port, and the file with the key of the service account that it knows."""
    public = serialization.load_pem_public_key(Path(sys.argv[2]).read_bytes())
    assert isinstance(public, rsa.RSAPublicKey)
    _Handler.public = public
    _Listening(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
