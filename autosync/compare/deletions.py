"""Which of the keys that the source lacks a scan may delete. All that may not be deleted is withheld."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from ..model.keys import Keys
from ..model.text import printable
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
        confirmed: number of deletions that an operator has accepted for one scan of the whole source; they are allowed even if the mirror
            is not accepted.
    """

    accepted: bool = True
    has_withheld: bool = False
    confirmed: int = 0


@dataclass(frozen=True)
class Withheld:
    """What one scan has withheld.

    Attributes:
        count: number of keys.
        examples: the first of them.
    """

    count: int = 0
    examples: tuple[str, ...] = ()

    def listed(self) -> str:
        """The examples and the number of the others, in one text."""
        more = f" and {self.count - len(self.examples)} more" if self.count > len(self.examples) else ""
        return ", ".join(map(printable, self.examples)) + more


@dataclass(frozen=True)
class ComparedPart:
    """The part of source and target that a scan has compared.

    Attributes:
        path: of the part of the source; "" for all.
        has_left: whether the kernel has reported that this directory is gone.
        scope: number of keys in scope that the target has.
        is_complete: whether all of the part of the source could be read.
    """

    path: str
    has_left: bool
    scope: int
    is_complete: bool


class Deletions:
    """Decides about the deletions of a mirror's scans. Remembers the keys that the first scan found in the target and not in the source.

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
        #: The keys that a scan of the whole source has withheld while the mirror was not accepted, in order; None: no such scan yet.
        self._existing: Spool | None = None

    def close(self) -> None:
        """Remove the file with what the target held before the mirror."""
        if self._existing is not None:
            self._existing.close()
        self._existing = None

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
            self.close()
        if part.has_left and permission.accepted:
            return _all(missing)
        if not part.path and len(missing) <= permission.confirmed:
            self.close()
            return _all(missing)
        if not permission.accepted:
            return self._of_a_new_mirror(missing, part)
        limit = self._limit.of(part.scope)
        if len(missing) <= limit and not permission.has_withheld:
            return _all(missing)
        return iter(()), 0, self._withhold(missing, part, limit)

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
                return self._made_by_us(rows, self._existing)
            return iter(()), 0, self._withheld(rows)
        finally:
            if rows is not self._existing:
                rows.close()

    def _withhold_existing(self, rows: Spool, part: ComparedPart) -> Withheld:
        """Withhold all, and remember these keys if all of the source could be read."""
        withheld = self._withheld(rows)
        self.close()
        if part.is_complete:
            self._existing = rows
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
        for key in _without(rows, existing):
            made.add((key,))

        def keys() -> Iterator[str]:
            with closing(made):
                for (key,) in made:
                    yield key

        return keys(), len(made), Withheld(len(rows) - len(made))

    def _withhold(self, missing: Spool, part: ComparedPart, limit: int) -> Withheld:
        withheld = self._withheld(missing)
        if withheld.count and not part.path:
            why = "more than" if withheld.count > limit else "and an earlier scan has found more than"
            log.error(
                "%s%d of %s in scope are gone from the source (%s), %s --max-delete (%s) allows: none is deleted. If the source is as it "
                "should be, run %s, or start again with --max-delete=100%%",
                self._about, withheld.count, _keys_text(part.scope), withheld.listed(), why, self._limit, self._accept,
            )  # fmt: skip
        return withheld

    def _withheld(self, rows: Spool) -> Withheld:
        if self._on_withheld is not None:
            for (key,) in rows:
                self._on_withheld(key)
        return Withheld(len(rows), tuple(key for (key,) in islice(rows, _EXAMPLES)))

    def _is_file(self, path: str) -> bool:
        """Whether there is a regular file at this path, and no link on the way below the root of its source."""
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return False
        except (OSError, ValueError):  # ValueError: no file can have this name
            return False
        source = self._keys.source_of(path)
        if source is None:
            return False
        root = source.root.rstrip("/")
        return os.path.realpath(path) == os.path.realpath(source.root).rstrip("/") + path[len(root) :]


def _all(missing: Spool) -> tuple[Iterator[str], int, Withheld]:
    return (key for (key,) in missing), len(missing), Withheld()


def _without(rows: Iterable[Row], others: Iterable[Row]) -> Iterator[str]:
    """The keys of sorted rows that are not among other sorted rows."""
    rest = iter(others)
    other = next(rest, None)
    for (key,) in rows:
        while other is not None and other[0] < key:
            other = next(rest, None)
        if other is None or other[0] != key:
            yield key


def _keys_text(count: int) -> str:
    return f"{count} key{'s'[: count != 1]}"
