"""Signatures of requests: HTTP Message Signatures (RFC 9421) with HMAC-SHA256. A request with content has a Content-Digest (RFC 9530)."""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
from collections.abc import Iterable

import http_message_signatures as signatures
from requests import PreparedRequest
from requests.auth import AuthBase

#: Components that each signature covers, and those that it also covers for a request with content.
COVERED = ("@method", "@authority", "@path", "@query")
COVERED_CONTENT = ("content-digest", "content-length", "content-type")
#: The tag that distinguishes these signatures from others (RFC 9421, 2.3).
TAG = "autosync"
#: How long a signature is valid.
LIFETIME = datetime.timedelta(minutes=5)


class SharedKeyResolver(signatures.HTTPSignatureKeyResolver):
    """Resolves every key id to the one secret that both sides share."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode("utf-8", "surrogateescape")

    def resolve_private_key(self, key_id: str) -> bytes:
        """The secret to sign with."""
        return self._secret

    def resolve_public_key(self, key_id: str) -> bytes:
        """The secret to verify with: the same."""
        return self._secret


class SignatureAuth(AuthBase):
    """Signs each request before it is sent, with a nonce of its own.

    Args:
        secret: that both sides share.
        key_id: the name of the secret at the server.
    """

    def __init__(self, secret: str, key_id: str) -> None:
        self._key_id = key_id
        self._signer = signatures.HTTPMessageSigner(
            signature_algorithm=signatures.algorithms.HMAC_SHA256, key_resolver=SharedKeyResolver(secret)
        )

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the signature to the headers of a request. The signed components must not change afterwards."""
        now = datetime.datetime.now(datetime.UTC)
        has_content = "Content-Digest" in request.headers
        self._signer.sign(
            request, key_id=self._key_id, created=now, expires=now + LIFETIME, nonce=secrets.token_urlsafe(16), label="autosync", tag=TAG,
            covered_component_ids=COVERED + (COVERED_CONTENT if has_content else ()), use_existing_digest=has_content,
        )  # fmt: skip
        return request


def content_digest(content: Iterable[bytes]) -> str:
    """The SHA-256 of content, in the form of the header Content-Digest (RFC 9530, 2) and of `digest` in a listing."""
    found = hashlib.sha256()
    for block in content:
        found.update(block)
    return digest_header(found.digest())


def digest_header(digest: bytes) -> str:
    """A SHA-256 in the form of Content-Digest."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"
