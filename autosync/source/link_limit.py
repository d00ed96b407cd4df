"""How many keys behind links to directories are sent. Such links multiply where they lead to directories with further links: fourteen files
have 16,383 paths if each directory links to all later ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..model.file_rules import FileRules
from ..model.paths import slashed

#: Files behind links are not too many up to this multiple of the files that are not behind links. Directories behind links are not too
#: many up to this multiple of the files or of the directories that are not behind links, whichever is more.
RATIO = 10


class Counts(NamedTuple):
    """Numbers of files and of directories."""

    files: int = 0
    directories: int = 0


@dataclass(frozen=True, slots=True)
class LinkRules:
    """Which directories behind links are not watched.

    Attributes:
        most: number of directories behind links that are always watched.
        is_beyond: whether a directory, with a slash at its end, is beyond what a scan has decided.
    """

    most: Callable[[], int] = lambda: FileRules().max_links
    is_beyond: Callable[[str], bool] = lambda _: False


@dataclass(frozen=True, slots=True)
class LinkCut:
    """The first path behind links that a scan of the whole source has not sent. It has sent none of the later ones either.

    Attributes:
        spans: the directories where its walks began, each with the first path that was beyond the limit; None: there was none.
    """

    spans: tuple[tuple[str, str | None], ...]

    def is_beyond(self, path: str) -> bool:
        """Whether a path is beyond the limit.

        Args:
            path: a file's path, or a directory's with a slash at its end. It leads through a link.
        """
        return self._first(path) <= path

    def count(self, directory: str, names: Sequence[str]) -> int:
        """How many of some files in a directory are not beyond the limit; they are the first ones.

        Args:
            directory: the directory's path, with a slash at its end. It leads through a link.
            names: the names, in order.
        """
        first = self._first(directory)
        return bisect_left(names, first, key=lambda name: directory + name)

    def _first(self, path: str) -> str:
        """The first path that is beyond the limit, in the part of the source with this path."""
        tops = [(slashed(directory), first) for directory, first in self.spans if path.startswith(slashed(directory))]
        first = max(tops, key=lambda top: len(top[0]), default=("", None))[1]
        return _LAST if first is None else first


#: Behind every path.
_LAST = "\U0010ffff"


class LinkLimit:
    """The limit of one scan. The walk counts what it finds, in its order, so a decision depends on the tree alone.

    Args:
        most: numbers of files and of directories behind links that are always allowed.
        others: the files and directories that are not behind links, as far as the walk may not have reached them yet, in portions. They are
            counted only if the decision depends on them.
        cut: the limit that an earlier scan has set; nothing beyond it is sent.

    Attributes:
        refused: number of files and directories that were found beyond the limit. What is in the directories was not counted.
        is_exceeded: whether something was found beyond the limit.
    """

    def __init__(self, most: Counts, others: Iterator[Counts] | None = None, cut: LinkCut | None = None) -> None:
        self._files = _Count(most.files)
        self._directories = _Count(most.directories)
        self._others = others
        self._before = cut
        self.refused = 0
        self.is_exceeded = False
        self._spans: list[tuple[str, str | None]] = []
        self._at_begin = self._state()

    @property
    def found(self) -> Counts:
        """Numbers of files and directories that were found and are not behind links."""
        return Counts(self._files.found, self._directories.found)

    @property
    def behind(self) -> Counts:
        """Numbers of files and directories that were found behind links, within the limit."""
        return Counts(self._files.behind, self._directories.behind)

    def begin_walk(self, directory: str) -> None:
        """Note that a walk begins at a directory. If the last walk began there, too, its counts are discarded."""
        if self._spans and self._spans[-1][0] == directory:
            found, behind, self.refused, self.is_exceeded = self._at_begin
            self._files.found, self._directories.found = found
            self._files.behind, self._directories.behind = behind
            self._spans.pop()
        self._at_begin = self._state()
        self._spans.append((directory, "" if self.is_exceeded else None))

    def cut(self) -> LinkCut | None:
        """The limit that this scan has set; None if nothing was beyond it."""
        return LinkCut(tuple(self._spans)) if self.is_exceeded else None

    def count(self, files: int = 0, directories: int = 0) -> None:
        """Count files and directories that are not behind links."""
        self._files.found += files
        self._directories.found += directories

    def allow_directory(self, path: str) -> bool:
        """Whether a directory behind a link is walked.

        Args:
            path: the directory's path, with a slash at its end.
        """
        is_beyond = self.is_exceeded or (self._before is not None and self._before.is_beyond(path))
        if not is_beyond and not self._has_room(self._directories, 1):
            self._exceed(path)
            is_beyond = True
        self._directories.behind += not is_beyond
        self.refused += is_beyond
        return not is_beyond

    def allow_files(self, directory: str, names: Sequence[str]) -> int:
        """How many of some files in a directory behind a link are sent; they are the first ones.

        Args:
            directory: the directory's path, with a slash at its end.
            names: the names, in order.
        """
        allowed = 0 if self.is_exceeded else len(names) if self._before is None else self._before.count(directory, names)
        if allowed and not self._has_room(self._files, allowed):
            allowed = max(self._limit(self._files) - self._files.behind, 0)
            self._exceed(directory + names[allowed])
        self._files.behind += allowed
        self.refused += len(names) - allowed
        return allowed

    def _state(self) -> tuple[Counts, Counts, int, bool]:
        return self.found, self.behind, self.refused, self.is_exceeded

    def _exceed(self, path: str) -> None:
        self.is_exceeded = True
        if self._spans:
            self._spans[-1] = (self._spans[-1][0], path)

    def _has_room(self, count: _Count, more: int) -> bool:
        """Whether a number of further files or directories is within the limit. Counts the others as far as that is needed to decide."""
        while count.behind + more > self._limit(count):
            counts = next(self._others, None) if self._others is not None else None
            if counts is None:
                return False
            self._files.others += counts.files
            self._directories.others += counts.directories
        return True

    def _limit(self, count: _Count) -> int:
        """How many files or directories may be behind links, according to the others that were counted until now."""
        others = max(self._files.found, self._files.others)
        if count is self._directories:
            others = max(others, count.found, count.others)
        return max(count.most, RATIO * others)


class _Count:
    """Counts files, or directories.

    Attributes:
        most: number behind links that is always allowed.
        found: by the walk, and not behind links.
        others: not behind links, by the walk of all that is not.
        behind: behind links.
    """

    __slots__ = ("behind", "found", "most", "others")

    def __init__(self, most: int) -> None:
        self.most = most
        self.found = self.others = self.behind = 0
