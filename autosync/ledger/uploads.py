"""The multipart uploads that a target may hold open, noted so that the parts of a killed worker are found and aborted."""

from __future__ import annotations

from typing import cast

from .redis_keys import decode, encode
from .store import LedgerPart


class OpenUploads(LedgerPart):
    """The multipart uploads of one mirror that may be open. Every method raises `BrokerError`: see `LedgerPart`."""

    def add(self, key: str, token: str, replaces: str = "") -> None:
        """Note a multipart upload of a key. The owner of the key's claim calls this before it sends the first part.

        Args:
            key: the key.
            token: one line of text by which the actor recognizes the upload.
            replaces: a token noted before that this one replaces; "": none.

        Raises:
            ValueError: the token is empty or has several lines.
        """
        if not token or "\n" in token:
            raise ValueError(f"{token!r} is not one line of text")
        self._store.run("note_upload", [encode(key), encode(token), encode(replaces)])

    def remove(self, key: str, token: str) -> None:
        """Remove an upload that is completed, aborted or unknown to the target. Other uploads of the key stay noted."""
        self._store.run("note_upload", [encode(key), "", encode(token)])

    def all(self) -> dict[str, list[str]]:
        """The tokens of all noted uploads, by key."""
        with self._store.errors():
            found = cast(dict[bytes, bytes], self._client.hgetall(self._names.uploads))
        return {decode(key): decode(tokens).split("\n") for key, tokens in found.items()}
