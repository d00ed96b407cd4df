"""A look: walk a part of the source, list the same part of the target, and give the differences that are in scope.

What a look may not conclude is decided here. Deletions come last, when the walk and the listing have ended: none where a part of the source
could not be read, none of a source that is empty as a whole, none as long as the mirror is not accepted, and no more than its limit allows.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import repeat

from ..actor import Actor, listing_of, without_secrets
from ..errors import AutosyncError, OutOfOrder, SourceUnsure, TargetError
from ..files import File, Listing, Page, paged
from ..model.keys import Keys, Source, Span, slashed
from ..model.text import shown
from ..source.external_sort import Spool, disksort
from ..source.walk import Run, Walk
from .delete_limit import DeleteLimit
from .diff import Compare, Difference, Merge, Ours, Rule, in_order

log = logging.getLogger(__name__)

#: A clock difference that is worth a line in the log, in seconds.
_CLOCK_WORTH_A_LINE = 5.0
#: So many of the keys are named that are withheld.
_EXAMPLES = 3
#: So many skipped paths are kept with their reasons.
MOST_SKIPPED = 1000


@dataclass
class ScanReport:
    """What a look found. `complete` is False if part of the source could not be seen; then nothing was deleted behind that part.

    Attributes:
        uploads: keys that differ.
        checks: those of them of which only the times differ.
        deletes: keys to be deleted.
        held: keys that the source lacks and that are not deleted, since they are more than the limit allows or the mirror is not accepted.
        extra: keys in scope that the target has and the source lacks, whether they are deleted or not.
        seen: files of the source.
        equal: keys that the target has and that stay.
        busy_since: when the first of the files changed that were left to settle, in seconds since the epoch.
        skipped: what autosync has no use for, by path, with the reason; at most `MOST_SKIPPED`.
        noticed: called with each key that may be deleted; whether it is, is known at the end only.
    """

    uploads: int = 0
    checks: int = 0
    deletes: int = 0
    held: int = 0
    extra: int = 0
    seen: int = 0
    equal: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    busy_since: float = math.inf
    complete: bool = True
    error: AutosyncError | None = None
    noticed: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Policy:
    """What a mirror wants of its looks.

    Attributes:
        delete: whether keys that the source does not have are differences.
        limit: how many of them one look may give.
        by: what counts as different.
        follow: whether links are followed.
    """

    delete: bool = True
    limit: DeleteLimit = field(default_factory=DeleteLimit)
    by: Compare = Compare.TIME
    follow: bool = True


class Comparison:
    """Compares a source with its target.

    Args:
        keys: the naming rule and scope of the mirror.
        actor: lists the target.
        policy: what the mirror wants.
        spill: directory for what is sorted on disk; None for the system's temporary directory.
        exact: every listing is sorted on disk. Else one is only once it has turned out not to be in order, and until then some keys seem to
            differ that do not: who acts on differences finds nothing to do, but who tells of them would tell what is not so.
        about: put in front of what is logged about deletions, where there are several mirrors.
    """

    def __init__(
        self, keys: Keys, actor: Actor, policy: Policy | None = None, *, spill: str | None = None, exact: bool = False, about: str = ""
    ) -> None:
        self._about = about
        self._keys = keys
        self._actor = actor
        self._policy = policy or Policy()
        self._spill = spill
        self._unsorted = exact

    def differences(
        self,
        path: str,
        report: ScanReport,
        cleared: float = 0.0,
        *,
        seen_leaving: bool = False,
        holding: bool = False,
        accepted: bool = True,
    ) -> Iterator[Difference]:
        """The differences at or below a path: first what is to be sent, then what is to be deleted.

        Args:
            path: a directory; "" is everything.
            report: is filled in on the way.
            cleared: see `autosync.compare.diff.Rule`.
            seen_leaving: the kernel told that this directory left; then neither the limit of deletions nor the next one holds.
            holding: an earlier look held deletions back; then this one lets none go unless it is one at everything and finds all of them
                within the limit.
            accepted: whether the mirror is; one that is not lets none go, and withholds what the target held before it. That a directory
                left says nothing about keys below it which it never held.

        Raises:
            TargetError: the target's listing failed.
            SourceUnsure: a source root cannot be read, or a source holds nothing while the target does.
            OSError: what is put aside cannot be written.
        """
        spans = self._keys.spans(path)
        if self._policy.delete:
            self._refuse_empty_sources(path)
        rule = Rule(self._policy.by, cleared, self._clock_ahead(), self._actor.can_match)
        with closing(Spool(self._spill)) as gone:
            for span in spans:
                yield from self._at(span, report, rule, gone)
            most = len(gone) if seen_leaving else self._policy.limit.of(report.equal + len(gone))
            if not accepted:
                self._withhold(gone, report, most)
                return
            if holding and not seen_leaving and (path or len(gone) > most):
                most = 0
            yield from self._let_go(gone, report, most)

    def _withhold(self, gone: Spool, report: ScanReport, most: int) -> None:
        """Delete nothing, since nobody has said that what the target held before this mirror may go, and say so. A file that was made and
        sent while its directory was being walked is none of that.

        Args:
            gone: the keys that would be deleted.
            report: is told how many are withheld.
            most: how many could be deleted if the mirror were accepted.
        """
        examples: list[str] = []
        for (key,) in gone:
            if self._is_file(str(self._keys.path(key))):
                report.extra -= 1
                continue
            report.held += 1
            if len(examples) < _EXAMPLES:
                examples.append(shown(key))
        if report.held:
            more = f" and {report.held - len(examples)} more" if report.held > len(examples) else ""
            options = "--accept-existing --max-delete=100%" if report.held > most else "--accept-existing"
            log.error(
                "%sthe target holds %d keys in scope that the source lacks (%s%s). This mirror is not accepted yet, so none is deleted. "
                "To delete them, start again with %s; to keep them, with --no-delete or another --target-prefix",
                self._about, report.held, ", ".join(examples), more, options,
            )  # fmt: skip

    def _let_go(self, gone: Spool, report: ScanReport, most: int) -> Iterator[Difference]:
        if len(gone) > most:
            report.held = len(gone) - most
            log.error(
                "%s%d of %d keys in scope are gone from the source, and --max-delete (%s) lets %d go: %d are withheld and stay in the "
                "target. If the source is as it should be, start again with --max-delete=100%%",
                self._about, len(gone), report.equal + len(gone), self._policy.limit, most, report.held,
            )  # fmt: skip
        report.deletes = len(gone) - report.held
        for number, row in enumerate(gone):
            if number == report.deletes:
                return
            yield Difference(row[0], None, listed=True)

    def _is_file(self, path: str) -> bool:
        """Whether a regular file has this path, with no link below the root of its source."""
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

    def _clock_ahead(self) -> float:
        try:
            ahead = self._actor.clock_ahead()
        except AutosyncError:
            raise
        except Exception as error:  # a user's actor may fail in any way
            said = without_secrets(self._actor, f"{type(error).__name__}: {error}")
            raise TargetError(f"the target's clock could not be read: {said}") from error
        if abs(ahead) > _CLOCK_WORTH_A_LINE:
            log.info("the target's clock is %.0f s %s this host's; that is allowed for", abs(ahead), "ahead of" if ahead > 0 else "behind")
        return ahead

    def _at(self, span: Span, report: ScanReport, rule: Rule, gone: Spool) -> Iterator[Difference]:
        """One stretch. A listing that turns out not to be sorted is asked for again and sorted on disk."""
        if not self._unsorted:
            try:
                yield from self._merge(span, report, self._listed(span), rule, gone)
                return
            except OutOfOrder as error:
                log.info("%s; listings of this target are sorted on disk from now on", error)
                self._unsorted = True
        yield from self._merge(span, report, self._listed(span), rule, gone)

    def _merge(self, span: Span, report: ScanReport, listed: Iterator[Page], rule: Rule, gone: Spool) -> Iterator[Difference]:
        walk = self._walk(span)
        comparing = Merge(self._named(walk, span, report), in_order(listed), rule)
        missing = extra = 0
        with closing(Spool(self._spill)) as here:
            for difference in comparing:
                if difference.found is None:
                    missing += 1
                    if self._keys.path(difference.key) is None:
                        continue
                    extra += 1
                    if self._policy.delete:
                        report.noticed()
                        here.add((difference.key,))
                    continue
                yield difference
            report.extra += extra
            self._judge(span, walk.errors, report)
            report.equal += comparing.listed - missing
            if walk.errors:
                hides = _Hidden(walk.errors)
                for (key,) in here:
                    if str(self._keys.path(key)) not in hides:
                        gone.add((key,))
            else:
                gone.take(here)

    def _judge(self, span: Span, errors: Sequence[OSError], report: ScanReport) -> None:
        root = self._source_at(span).root
        for error in errors:
            if error.filename == root:
                raise SourceUnsure(f"source {root} cannot be read: {error.strerror}", "mount it, or correct PATH")
        for error in errors[:10]:
            log.warning("%s cannot be read: %s; nothing behind it is deleted in this look", error.filename, error.strerror)
        report.complete = report.complete and not errors

    def _walk(self, span: Span, *, in_order: bool = True) -> Walk:
        source = self._source_at(span)

        def enters(directory: str) -> bool:
            return not span.only and directory != span.without and self._keys.enters(directory)

        def accepts(directory: str, names: list[str]) -> list[str]:
            if span.only:
                names = [name for name in names if directory + name == span.only]
            return self._keys.accepted(directory, names, source)

        state = self._keys.state_beneath(source.root)
        return Walk(
            source.root, span.directory, enters, accepts, self._spill, follow=self._policy.follow, in_order=in_order, state=state
        )  # fmt: skip

    def _named(self, walk: Walk, span: Span, report: ScanReport) -> Iterator[Ours]:
        cut = len(span.directory.rstrip("/")) + 1
        # A file that waits for its marker stays as it is, so there each has to be asked for by itself.
        for found in walk if self._keys.marker_of(slashed(span.directory)) else walk.runs():
            if isinstance(found, Run):
                report.seen += len(found.names)
                before = span.prefix + found.directory[cut:]
                yield ([span.prefix] if span.only else [before + name for name in found.names]), found
                continue
            key = span.prefix if span.only else span.prefix + found.path[cut:]
            if found.skipped:
                if len(report.skipped) < MOST_SKIPPED:
                    report.skipped[found.path.rstrip("/")] = found.skipped
                if not found.keep_in_target:
                    continue
            else:
                report.seen += 1
                marker = self._keys.marker_of(found.path)
                if marker and not os.path.lexists(marker):
                    found = found._replace(keep_in_target=True)
            yield key, found

    def _listed(self, span: Span) -> Iterator[Page]:
        try:
            listing = listing_of(self._actor, span.prefix)
            pages = _beginning(span.prefix, listing.pages() if isinstance(listing, Listing) else paged(listing))
            if self._unsorted or not getattr(listing, "already_sorted", False):
                rows = disksort((row for page in pages for row in zip(*page, strict=True)), self._spill)
                pages = paged(File(*row) for row in rows)
            yield from pages
        except AutosyncError:
            raise
        except Exception as error:  # a user's actor may fail in any way
            said = without_secrets(self._actor, f"{type(error).__name__}: {error}")
            raise TargetError(f"the target could not be listed: {said}") from error

    def _refuse_empty_sources(self, path: str) -> None:
        """A share that is not mounted looks like an empty directory. It must not empty the target, not even a part of it. Asked of the
        sources that lie at or below a path as a whole; "" is all of them."""
        for source in self._keys.sources:
            spans = self._keys.spans(source.path)
            if path and not slashed(source.path).startswith(slashed(path)):
                continue
            if not source.is_file and not any(self._holds_something(span) for span in spans):
                self._refuse_if_listed(source, spans)

    def _holds_something(self, span: Span) -> bool:
        walk = self._walk(span, in_order=False)
        return any(not found.skipped for found in walk) or bool(walk.errors)  # an error is said, and acted upon, where the look meets it

    def _refuse_if_listed(self, source: Source, spans: Sequence[Span]) -> None:
        for key in (key for span in spans for page in self._listed(span) for key in page.keys):
            if self._keys.path(key) is not None:
                raise SourceUnsure(
                    f"the source {source.path} holds no file while the target holds {key!r} and maybe more, so nothing is deleted",
                    "mount the source; or, if it is meant to be empty, empty the target by hand",
                )

    def _source_at(self, span: Span) -> Source:
        return next(one for one in self._keys.sources if one.root == span.directory or one.holds(span.directory))


class _Hidden:
    """The paths that may be there although a walk did not see them. A directory that may not be entered hides what is below it; any other
    error says that the whole file system is not to be believed."""

    def __init__(self, errors: Sequence[OSError]) -> None:
        self._all = any(error.errno not in (errno.EACCES, errno.EPERM) for error in errors)
        self._tops = {str(error.filename).rstrip("/") for error in errors}

    def __contains__(self, path: str) -> bool:
        while not self._all and self._tops and path:
            if path in self._tops:
                return True
            path = path.rpartition("/")[0]
        return self._all or path in self._tops


def _beginning(prefix: str, pages: Iterable[Page]) -> Iterator[Page]:
    """What begins with a prefix. A target may list more than it was asked for."""
    for page in pages:
        if all(map(str.startswith, page.keys, repeat(prefix))):
            yield page
        else:
            wanted = [row for row in zip(*page, strict=True) if row[0].startswith(prefix)]
            yield from [Page(*map(list, zip(*wanted, strict=True)))] if wanted else []
