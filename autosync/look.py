"""A look: walk a part of the source, list the same part of the target, and give the differences that are in scope.

What a look may not conclude is decided here: nothing is missing from a source that could not be read, or that is empty as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .actor import Actor, listing_of
from .disksort import disksort
from .errors import AutosyncError, OutOfOrder, SourceUnsure, TargetError
from .files import File
from .keys import Keys, Source, Span
from .reconciler import Difference, compare, in_order
from .tree import Found, Walk

log = logging.getLogger(__name__)


@dataclass
class LookReport:
    """What a look found. `complete` is False if part of the source could not be seen; then nothing was deleted behind that part."""

    uploads: int = 0
    deletes: int = 0
    seen: int = 0
    complete: bool = True
    error: AutosyncError | None = None


class Comparison:
    """Compares a source with its target.

    Args:
        keys: the naming rule and scope of the mirror.
        actor: lists the target.
        delete: whether keys that the source does not have are differences.
        spill: directory for what is sorted on disk; None for the system's temporary directory.
    """

    def __init__(self, keys: Keys, actor: Actor, *, delete: bool = True, spill: str | None = None) -> None:
        self._keys = keys
        self._actor = actor
        self._delete = delete
        self._spill = spill
        self._unsorted = False

    def differences(self, path: str, report: LookReport, cleared: float = 0.0) -> Iterator[Difference]:
        """The differences at or below a path.

        Args:
            path: a directory; "" is everything.
            report: is filled in on the way.
            cleared: see `autosync.reconciler.compare`.

        Raises:
            TargetError: the target's listing failed.
            SourceUnsure: a source root cannot be read, or the source holds nothing while the target does.
        """
        spans = self._keys.spans(path)
        if not path and self._delete:
            self._refuse_empty_source(spans)
        for span in spans:
            yield from self._at(span, report, cleared)

    def _at(self, span: Span, report: LookReport, cleared: float) -> Iterator[Difference]:
        """One stretch. A listing that turns out not to be sorted is asked for again and sorted on disk."""
        if not self._unsorted:
            try:
                yield from self._merge(span, report, self._listed(span), cleared)
                return
            except OutOfOrder as error:
                log.info("%s; listings of this target are sorted on disk from now on", error)
                self._unsorted = True
        yield from self._merge(span, report, self._listed(span), cleared)

    def _merge(self, span: Span, report: LookReport, listed: Iterable[File], cleared: float) -> Iterator[Difference]:
        walk = self._walk(span)
        for difference in compare(_named(walk, span, report), in_order(listed), cleared):
            if difference.found is not None or self._may_go(difference.key, walk):
                yield difference
        for error in walk.errors:
            if error.filename == self._source_at(span).root:
                raise SourceUnsure(f"source {error.filename} cannot be read: {error.strerror}", "mount it, or correct PATH")
        for error in walk.errors[:10]:
            log.warning("%s cannot be read: %s; nothing behind it is deleted in this look", error.filename, error.strerror)
        report.complete = report.complete and not walk.errors

    def _may_go(self, key: str, walk: Walk) -> bool:
        return self._delete and not walk.errors and self._keys.path(key) is not None

    def _walk(self, span: Span) -> Walk:
        source = self._source_at(span)

        def enters(directory: str) -> bool:
            return not span.only and directory != span.without and self._keys.enters(directory)

        def accepts(path: str) -> bool:
            return (not span.only or path == span.only) and self._keys.accepts(path, source)

        return Walk(source.root, span.directory, enters, accepts, self._spill)

    def _listed(self, span: Span) -> Iterator[File]:
        try:
            listing = listing_of(self._actor, span.prefix)
            files = (file for file in listing if file.key.startswith(span.prefix))
            if self._unsorted or not getattr(listing, "already_sorted", False):
                rows = disksort(((file.key, file.size, file.mtime, file.etag) for file in files), self._spill)
                files = (File(*row) for row in rows)
            yield from files
        except AutosyncError:
            raise
        except Exception as error:  # a user's actor may fail in any way
            raise TargetError(f"the target could not be listed: {type(error).__name__}: {error}") from error

    def _refuse_empty_source(self, spans: Sequence[Span]) -> None:
        """A share that is not mounted looks like an empty directory. It must not empty the target."""
        for span in spans:
            walk = self._walk(span)
            if next(iter(walk), None) is not None or walk.errors:
                return  # an error is said, and acted upon, where the look meets it
        for span in spans:
            for file in self._listed(span):
                if self._keys.path(file.key) is not None:
                    raise SourceUnsure(
                        f"the source holds no file while the target holds {file.key!r} and maybe more, so nothing is deleted",
                        "mount the source; or, if it is meant to be empty, empty the target by hand",
                    )

    def _source_at(self, span: Span) -> Source:
        return next(one for one in self._keys.sources if one.root == span.directory or one.holds(span.directory))


def _named(walk: Walk, span: Span, report: LookReport) -> Iterator[tuple[str, Found]]:
    cut = len(span.directory.rstrip("/")) + 1
    for found in walk:
        report.seen += 1
        yield (span.prefix if span.only else span.prefix + found.path[cut:]), found
