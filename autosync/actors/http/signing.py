"""Signatures of requests: HTTP Message Signatures (RFC 9421) with HMAC-SHA256, over a Content-Digest (RFC 9530) where there is content."""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
from collections.abc import Iterable

import http_message_signatures as signatures
from requests import PreparedRequest
from requests.auth import AuthBase

#: What each signature covers, and what it covers besides where there is content.
COVERED = ("@method", "@authority", "@path", "@query")
COVERED_CONTENT = ("content-digest", "content-length", "content-type")
#: What distinguishes these signatures from others (RFC 9421, 2.3: tag).
TAG = "autosync"
#: For so long a signature may be used from its making to its arrival.
LIFETIME = datetime.timedelta(minutes=5)


class OneKey(signatures.HTTPSignatureKeyResolver):
    """The one key that both sides share."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode("utf-8", "surrogateescape")

    def resolve_private_key(self, key_id: str) -> bytes:
        """To sign with."""
        return self._secret

    def resolve_public_key(self, key_id: str) -> bytes:
        """To verify with: the same."""
        return self._secret


class Signed(AuthBase):
    """Signs each request that is about to be sent, with a nonce of its own.

    Args:
        secret: that both sides share.
        key_id: by which the server finds it.
    """

    def __init__(self, secret: str, key_id: str) -> None:
        self._key_id = key_id
        self._signer = signatures.HTTPMessageSigner(signature_algorithm=signatures.algorithms.HMAC_SHA256, key_resolver=OneKey(secret))

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the signature to the headers of a request, of which nothing that is signed changes afterwards."""
        now = datetime.datetime.now(datetime.UTC)
        has_content = "Content-Digest" in request.headers
        self._signer.sign(
            request, key_id=self._key_id, created=now, expires=now + LIFETIME, nonce=secrets.token_urlsafe(16), label="autosync", tag=TAG,
            covered_component_ids=COVERED + (COVERED_CONTENT if has_content else ()), use_existing_digest=has_content,
        )  # fmt: skip
        return request


def digest_of(content: Iterable[bytes]) -> str:
    """The value of Content-Digest, and of `digest` in a listing: RFC 9530, 2."""
    found = hashlib.sha256()
    for piece in content:
        found.update(piece)
    return as_field(found.digest())


def as_field(digest: bytes) -> str:
    """A SHA-256 as it is written there."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"
