"""Limits how many keys behind links are sent, as the last scan of the whole source has decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..model.keys import Keys
from ..source.beneath import leads_through_link
from ..source.link_limit import RATIO, Counts, LinkCut, LinkLimit


class FollowedLinks:
    """The limit of one mirror. A scan of the whole source decides; scans of parts, events and watches follow until the next one.

    Args:
        keys: scope of the mirror.
        max_links: number of keys behind links that are always allowed.
        others: counts the files and directories that are not behind links, see `LinkLimit`.
    """

    def __init__(self, keys: Keys, max_links: int, others: Callable[[], Iterator[Counts]]) -> None:
        self._keys = keys
        self._always = Counts(max_links, max_links)
        self._others = others
        #: Counts of the last scan of the whole source, of what is not behind links and of what is; None before the first scan.
        self._found: Counts | None = None
        self._behind = Counts()
        #: Number of keys behind links that scans of parts have found since.
        self._new = 0
        #: The limit that the last scan of the whole source has set; None: nothing was beyond it. From any thread.
        self.cut: LinkCut | None = None

    def limit(self, *, whole: bool) -> LinkLimit:
        """The limit for a scan of the whole source, or of a part."""
        if whole:
            return LinkLimit(self._always, self._others())
        if self._found is None:
            return LinkLimit(self._always, self._others(), self.cut)
        return LinkLimit(self._most(), cut=self.cut)

    def admit(self) -> bool:
        """Whether a scan of a part may send one more key behind links that the target lacks. If not, a scan of the whole source has to
        decide."""
        if self.cut is None and self._found is not None and self._behind.files + self._new >= self._most().files:
            return False
        self._new += 1
        return True

    def finish(self, limit: LinkLimit) -> None:
        """Adopt what a scan of the whole source has decided.

        Args:
            limit: the limit that the scan of everything has set.
        """
        self.cut = limit.cut()
        self._found, self._behind, self._new = limit.found, limit.behind, 0

    @property
    def has_decided(self) -> bool:
        """Whether a scan of the whole source has ended. From any thread."""
        return self._found is not None

    def max_directories(self) -> int:
        """The most directories behind links that are within the limit. From any thread."""
        return self._always.directories if self._found is None else self._most().directories

    def is_beyond(self, path: str) -> bool:
        """Whether a path is behind a link and beyond the limit. From any thread.

        Args:
            path: a file's path, or a directory's with a slash at its end.
        """
        cut = self.cut
        return cut is not None and cut.is_beyond(path) and self._is_behind_link(path.rpartition("/")[0])

    def _is_behind_link(self, directory: str) -> bool:
        source = self._keys.source_of(f"{directory}/x")
        return source is not None and not source.is_file and leads_through_link(source.root, directory)

    def _most(self) -> Counts:
        assert self._found is not None
        files, directories = self._found
        return Counts(max(self._always.files, RATIO * files), max(self._always.directories, RATIO * max(files, directories)))
