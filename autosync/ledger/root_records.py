"""Stores the record of a mirror's roots and mount points."""

from __future__ import annotations

from typing import cast

from .store import LedgerPart


class RootRecords(LedgerPart):
    """The record of one mirror's roots. Every method raises `BrokerError`: see `LedgerPart`."""

    def read(self) -> tuple[str, str]:
        """The record, as JSON, and its signature; "" if there is none."""
        with self._store.errors():
            found = cast(list[bytes | None], self._client.hmget(self._names.definition, ["roots", "roots_signature"]))
        text, signature = [one.decode("utf-8", "replace") if one else "" for one in found]
        return text, signature

    def write(self, text: str, signature: str) -> None:
        """Replace the record.

        Args:
            text: JSON.
            signature: the text's signature; "": it is not signed.
        """
        with self._store.errors():
            self._client.hset(self._names.definition, mapping={"roots": text, "roots_signature": signature})
