"""Signs definitions with a key that only the file host and its upload boxes have.

Without signatures, a user with write access to the broker could publish a definition that makes upload boxes send their files to another
target. A box with a key accepts only definitions that are signed with that key. Messages need no signature: they contain only names of
keys, and the definition decides about source and target.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError
from .secrets import read_secret

#: The name of the key among the secrets of an upload box.
SIGNING_KEY = "signing_key"
#: The least bytes of a key: the size of the hash, beyond which more bytes add no strength (RFC 2104, 3).
_SHORTEST = 32


def read_key(text: str | None) -> str:
    """The key that a value stands for, see `read_secret`; "" for None.

    Raises:
        ConfigurationError: the file cannot be read, or the key is too short. An empty value is an error too: it may come from a missing
            file, and must not switch signatures off.
    """
    if text is None:
        return ""
    key = read_secret(text, "--signing-key").strip()
    if not key:
        raise ConfigurationError("the signing key is empty", "give it as @FILE, or unset AUTOSYNC_SIGNING_KEY to go without one")
    if len(key.encode("utf-8", "surrogateescape")) < _SHORTEST:
        raise ConfigurationError(f"the signing key has fewer than {_SHORTEST} bytes", "make one with: openssl rand -hex 32")
    return key


def key_among(secrets: Mapping[str, Any]) -> str:
    """The key among the secrets of an upload box; "" if there is none.

    Raises:
        ConfigurationError: the key cannot be used, see `read_key`.
    """
    if any(isinstance(value, Mapping) and SIGNING_KEY in value for value in secrets.values()):
        raise ConfigurationError(f"autosync_secrets: {SIGNING_KEY!r} holds for all mirrors of a box", "write it beside their names")
    text = secrets.get(SIGNING_KEY, "")
    if SIGNING_KEY in secrets and not isinstance(text, str):
        raise ConfigurationError(f"autosync_secrets: {SIGNING_KEY!r} is no text", "give the key, or '@' and the path of its file")
    return read_key(text) if SIGNING_KEY in secrets else ""


def sign(key: str, mirror: str, definition: str) -> str:
    """The signature (HMAC-SHA256, RFC 2104) of a mirror's definition; "" without a key.

    Args:
        key: a key as `read_key` returns it.
        mirror: name of the mirror; with it, a signature is valid for one mirror only.
        definition: the published text.
    """
    return (
        hmac.digest(key.encode("utf-8", "surrogateescape"), f"{mirror}\0{definition}".encode("utf-8", "surrogateescape"), "sha256").hex()
        if key
        else ""
    )


def is_signed(key: str, mirror: str, definition: str, signature: str) -> bool:
    """Whether a definition was signed with this key."""
    return hmac.compare_digest(sign(key, mirror, definition).encode(), signature.encode("utf-8", "replace"))
