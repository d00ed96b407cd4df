"""Sources that are empty as a whole while the target has keys of them: shares that are not mounted, most likely."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from ..errors import SourceUnsure
from ..files import Page
from ..model.file_rules import FileRules
from ..model.keys import Keys, Source, Span
from ..model.paths import is_at_or_below
from ..source.link_limit import Counts, LinkLimit
from .source_walks import SourceWalks


class EmptySources:
    """The check of one mirror's sources before a scan that may delete.

    Args:
        keys: naming rule and scope of the mirror.
        walks: the walks of the mirror's sources.
        rules: which files are sent.
        pages: lists a span in the target.
    """

    def __init__(self, keys: Keys, walks: SourceWalks, rules: FileRules, pages: Callable[[Span], Iterator[Page]]) -> None:
        self._keys = keys
        self._walks = walks
        self._rules = rules
        self._pages = pages

    def find(self, path: str, shared_keys: Container[str] = (), *, can_doubt: bool = True) -> list[str]:
        """The roots of the sources that are empty while the target has keys of them: a share that is not mounted appears as an empty
        directory. Only sources whose roots are at or below a path are checked.

        Args:
            path: a directory's absolute path; "" for all sources.
            shared_keys: those that other mirrors could have made.
            can_doubt: whether the scan can keep what is below a root. If not, one such source ends it.

        Raises:
            SourceUnsure: a source is empty while the target has keys of it, and the scan cannot keep them.
        """
        # A PATH inside another one may be a share of its own.
        all_ = [*self._keys.sources, *(Source(inner) for inner in self._keys.inner_paths)]
        empty = [one for one in all_ if (not path or is_at_or_below(one.path, path)) and self._is_empty(one)]
        found = {one.root: key for one in empty if (key := self._listed_key(one, shared_keys)) is not None}
        if found and not can_doubt:
            root, key = next(iter(found.items()))
            raise SourceUnsure(
                f"the source {root} holds no file while the target holds {key!r} and maybe more, so nothing is deleted",
                "mount the source; or, if it is meant to be empty, empty the target by hand",
            )
        return list(found)

    def _is_empty(self, source: Source) -> bool:
        return not source.is_file and not any(self._holds_something(span) for span in self._keys.spans(source.path))

    def _holds_something(self, span: Span) -> bool:
        rules = self._rules.without_size_bounds()
        most = Counts(rules.max_links, rules.max_links)
        walk = self._walks.walk(span, rules, in_order=False, link_limit=LinkLimit(most) if rules.follow_links else None)
        return any(not found.skipped for found in walk) or bool(walk.errors)  # the scan itself reports the errors

    def _listed_key(self, source: Source, shared_keys: Container[str]) -> str | None:
        """A key of a source that the target lists; None: there is none."""
        listed = (key for span in self._keys.spans(source.path) for page in self._pages(span) for key in page.keys)
        return next((key for key in listed if self._keys.path(key) is not None and key not in shared_keys), None)
