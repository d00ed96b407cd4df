"""Signatures of definitions, by a key that the file host shares with its upload boxes and with nobody else.

Whoever may write to the broker could publish a definition that has a box send what it may read to a target of theirs. A box that has a key
takes only what was signed with it. Messages need no signature: they name keys, and a key leads to where the definition says.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError
from .secrets import read_secret

#: The name under which boxes have the key among their secrets.
SIGNING_KEY = "signing_key"
#: So many bytes of a key are as good as any number: the size of the hash (RFC 2104, 3).
_SHORTEST = 32


def read_key(given: str | None) -> str:
    """The key as it was given, see `read_secret`; "" if there is none.

    Raises:
        ConfigurationError: the file cannot be read, or it is too short to be a key. So is an empty one: it comes from a file that is
            missing, and nobody wants to go without a key for that.
    """
    if given is None:
        return ""
    key = read_secret(given, "--signing-key").strip()
    if not key:
        raise ConfigurationError("the signing key is empty", "give it as @FILE, or unset AUTOSYNC_SIGNING_KEY to go without one")
    if len(key.encode("utf-8", "surrogateescape")) < _SHORTEST:
        raise ConfigurationError(f"the signing key has fewer than {_SHORTEST} bytes", "make one with: openssl rand -hex 32")
    return key


def key_among(secrets: Mapping[str, Any]) -> str:
    """The key that a box has among its secrets; "" if there is none.

    Raises:
        ConfigurationError: there is one that cannot be used, see `read_key`.
    """
    if any(isinstance(value, Mapping) and SIGNING_KEY in value for value in secrets.values()):
        raise ConfigurationError(f"autosync_secrets: {SIGNING_KEY!r} holds for all mirrors of a box", "write it beside their names")
    given = secrets.get(SIGNING_KEY, "")
    if SIGNING_KEY in secrets and not isinstance(given, str):
        raise ConfigurationError(f"autosync_secrets: {SIGNING_KEY!r} is no text", "give the key, or '@' and the path of its file")
    return read_key(given) if SIGNING_KEY in secrets else ""


def sign(key: str, mirror: str, definition: str) -> str:
    """The signature (HMAC-SHA256, RFC 2104) of a mirror's definition; "" without a key.

    Args:
        key: as `read_key` gives it.
        mirror: its name, so that no definition can be passed off as another mirror's.
        definition: as it is published.
    """
    return (
        hmac.digest(key.encode("utf-8", "surrogateescape"), f"{mirror}\0{definition}".encode("utf-8", "surrogateescape"), "sha256").hex()
        if key
        else ""
    )


def is_signed(key: str, mirror: str, definition: str, signature: str) -> bool:
    """Whether a definition was signed with this key."""
    return hmac.compare_digest(sign(key, mirror, definition).encode(), signature.encode("utf-8", "replace"))
