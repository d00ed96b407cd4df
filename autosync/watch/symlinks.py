"""Symbolic links of a tree and where they lead. A change of a link's target, or of a link on the way there, is a change of the link too."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..model.keys import Source
from ..model.paths import slashed
from ..source.beneath import NotMirrored, resolve_beneath, root_paths


class LinkTarget(NamedTuple):
    """Where a link leads.

    Attributes:
        paths: the absolute paths of the links on the way, and of the target.
        is_directory: whether the target is a directory that is to be entered.
        keep_in_target: whether the link is not followed. As long as that is so, the mirror's target keeps what it has below the link.
    """

    paths: tuple[str, ...]
    is_directory: bool
    keep_in_target: bool


class Links:
    """The links of a tree. `in` tests for the path of a link; iterating yields all. Not safe to use from many threads at once."""

    def __init__(self) -> None:
        self._paths: dict[str, tuple[str, ...]] = {}
        self._through: dict[str, set[str]] = {}
        self._with_content: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._paths)

    def __contains__(self, link: str) -> bool:
        return link in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def paths_of(self, link: str) -> tuple[str, ...]:
        """The paths through which a known link leads, and its target; none if the path is no known link."""
        return self._paths.get(link, ())

    def may_have_content(self, link: str) -> bool:
        """Whether the mirror's target may have keys below a link: the link leads to a directory, or it is not followed."""
        return link in self._with_content

    def update(self, link: str, target: LinkTarget) -> bool:
        """Set where a link leads.

        Returns:
            Whether the link led there before. If not, resolve the link once more and call this again: a change on the way that came before
            this call has been missed, and later ones will not be.
        """
        if target.is_directory or target.keep_in_target:
            self._with_content.add(link)
        if self._paths.get(link) == target.paths:
            return True
        self.forget(link)
        self._paths[link] = target.paths
        for path in target.paths:
            self._through.setdefault(path, set()).add(link)
        return False

    def forget(self, link: str) -> None:
        """Remove a link, and no link below it."""
        self._with_content.discard(link)
        for path in self._paths.pop(link, ()):
            self._through[path].discard(link)
            if not self._through[path]:
                del self._through[path]

    def forget_below(self, top: str) -> None:
        """Remove a link, and all links below a link or a directory. The time is proportional to the number of all links."""
        prefix = slashed(top)
        for link in [link for link in self._paths if link == top or link.startswith(prefix)]:
            self.forget(link)

    def through(self, path: str) -> Iterable[str]:
        """The links that lead to a path, or through a path that is a link itself."""
        return tuple(self._through.get(path, ()))

    def through_below(self, top: str) -> set[str]:
        """The links that lead to a directory, or to or through a path below it. The time is proportional to the number of all links."""
        prefix = slashed(top)
        return {link for path, links in self._through.items() if path == top or path.startswith(prefix) for link in links}


def resolve_link(root: int, source: Source, link: str) -> LinkTarget:
    """Find out where a link leads now.

    Args:
        root: descriptor of the source's root.
        source: contains the link.
        link: absolute path of the link.
    """
    relative = link[len(source.root) :].strip("/")
    prefix = slashed(source.root)
    passed: tuple[str, ...] = ()
    is_directory = keep_in_target = False
    try:
        real, passed = resolve_beneath(root, root_paths(source.root), relative)
        passed = (*passed, real)
        is_directory = stat.S_ISDIR(os.stat(real or ".", dir_fd=root, follow_symlinks=False).st_mode)
    except NotMirrored as reason:
        passed, keep_in_target = reason.passed, True
    except OSError:
        pass
    paths = tuple(dict.fromkeys(prefix + path for path in passed if path != relative))
    return LinkTarget(paths, is_directory, keep_in_target)
