"""Where the links of a tree lead, so that what happens on their way, or to what they lead to, is said for their names too."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from .keys import Source, slashed
from .tree import Resolved, Withheld, resolve_beneath, tops_of


class Lead(NamedTuple):
    """Where a link leads: through and to `paths`, absolute ones; none if it leads out. `is_directory`: to one that is to be entered."""

    paths: tuple[str, ...]
    is_directory: bool


class Links:
    """The links that are known. Not safe to use from many threads at once."""

    def __init__(self) -> None:
        self._paths: dict[str, tuple[str, ...]] = {}
        self._through: dict[str, set[str]] = {}

    def __contains__(self, link: str) -> bool:
        return link in self._paths

    def note(self, link: str, lead: Lead) -> None:
        """Note where a link leads now."""
        self._forget(link)
        self._paths[link] = lead.paths
        for path in lead.paths:
            self._through.setdefault(path, set()).add(link)

    def forget(self, top: str) -> None:
        """Forget a link, or all links below a directory."""
        prefix = slashed(top)
        for link in [link for link in self._paths if link == top or link.startswith(prefix)]:
            self._forget(link)

    def through(self, path: str) -> Iterable[str]:
        """The links that lead to a path, or through it if it is a link itself."""
        return tuple(self._through.get(path, ()))

    def through_below(self, top: str) -> set[str]:
        """The links that lead to a directory, or to or through something below it."""
        prefix = slashed(top)
        return {link for path, links in self._through.items() if path == top or path.startswith(prefix) for link in links}

    def _forget(self, link: str) -> None:
        for path in self._paths.pop(link, ()):
            self._through[path].discard(link)
            if not self._through[path]:
                del self._through[path]


def lead_of(root: int, source: Source, link: str) -> Lead:
    """Find out where a link leads.

    Args:
        root: descriptor of the source's root.
        source: in which the link is.
        link: its path.
    """
    relative = link[len(source.root) :].strip("/")
    tops = tops_of(source.root)
    paths: tuple[str, ...] = ()
    try:
        found = resolve_beneath(root, tops, relative)
        paths = tuple(slashed(source.root) + path for path in (*found.passed, found.real) if path != relative)
        mode = os.stat(found.real or ".", dir_fd=root, follow_symlinks=False).st_mode
        return Lead(paths, stat.S_ISDIR(mode) and not _goes_round(root, tops, relative, found))
    except (Withheld, OSError):
        return Lead(paths, is_directory=False)


def _goes_round(root: int, tops: tuple[str, ...], relative: str, found: Resolved) -> bool:
    """Whether a link leads back to a directory that the way to it goes through."""
    parts = relative.split("/")
    return any(resolve_beneath(root, tops, "/".join(parts[:count])).real == found.real for count in range(len(parts)))
