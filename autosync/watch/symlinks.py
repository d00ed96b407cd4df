"""Where the links of a tree lead, so that what happens on their way, or to what they lead to, is said for their names too."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from ..model.keys import Source, slashed
from ..source.beneath import NotMirrored, resolve_beneath, root_paths


class LinkTarget(NamedTuple):
    """Where a link leads: through and to `paths`, absolute ones. `is_directory`: to one that is to be entered; `withheld`: it is not to be
    followed, and what the target has below it stays for that long."""

    paths: tuple[str, ...]
    is_directory: bool
    withheld: bool


class Links:
    """The links that are known. Not safe to use from many threads at once."""

    def __init__(self) -> None:
        self._paths: dict[str, tuple[str, ...]] = {}
        self._through: dict[str, set[str]] = {}
        self._above_some: set[str] = set()

    def __bool__(self) -> bool:
        """Whether any link is known."""
        return bool(self._paths)

    def __contains__(self, link: str) -> bool:
        return link in self._paths

    def has_below(self, link: str) -> bool:
        """Whether the target may have something below a link: it leads to a directory, or is not followed, and then what it has stays."""
        return link in self._above_some

    def note(self, link: str, lead: LinkTarget) -> bool:
        """Note where a link leads now; again and again, until this returns that it was known already."""
        if lead.is_directory or lead.withheld:
            self._above_some.add(link)
        if self._paths.get(link) == lead.paths:
            return True
        self.forget(link)
        self._paths[link] = lead.paths
        for path in lead.paths:
            self._through.setdefault(path, set()).add(link)
        return False

    def forget(self, link: str) -> None:
        """Forget a link, and none of those below it."""
        self._above_some.discard(link)
        for path in self._paths.pop(link, ()):
            self._through[path].discard(link)
            if not self._through[path]:
                del self._through[path]

    def forget_below(self, top: str) -> None:
        """Forget a link, and all links below a link or a directory. This goes through all links."""
        prefix = slashed(top)
        for link in [link for link in self._paths if link == top or link.startswith(prefix)]:
            self.forget(link)

    def through(self, path: str) -> Iterable[str]:
        """The links that lead to a path, or through it if it is a link itself."""
        return tuple(self._through.get(path, ()))

    def through_below(self, top: str) -> set[str]:
        """The links that lead to a directory, or to or through something below it."""
        prefix = slashed(top)
        return {link for path, links in self._through.items() if path == top or path.startswith(prefix) for link in links}


def lead_of(root: int, source: Source, link: str) -> LinkTarget:
    """Find out where a link leads.

    Args:
        root: descriptor of the source's root.
        source: in which the link is.
        link: its path.
    """
    relative = link[len(source.root) :].strip("/")
    prefix = slashed(source.root)
    passed: tuple[str, ...] = ()
    is_directory = withheld = False
    try:
        real, passed = resolve_beneath(root, root_paths(source.root), relative)
        passed = (*passed, real)
        is_directory = stat.S_ISDIR(os.stat(real or ".", dir_fd=root, follow_symlinks=False).st_mode)
    except NotMirrored as reason:
        passed, withheld = reason.passed, True
    except OSError:
        pass
    paths = tuple(dict.fromkeys(prefix + path for path in passed if path != relative))
    return LinkTarget(paths, is_directory, withheld)
