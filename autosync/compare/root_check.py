"""Finds out for one scan which roots and mount points have been replaced. The scan deletes no keys below them."""

from __future__ import annotations

import errno
import logging
import os
import stat
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from ..files import Page
from ..model.keys import Keys, Span
from ..model.mirror import Identity
from ..model.paths import is_at_or_below, itself_and_parents, parents, slashed
from ..model.text import printable
from ..source.remembered_roots import NO_FILE
from ..source.roots import RootRegister

log = logging.getLogger(__name__)

#: Greater than every character of a key.
_LAST = chr(0x10FFFF)


class _Opened(NamedTuple):
    """A root or a mount point that the walk has opened.

    Attributes:
        is_remembered: whether it is the remembered directory.
        is_empty: whether it is an empty mount point that is not remembered as empty.
    """

    identity: Identity
    is_remembered: bool
    is_empty: bool


class RootCheck:
    """The check of the roots and mount points during one scan.

    Args:
        roots: the remembered ones.
        keys: the rules for the mirror's keys.
        path: the directory that is scanned; "" is the whole source.
        accepted: whether the mirror is accepted. As long as it is not, a mount point without an identity is adopted as it is.
        empty: the roots that hold no file while the target has keys of them.
        about: prefix of log lines, where there are several mirrors.
    """

    def __init__(
        self, roots: RootRegister, keys: Keys, path: str, *, accepted: bool, empty: Collection[str] = (), about: str = ""
    ) -> None:  # fmt: skip
        self._roots = roots
        self._keys = keys
        self._path = path
        self._accepted = accepted
        self._empty = empty
        self._about = about
        roots.follow_switched_links(path)
        roots.poll_mounts()
        roots.automounts.use(path)
        self.paths = roots.protected()
        #: Whether something was mounted during the scan above keys that the source lacks.
        self.needs_scan = False
        self._in_doubt = {top for top in self._above() if not roots.is_confirmed(top)}
        self._opened: dict[str, _Opened] = {}
        #: Paths that lead through a link to or below a mount point -> that mount point.
        self._through_links: dict[str, str] = {}
        #: For each root and mount point, the numbers of keys that the target lists; that the source lacks; that it lacks and are in scope.
        self._listed: Counter[str] = Counter()
        self._absent: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()

    # For the walk

    def opened(self, path: str, real: str, descriptor: int, stats: os.stat_result) -> bool:
        """Check a directory that the walk has opened: a root, or one on another device than the directory above.

        Args:
            path: the path by which the walk has reached it.
            real: its path without links below the root of its source.
            descriptor: an open descriptor of the directory.
            stats: the directory's fstat.

        Returns:
            Whether another directory is remembered there: its files may be as large as those that were sent, and older than their objects.
        """
        if path != real:
            self.follows_link(path, real)
            return False
        is_remembered = self._roots.check_open(path, descriptor, stats)
        self._opened[path] = _Opened(Identity(stats.st_dev, stats.st_ino), is_remembered, self._roots.is_emptied(path, descriptor))
        return not is_remembered and self._roots.remembered.is_identified(path)

    def follows_link(self, path: str, real: str) -> None:
        """Note a path that leads through a link to or below a mount point."""
        top = next((top for top in self._roots.above(real) if self._roots.kind(top) == "mount"), "")
        if top:
            self._through_links[path] = top

    def error_of_link(self, path: str, real: str) -> OSError | None:
        """The error of a link whose target is missing because a root or mount point is in doubt; None if none of them is."""
        for top in self._roots.above(real):
            if not self._roots.is_confirmed(top):
                return OSError(errno.EACCES, f"it leads into {top}, which is not the directory that it was", path)
        return None

    # For the merge

    def count_pages(self, span: Span, pages: Iterable[Page]) -> Iterator[Page]:
        """Count the keys that the target lists below each root and mount point."""
        places = [(top, self._prefix(span, top)) for top in self.paths]
        counted = [(top, prefix) for top, prefix in places if prefix is not None]
        for page in pages:
            for top, prefix in counted:
                first = bisect_left(page.keys, prefix)
                self._listed[top] += bisect_left(page.keys, prefix + _LAST, first) - first
            yield page

    def count_absent(self, span: Span, key: str, *, in_scope: bool) -> None:
        """Count a key that the target lists and the source lacks."""
        path = slashed(span.directory) + key[len(span.prefix) :]
        for top in self.paths.intersection(parents(path)):
            self._absent[top] += 1
            self._missing[top] += in_scope

    def counted(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """What was counted until now, for `count_again`."""
        return self._listed.copy(), self._absent.copy(), self._missing.copy()

    def count_again(self, before: tuple[Counter[str], Counter[str], Counter[str]]) -> None:
        """Restore earlier counts: the same span begins again."""
        self._listed, self._absent, self._missing = before

    # For the end of the scan

    def paths_in_doubt(self, missing: Iterable[str]) -> PathsInDoubt:
        """The paths below which this scan must delete nothing. A replaced directory is adopted if it holds at least half of the keys that
        the target has there.

        Args:
            missing: paths of the keys that the source lacks. They are read only if something was mounted during the scan.
        """
        self._roots.find_moved_mounts(top for top in self.paths if self._is_below(top) and top not in self._opened)
        in_doubt = {*self._in_doubt, *(top for top in self._above() if not self._roots.is_confirmed(top))}
        protected = self._roots.protected()
        self._count_new_mounts(protected - self.paths, missing)
        for top in protected:
            if self._is_below(top) and top not in in_doubt and not self._is_believed(top):
                in_doubt.add(top)
        if not self._path:
            self._roots.refresh_names()
        links = {path for path, top in self._through_links.items() if top in in_doubt or not self._roots.is_confirmed(top)}
        return PathsInDoubt({*in_doubt, *links})

    def top_of(self, path: str) -> str:
        """The root or mount point in doubt for which what is below a path in doubt is kept: a link may lead to it."""
        return self._through_links.get(path, path)

    def note_kept(self, top: str, count: int, digest: str) -> None:
        """Note the keys that are kept below a root or a mount point in doubt, for operators.

        Args:
            top: path of the root or the mount point.
            count: number of the keys.
            digest: of their set, see `Withheld.digest`.
        """
        if self._is_below(top):  # else this scan has compared a part of them
            self._roots.remembered.note_kept(top, count, digest)

    def log_kept(self, kept: Counter[str]) -> None:
        """Log how many keys are kept below the directories in doubt.

        Args:
            kept: the number of keys by path.
        """
        for path, count in sorted(kept.items()):
            top = self.top_of(path)
            doubt = self._roots.remembered.doubts().get(top)
            if top in self._roots.remembered.waiting:
                log.info("%s%s is accepted as it is; another scan deletes %d keys below it", self._about, printable(top), count)
                continue
            log.error(
                "%s%s %s. %d keys below %s that are not in the source are kept. If this is as it should be: autosync-ctl accept --%s",
                self._about, printable(top), (doubt and doubt.text) or "is not the directory that it was", count,
                "it" if top == path else printable(path), self._roots.kind(top),
            )  # fmt: skip

    def _count_new_mounts(self, new: frozenset[str], missing: Iterable[str]) -> None:
        """Count the keys that the source lacks below mount points that did not exist when the scan began."""
        for path in missing if new else ():
            for top in new.intersection(self._roots.above(path)):
                self._missing[top] += 1

    def _is_believed(self, top: str) -> bool:
        """Whether keys that the scan has not found below a root or a mount point count as deleted."""
        seen = self._opened.get(top)
        missing, is_identified = self._missing[top], self._roots.remembered.is_identified(top)
        doubt = self._roots.remembered.doubts().get(top)
        is_waiting = self._roots.mounts.is_waiting_for_use(top)
        if missing and top in self._empty:
            if doubt is not None and doubt.accepted:
                # The doubt ends when these keys are gone: until then, another scan finds them again. Workers delete only below the
                # directory that the definition names, so it has to be this one.
                if seen is None:
                    return _is_no_directory(top) and self._roots.drop(top)
                return self._roots.adopt(top, seen.identity, keeps_doubt=True)
            self._roots.note_keys(top, self._listed[top] - self._absent[top] + missing, NO_FILE if seen is not None else "")
            return False
        if missing and top not in self.paths:  # the walk may have been there before the mount, and it is not known how many keys there are
            self.needs_scan = True
            return False
        if seen is not None and seen.is_remembered and not seen.is_empty and (is_waiting or self._roots.is_confirmed(top)):
            self._roots.remembered.end_doubt(top)
            return True
        is_accepted = doubt is not None and doubt.accepted
        if seen is None:
            if missing and not is_waiting and not _is_no_directory(top):
                return False
            is_over = is_accepted or (not missing and not is_waiting)
            if is_over and self._roots.kind(top) == "mount" and (is_waiting or _is_no_directory(top)):
                self._roots.forget(top)
        elif is_accepted or not missing or (not is_identified and not self._accepted):
            return self._roots.adopt(top, seen.identity) or not missing
        if is_accepted or not missing:
            return True
        doubt = self._roots.note_keys(top, self._listed[top] - self._absent[top] + missing)
        if seen is not None and not seen.is_empty and doubt.keys is not None and missing * 2 <= doubt.keys:
            return self._roots.adopt(top, seen.identity)
        return False

    def _above(self) -> list[str]:
        """The roots and mount points that contain the scanned directory."""
        return [top for top in self._roots.above(self._path) if top != self._path]

    def _is_below(self, top: str) -> bool:
        return not self._path or is_at_or_below(top, self._path)

    def _prefix(self, span: Span, top: str) -> str | None:
        """The prefix of the keys at or below a root or mount point; None if it is outside the span."""
        if is_at_or_below(span.directory, top):
            return span.prefix
        if is_at_or_below(top, span.directory):
            return span.prefix + slashed(top)[len(slashed(span.directory)) :]
        return None


def _is_no_directory(path: str) -> bool:
    """Whether a path does not exist, or names something else than a directory; False if that is not certain."""
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


class PathsInDoubt:
    """Paths at and below which nothing counts as deleted.

    Args:
        tops: the topmost of them.
    """

    def __init__(self, tops: set[str]) -> None:
        self._tops = tops

    def __bool__(self) -> bool:
        return bool(self._tops)

    def top_of(self, path: str) -> str | None:
        """The innermost directory in doubt that contains a path; None: none does."""
        return next((one for one in itself_and_parents(path) if one in self._tops), None)
