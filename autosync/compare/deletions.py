"""Which of the keys that the source lacks a scan may delete. All that may not be deleted is withheld.

An operator accepts sets of keys, as they were withheld: a key that is missing later is in none of them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice

from ..model.keys import Keys
from ..model.withheld import AcceptedDeletions, Withheld
from ..source.beneath import leads_through_link
from ..source.external_sort import Row, Spool, disksort
from .delete_limit import DeleteLimit

log = logging.getLogger(__name__)

#: Number of withheld keys that are named as examples.
_EXAMPLES = 3


@dataclass(frozen=True)
class Permission:
    """What scans of a mirror may delete, beside the limit of one scan.

    Attributes:
        accepted: whether the mirror is accepted. If not, the target may hold keys from before it.
        has_withheld: whether an earlier scan has withheld deletions. If so, no scan deletes until a scan finds nothing to delete or an
            operator allows the deletions.
        acceptances: deletions that an operator has accepted; a scan of the whole source does them even if the mirror is not accepted.
    """

    accepted: bool = True
    has_withheld: bool = False
    acceptances: AcceptedDeletions = field(default_factory=AcceptedDeletions)


@dataclass(frozen=True)
class ComparedPart:
    """The part of source and target that a scan has compared.

    Attributes:
        path: the directory that is scanned; "" for the whole source.
        has_left: whether the kernel has reported that this directory is gone.
        scope: number of keys in scope that the target has.
        is_complete: whether all of the part of the source could be read.
    """

    path: str
    has_left: bool
    scope: int
    is_complete: bool


class Deletions:
    """Decides about the deletions of a mirror's scans. Remembers the keys that the last scan of the whole source has withheld.

    Args:
        keys: naming rule and scope of the mirror.
        limit: for the deletions of one scan.
        spill: directory for what is stored on disk; None: the system's temporary directory.
        about: prefix of log lines, where there are several mirrors.
        accept: the command that accepts what is withheld, for log lines.
        on_withheld: called with each key that is withheld.
    """

    def __init__(
        self,
        keys: Keys,
        limit: DeleteLimit,
        spill: str | None,
        *,
        about: str,
        accept: str,
        on_withheld: Callable[[str], None] | None = None,
    ) -> None:
        self._keys = keys
        self._limit = limit
        self._spill = spill
        self._about = about
        self._accept = accept
        self._on_withheld = on_withheld
        #: Sets of keys that scans of the whole source have withheld, in order, by digest: the last one, and those that were accepted.
        self._sets: dict[str, Spool] = {}
        #: The digests of the sets that the running scan keeps below roots and mount points in doubt, or the last one has kept.
        self._kept: set[str] = set()
        #: The digest of what the target held before the mirror; None: not known, or the mirror is accepted.
        self._existing: str | None = None

    def close(self) -> None:
        """Remove the files with the keys that scans have withheld."""
        self._forget_sets(except_for=())

    def begin_scan(self) -> None:
        """Forget which sets the scan before has kept."""
        self._kept.clear()

    def keep(self, rows: Iterable[Row]) -> str:
        """Remember keys below a root or a mount point in doubt, which an operator can accept. Call it before `allowed`.

        Returns:
            Their digest, see `Withheld.digest`.

        Raises:
            OSError: what is stored on disk cannot be written.
        """
        digest = self._add_set(rows)
        self._kept.add(digest)
        return digest

    def allowed(self, missing: Spool, part: ComparedPart, permission: Permission) -> tuple[Iterator[str], int, Withheld]:
        """Decide about the keys that the source lacks.

        Args:
            missing: a row for each of these keys.
            part: what was compared.
            permission: what may be deleted.

        Returns:
            The keys to delete, their number, and what is withheld. A file that was created and sent while its directory was walked is in
            none of them if the mirror is not accepted.

        Raises:
            OSError: what is stored on disk cannot be read or written.
        """
        if permission.accepted:
            self._existing = None
        if part.has_left and permission.accepted:
            return _all(missing)
        if part.path:
            return self._within_limits(missing, part, permission)
        self._forget_sets(except_for=(*permission.acceptances.digests, *self._kept, self._existing))
        if not permission.acceptances:
            return self._within_limits(missing, part, permission)
        accepted, rest = self._divide(missing, permission.acceptances)
        with closing(rest):
            may = replace(permission, has_withheld=permission.has_withheld and not len(accepted))
            keys, _, withheld = self._within_limits(rest, part, may)
            for key in keys:
                accepted.add((key,))
        return _closing(accepted), len(accepted), withheld

    def _within_limits(self, missing: Spool, part: ComparedPart, permission: Permission) -> tuple[Iterator[str], int, Withheld]:
        """The decision about keys that no operator has accepted."""
        if not permission.accepted:
            return self._of_a_new_mirror(missing, part)
        limit = self._limit.of(part.scope)
        if len(missing) <= limit and not permission.has_withheld:
            return _all(missing)
        return iter(()), 0, self._withhold(missing, part, limit)

    def _divide(self, missing: Spool, acceptances: AcceptedDeletions) -> tuple[Spool, Spool]:
        """The keys whose deletion an operator has accepted, and the others. A set whose keys are still known may have lost some of them
        since; after a restart, the keys have to be the same."""
        accepted, rest = Spool(self._spill), self._sorted(missing)
        digest = _digest_of(rest)
        if digest in acceptances.digests and digest not in self._sets:
            self._sets[digest] = self._sorted(rest)
        for one in acceptances.digests & self._sets.keys():
            rest = self._move(rest, accepted, _among(rest, self._sets[one]))
        return accepted, rest

    def _move(self, rows: Spool, accepted: Spool, decided: Iterable[tuple[str, bool]]) -> Spool:
        """Add the keys that are decided to be accepted to `accepted`. Returns the others, and closes `rows`."""
        rest = Spool(self._spill)
        for key, is_accepted in decided:
            (accepted if is_accepted else rest).add((key,))
        rows.close()
        return rest

    def _sorted(self, rows: Iterable[Row]) -> Spool:
        found = Spool(self._spill)
        for row in disksort(rows, self._spill):
            found.add(row)
        return found

    def _forget_sets(self, *, except_for: Collection[str | None]) -> None:
        for digest in self._sets.keys() - except_for:
            self._sets.pop(digest).close()

    def _of_a_new_mirror(self, missing: Spool, part: ComparedPart) -> tuple[Iterator[str], int, Withheld]:
        """The decision for a mirror that is not accepted."""
        rows = Spool(self._spill)
        try:
            for (key,) in disksort(missing, self._spill):
                if not self._is_file(str(self._keys.path(key))):
                    rows.add((key,))
            if not part.path:
                return iter(()), 0, self._withhold_existing(rows, part)
            if part.has_left and self._existing is not None:
                return self._made_by_us(rows, self._sets[self._existing])
            return iter(()), 0, self._withheld(rows)
        finally:
            rows.close()

    def _withhold_existing(self, rows: Spool, part: ComparedPart) -> Withheld:
        """Withhold all, and note that these are the keys from before the mirror, if all of the source could be read."""
        withheld = self._withheld(rows, is_whole=True)
        self._existing = withheld.digest if part.is_complete else None
        if withheld.count:
            options = "--accept-existing --max-delete=100%" if withheld.count > self._limit.of(part.scope) else "--accept-existing"
            log.error(
                "%sthe target held %s in scope before this mirror that the source lacks (%s). It keeps them: to delete them, run %s, or "
                "start again with %s; to keep them for good, start with --no-delete or another --target-prefix",
                self._about, _keys_text(withheld.count), withheld.listed(), self._accept, options,
            )  # fmt: skip
        return withheld

    def _made_by_us(self, rows: Spool, existing: Spool) -> tuple[Iterator[str], int, Withheld]:
        """The keys below a directory that has left, without those that the target held before the mirror."""
        made = Spool(self._spill)
        for key, is_existing in _among(rows, existing):
            if not is_existing:
                made.add((key,))
        return _closing(made), len(made), Withheld(len(rows) - len(made))

    def _withhold(self, missing: Spool, part: ComparedPart, limit: int) -> Withheld:
        withheld = self._withheld(missing, is_whole=not part.path)
        if withheld.count and not part.path:
            why = "more than" if withheld.count > limit else "and an earlier scan has found more than"
            log.error(
                "%s%d of %s in scope are gone from the source (%s), %s --max-delete (%s) allows: none is deleted. If the source is as it "
                "should be, run %s, or start again with --max-delete=100%%",
                self._about, withheld.count, _keys_text(part.scope), withheld.listed(), why, self._limit, self._accept,
            )  # fmt: skip
        return withheld

    def _withheld(self, rows: Spool, *, is_whole: bool = False) -> Withheld:
        """What is withheld. `is_whole`: a scan of the whole source has found these keys, so that an operator can accept them."""
        if self._on_withheld is not None:
            for (key,) in rows:
                self._on_withheld(key)
        withheld = Withheld(len(rows), tuple(key for (key,) in islice(rows, _EXAMPLES)))
        if not is_whole:
            return withheld
        return replace(withheld, digest=self._add_set(rows))

    def _add_set(self, rows: Iterable[Row]) -> str:
        """Remember a set of keys. Returns its digest."""
        found = self._sorted(rows)
        digest = _digest_of(found)
        self._forget_sets(except_for=self._sets.keys() - {digest})
        self._sets[digest] = found
        return digest

    def _is_file(self, path: str) -> bool:
        """Whether there is a regular file at this path, and no link on the way below the root of its source."""
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return False
        except (OSError, ValueError):  # ValueError: no file can have this name
            return False
        source = self._keys.source_of(path)
        return source is not None and not leads_through_link(source.root, path)


def _all(missing: Spool) -> tuple[Iterator[str], int, Withheld]:
    return (key for (key,) in missing), len(missing), Withheld()


def _closing(rows: Spool) -> Iterator[str]:
    with closing(rows):
        for (key,) in rows:
            yield key


def _among(rows: Iterable[Row], others: Iterable[Row]) -> Iterator[tuple[str, bool]]:
    """The keys of sorted rows, each with whether it is among other sorted rows."""
    rest = iter(others)
    other = next(rest, None)
    for (key,) in rows:
        while other is not None and other[0] < key:
            other = next(rest, None)
        yield key, other is not None and other[0] == key


def _digest_of(rows: Iterable[Row]) -> str:
    """Identifies a set of keys in sorted rows."""
    found = hashlib.blake2b(digest_size=16)
    for (key,) in rows:
        raw = key.encode("utf-8", "surrogateescape")
        found.update(b"%d:%s" % (len(raw), raw))
    return found.hexdigest()


def _keys_text(count: int) -> str:
    return f"{count} key{'s'[: count != 1]}"
