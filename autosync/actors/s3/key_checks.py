"""Which keys S3 has, and which of them a server stores under another name."""

from __future__ import annotations

import re

from ...errors import PermanentError
from .._key_checks import is_text
from .bucket_clients import BucketClients
from .errors import translated
from .own_client.list_page import any_page, token_after

#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_LONGEST_KEY = 1024
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Bytes that are not UTF-8, as `os.fsdecode` has them in a name.
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
#: Some servers store such keys under another name: `/x` as `x`, `a\\b` as `a/b`.
_REWRITTEN = {
    "leading slash": re.compile(r"^/"),
    "trailing slash": re.compile(r"/$"),
    "empty segment": re.compile(r"//"),
    "dot segment": re.compile(r"(^|/)\.\.?(/|$)"),
    "control character": CONTROL,
    "backslash": re.compile(r"\\"),
}
_NONE: frozenset[str] = frozenset()


class KeyChecks:
    """Checks keys of one bucket. Safe to use from many threads.

    Args:
        clients: the clients of the bucket.
    """

    def __init__(self, clients: BucketClients) -> None:
        self._clients = clients
        self._stored: set[str] = set()
        self._rewritten: set[str] = set()

    def check(self, key: str) -> frozenset[str]:
        """Check whether an object can have this key.

        Returns:
            The kinds of keys to which it belongs, as far as it is unknown whether the server stores such keys under another name.

        Raises:
            PermanentError: S3 has no such keys, or this server stores them under another name.
        """
        if not is_key(key):
            raise PermanentError(f"{key!r} is not UTF-8; S3 has no such keys", "rename the file")
        length = len(key.encode())
        if length > _LONGEST_KEY:
            raise PermanentError(f"{key!r} has {length} bytes; S3 allows {_LONGEST_KEY}", "shorten the path or use --source-prefix")
        kinds = kinds_of(key)
        if kinds:
            self._raise_if_rewritten(key, kinds)
        return kinds - self._stored

    def check_stored(self, key: str, kinds: frozenset[str]) -> None:
        """List back one key of each risky kind, and refuse further ones if the server has stored it under another name.

        Every scan would find such a key missing, and send it again for ever. The prefix is shorter than the key: SeaweedFS lists an object
        whose whole key is the prefix, though it stores it under another name.

        Args:
            key: the key of an object that was sent.
            kinds: see `check`.

        Raises:
            PermanentError: the server has stored the object under another name.
        """
        if kinds <= self._stored:
            return
        text = self._clients.listings.fetch(key[:-1])
        with translated(key, self._clients.server):
            found = set(any_page(text).keys)
            may_follow = token_after(text) is not None and all(name.startswith(key[:-1]) for name in found)
        if key not in found and not may_follow:
            self._rewritten.update(kinds - self._stored)
            self._raise_if_rewritten(key, kinds)
        self._stored.update(kinds)

    def raise_if_listed(self, key: str) -> None:
        """Check that the server has no object with a key that is not UTF-8, since no request can name the object.

        Raises:
            PermanentError: the server lists the object.
        """
        text = self._clients.listings.fetch(_NOT_UTF8.split(key, maxsplit=1)[0])
        server = self._clients.server
        with translated(self._clients.about, server):
            keys = any_page(text).keys
        if key in keys:
            raise PermanentError(f"{key!r} at {server} cannot be deleted: it is not UTF-8", "delete the object with another program")

    def _raise_if_rewritten(self, key: str, kinds: frozenset[str]) -> None:
        found = kinds & self._rewritten
        if found:
            raise PermanentError(
                f"this S3 server does not keep the key {key!r} as it is written ({', '.join(sorted(found))})",
                "use --source-prefix or --target-prefix to make plain keys, or rename the file",
            )


def is_key(name: str) -> bool:
    """Whether S3 has such keys. A request for an empty key would be one for the bucket."""
    return bool(name) and is_text(name)


def kinds_of(key: str) -> frozenset[str]:
    """The kinds of keys to which a key belongs, and which some servers store under another name."""
    framed = f"/{key}/"
    if key.isprintable() and not ("//" in framed or "/./" in framed or "/../" in framed or "\\" in key):
        return _NONE  # nearly every key; this takes a fifth of the time of the expressions
    return frozenset(kind for kind, pattern in _REWRITTEN.items() if pattern.search(key))
