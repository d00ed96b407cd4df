"""Walks of the sources of a mirror, with its filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..model.file_rules import FileRules
from ..model.keys import Keys, Source, Span
from ..source.beneath import newest_link_time
from ..source.link_limit import Counts, LinkLimit
from ..source.walk import Walk
from .root_check import RootCheck


class SourceWalks:
    """Makes the walks of one mirror.

    Args:
        keys: naming rule and scope of the mirror.
        spill: directory in which very large directories are sorted; None: the system's temporary directory.
    """

    def __init__(self, keys: Keys, spill: str | None) -> None:
        self._keys = keys
        self._spill = spill

    def source_at(self, span: Span) -> Source:
        """The source that a span is a part of."""
        return next(one for one in self._keys.sources if one.root == span.directory or one.holds(span.directory))

    def walk(
        self, span: Span, rules: FileRules, *, in_order: bool = True, check: RootCheck | None = None, link_limit: LinkLimit | None = None
    ) -> Walk:
        """A walk of a span with the filters of the mirror.

        Args:
            span: the keys to walk.
            rules: which files are found.
            in_order: see `Walk`.
            check: checks roots and mount points, see `Walk`.
            link_limit: see `Walk`.
        """
        source = self.source_at(span)

        def enters(directory: str) -> bool:
            return not span.only and directory != span.without and self._keys.enters(directory)

        def accepts(directory: str, names: list[str]) -> list[str]:
            if span.only:
                names = [name for name in names if directory + name == span.only]
            return self._keys.accepted(directory, names, source)

        state = self._keys.state_beneath(source.root)
        return Walk(
            source.root, span.directory, enters, accepts, self._spill, rules=rules, in_order=in_order, state=state, observer=check,
            inner_paths=self._keys.inner_paths, link_limit=link_limit, root_changed=partial(newest_link_time, source.root),
        )  # fmt: skip

    def counts_without_links(self, rules: FileRules) -> Iterator[Counts]:
        """Count the files and directories that are not behind links, in portions."""
        rules = replace(rules, follow_links=False)
        for span in self._keys.spans(""):
            counted = LinkLimit(Counts())
            before = Counts()
            for _ in self.walk(span, rules, link_limit=counted).runs():
                yield Counts(counted.found.files - before.files, counted.found.directories - before.directories)
                before = counted.found
            yield Counts(counted.found.files - before.files, counted.found.directories - before.directories)
