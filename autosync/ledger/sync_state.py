"""The results of a mirror's scans: when it was last in sync, whether scans may delete, which paths are not mirrored, and whether listings
are in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ..model.skipped import SkippedList
from .redis_keys import decode, encode
from .store import LedgerPart

#: The field of the hash of skipped paths that counts those which are not in it. Paths are absolute, so no path is this name.
_UNLISTED = ""


class SyncState(LedgerPart):
    """The results of one mirror's scans. Every method raises `BrokerError`: see `LedgerPart`."""

    def last_in_sync(self) -> tuple[str, float] | None:
        """The last scan whose differences were all synced: the version of the definition, and when the scan began, in seconds since the
        epoch. None: there was none yet."""
        with self._store.errors():
            text = cast(bytes | None, self._client.hget(self._names.definition, "cleared"))
        if not text:
            return None
        version, began = text.decode().split(" ")
        return version, float(began)

    def set_last_in_sync(self, version: str, began: float, *, accepted: bool) -> None:
        """Store that all differences of a scan are synced.

        Args:
            version: the version of the definition.
            began: when the scan began, in seconds since the epoch.
            accepted: whether the mirror is accepted. Both are written at once, since `last_in_sync` alone would accept the mirror.
        """
        with self._store.errors():
            self._client.hset(self._names.definition, mapping={"cleared": f"{version} {began!r}", "accepted": int(accepted)})

    def accepted(self) -> bool:
        """Whether the mirror is accepted: scans may delete in its target. Older versions stored only `cleared`, once the mirror was in
        sync; such a mirror is accepted."""
        with self._store.errors():
            accepted, in_sync = cast(list[bytes | None], self._client.hmget(self._names.definition, ["accepted", "cleared"]))
        return accepted == b"1" if accepted is not None else in_sync is not None

    def set_accepted(self, acceptance: str) -> None:
        """Store that the mirror is accepted.

        Args:
            acceptance: the accepted definition and its signature; see `acceptance`.
        """
        with self._store.errors():
            self._client.hset(self._names.definition, mapping={"accepted": 1, "acceptance": acceptance})

    def revoke_acceptance(self, revocation: str) -> None:
        """Store that the mirror is not accepted.

        Args:
            revocation: stored as the last acceptance; see `acceptance`.
        """
        with self._store.errors():
            self._client.hset(self._names.definition, mapping={"accepted": 0, "acceptance": revocation})

    def acceptance(self) -> str | None:
        """The last acceptance or revocation, as JSON of `state.acceptance`; None: there was none, or only one by an older version."""
        with self._store.errors():
            found = cast(bytes | None, self._client.hget(self._names.definition, "acceptance"))
        return found.decode("utf-8", "replace") if found else None

    def pending(self) -> dict[str, str]:
        """The pending items, by kind and path, as JSON of `state.pending`."""
        with self._store.errors():
            found = cast(dict[bytes, bytes], self._client.hgetall(self._names.pending))
        return {decode(name): text.decode("utf-8", "replace") for name, text in found.items()}

    def set_pending(self, items: Mapping[str, str]) -> None:
        """Replace the pending items."""
        fields: dict[Any, Any] = {encode(name): text for name, text in items.items()}
        with self._store.errors():
            pipe = self._client.pipeline()
            pipe.delete(self._names.pending)
            if fields:
                pipe.hset(self._names.pending, mapping=fields)
            pipe.execute()

    def withheld_deletions(self) -> int:
        """How many deletions the last scan of the whole source withheld, because they were too many or the mirror is not accepted."""
        with self._store.errors():
            found = cast(bytes | None, self._client.hget(self._names.definition, "holding"))
        return int(found) if found and found.isdigit() and len(found) < 19 else int(bool(found))  # damaged: some are withheld

    def set_withheld_deletions(self, count: int) -> None:
        """Store how many deletions a scan has withheld. No scan deletes then until one finds nothing to delete or an operator allows it."""
        with self._store.errors():
            self._client.hset(self._names.definition, "holding", count)

    def scan_error(self) -> str:
        """Why the last scan has failed; "" if it has not."""
        with self._store.errors():
            return decode(cast(bytes | None, self._client.hget(self._names.definition, "scan_error")) or b"")

    def set_scan_error(self, text: str) -> None:
        """Store why the last scan has failed; "" if it has not."""
        with self._store.errors():
            self._client.hset(self._names.definition, "scan_error", encode(text))

    def unsorted_target(self) -> str:
        """The target whose listings are not in order, as `Mirror.target_hash`; "" if no listing was found that is not in order."""
        with self._store.errors():
            return (cast(bytes | None, self._client.hget(self._names.definition, "unsorted")) or b"").decode()

    def set_unsorted_target(self, target: str) -> None:
        """Store that the listings of a target are not in order."""
        with self._store.errors():
            self._client.hset(self._names.definition, "unsorted", target)

    def skipped(self) -> SkippedList:
        """The paths that are not mirrored."""
        with self._store.errors():
            found = cast(dict[bytes, bytes], self._client.hgetall(self._names.skipped))
        reasons = {decode(path): reason.decode() for path, reason in found.items()}
        return SkippedList(reasons, int(reasons.pop(_UNLISTED, 0)))

    def set_skipped(self, skipped: SkippedList) -> None:
        """Replace the paths that are not mirrored."""
        fields: dict[Any, Any] = {encode(path): reason for path, reason in skipped.reasons.items()}
        if skipped.unlisted:
            fields[encode(_UNLISTED)] = str(skipped.unlisted)
        with self._store.errors():
            pipe = self._client.pipeline()
            pipe.delete(self._names.skipped)
            if fields:
                pipe.hset(self._names.skipped, mapping=fields)
            pipe.execute()

    def change_skipped(self, changes: Mapping[str, str | None]) -> None:
        """Change some of the paths that are not mirrored.

        Args:
            changes: the reason by path; None for a path that is no longer skipped.
        """
        added: dict[Any, Any] = {encode(path): reason for path, reason in changes.items() if reason is not None}
        removed = [encode(path) for path, reason in changes.items() if reason is None]
        with self._store.errors():
            pipe = self._client.pipeline()
            if added:
                pipe.hset(self._names.skipped, mapping=added)
            if removed:
                pipe.hdel(self._names.skipped, *removed)
            pipe.execute()
