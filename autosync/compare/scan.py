"""A scan walks a part of the source, lists the same part of the target, and yields the differences that are in scope.

Deletions come last, when the walk and the listing have ended. Keys are not deleted if they may be in a part of the source that could not be
read, or if their source is empty as a whole; `deletions.py` decides about the others.
"""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial

from ..actor import Actor
from ..errors import AutosyncError, OutOfOrder, SourceUnsure
from ..files import Page
from ..model.file_rules import FileRules
from ..model.keys import Keys, Span
from ..model.paths import slashed
from ..model.skipped import MOST_SKIPPED, SkippedList
from ..model.withheld import Withheld
from ..source.entry import Run
from ..source.external_sort import Spool
from ..source.link_limit import LinkLimit
from ..source.roots import RootRegister
from ..source.walk import Walk
from .delete_limit import DeleteLimit
from .deletions import ComparedPart, Deletions, Permission
from .diff import Compare, Difference, KeyedFiles, Merge, Rule, in_order
from .empty_sources import EmptySources
from .followed_links import FollowedLinks
from .root_check import RootCheck
from .source_walks import SourceWalks
from .target_listing import TargetListing
from .unreadable_paths import UnreadablePaths

log = logging.getLogger(__name__)


@dataclass
class ScanReport:
    """What a scan found. All counts are numbers of keys.

    Attributes:
        uploads: number of keys to be uploaded.
        checks: number of keys to be compared by content before an upload, since only the times differ.
        deletes: number of keys to be deleted.
        withheld: deletions that are not made: they are more than the limit allows, or the mirror is not accepted.
        extra: keys in scope that the target has and the source lacks, whether they are deleted or not.
        source_files: files of the source.
        equal: keys of the target that stay.
        skipped: paths that are not mirrored, with the reasons; at most `MOST_SKIPPED`.
        unlisted_skipped: number of further paths that are not mirrored.
        busy_since: the earliest change of a file that does not rest yet, in seconds since the epoch.
        beyond_links: number of files and directories behind links that are beyond the limit and not sent; see `LinkLimit`.
        needs_whole_scan: whether only a scan of the whole source can decide what is sent behind links.
        complete: whether the whole part of the source could be read. If not, nothing is deleted behind what could not be read.
        shared: keys that the source lacks and the target keeps, since another mirror could have made them.
        kept_in_doubt: keys that the source lacks and the target keeps, since a root or a mount point above them is in doubt.
        error: why the scan failed; None if it did not.
        on_extra: called for each key that may be deleted. Whether it is deleted is decided at the end of the scan.
        on_hard_link: called with the path and the inode (`entry.inode_of`) of each name of a file with several names; None: not needed.
    """

    uploads: int = 0
    checks: int = 0
    deletes: int = 0
    withheld: Withheld = field(default_factory=Withheld)
    extra: int = 0
    source_files: int = 0
    equal: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    unlisted_skipped: int = 0
    busy_since: float = math.inf
    complete: bool = True
    shared: int = 0
    kept_in_doubt: int = 0
    error: AutosyncError | None = None
    beyond_links: int = 0
    needs_whole_scan: bool = False
    on_extra: Callable[[], None] = lambda: None
    on_hard_link: Callable[[str, int], None] | None = None

    def skipped_list(self) -> SkippedList:
        """The paths that are not mirrored."""
        return SkippedList(self.skipped, self.unlisted_skipped)


@dataclass(frozen=True)
class Policy:
    """The options of a mirror for its scans.

    Attributes:
        delete: whether keys that the source does not have are differences.
        limit: how many of them one scan may delete.
        by: what is compared.
        rules: which files are sent.
    """

    delete: bool = True
    limit: DeleteLimit = field(default_factory=DeleteLimit)
    by: Compare = Compare.TIME
    rules: FileRules = field(default_factory=FileRules)

    @property
    def has_own_limit(self) -> bool:
        """Whether a user has given the limit. If so, deletions that an earlier run has withheld are allowed up to the limit."""
        return not self.limit.is_default


class Comparison:
    """Compares a source with its target.

    Args:
        keys: naming rule and scope of the mirror.
        actor: lists the target.
        policy: options of the mirror.
        spill: directory for what is sorted on disk; None: the system's temporary directory.
        exact: whether every listing is sorted on disk. If not, listings are sorted after the first one that is not in order. Until then,
            equal keys may be yielded as different, which is harmless for syncing but wrong in reports.
        about: prefix of log lines about deletions, where there are several mirrors.
        on_unsorted: called after the first listing that is not in order.
        roots: the remembered roots and mount points; None: they are not checked.
        accept: the command that accepts withheld deletions, for log lines.
        on_withheld: called with each key whose deletion is withheld.
        shared_keys: called at the start of each scan: the keys that other mirrors could have made. The target keeps those.
    """

    def __init__(
        self,
        keys: Keys,
        actor: Actor,
        policy: Policy | None = None,
        *,
        spill: str | None = None,
        exact: bool = False,
        about: str = "",
        on_unsorted: Callable[[], None] = lambda: None,
        roots: RootRegister | None = None,
        accept: str = "autosync-ctl accept",
        on_withheld: Callable[[str], None] | None = None,
        shared_keys: Callable[[], Container[str]] = tuple,
    ) -> None:
        self._roots = roots
        self._read_shared_keys = shared_keys
        #: The keys that other mirrors could have made, as the running scan has them.
        self._shared_keys: Container[str] = ()
        #: The check of the running scan.
        self._check: RootCheck | None = None
        self._about = about
        self._keys = keys
        self._actor = actor
        self._policy = policy or Policy()
        self._spill = spill
        self._unsorted = exact
        self._on_unsorted = on_unsorted
        self._walks = SourceWalks(keys, spill)
        self._listing = TargetListing(actor, spill)
        self._empty_sources = EmptySources(keys, self._walks, self._policy.rules, self._pages)
        self._deletions = Deletions(keys, self._policy.limit, spill, about=about, accept=accept, on_withheld=on_withheld)
        #: The limit of keys behind links.
        self.links = FollowedLinks(keys, self._policy.rules.max_links, partial(self._walks.counts_without_links, self._policy.rules))
        #: The limit of the running scan.
        self._link_limit: LinkLimit | None = None

    @property
    def sorts_listings(self) -> bool:
        """Whether every listing is sorted on disk. From any thread."""
        return self._unsorted

    def sort_listings(self) -> None:
        """Sort every listing on disk from now on."""
        self._unsorted = True

    def close(self) -> None:
        """Remove what is stored on disk."""
        self._deletions.close()

    def differences(
        self,
        path: str,
        report: ScanReport,
        last_in_sync: float = 0.0,
        *,
        has_left: bool = False,
        permission: Permission | None = None,
    ) -> Iterator[Difference]:
        """The differences at or below a path: first the files to send, then the keys to delete.

        Args:
            path: a directory's absolute path; "" is the whole source.
            report: receives what the scan finds.
            last_in_sync: see `autosync.compare.diff.Rule`.
            has_left: whether the kernel has reported that this directory is gone. Then the policy does not limit the deletions.
            permission: what may be deleted; None: all that the policy's limit allows.

        Raises:
            TargetError: the target could not be listed.
            SourceUnsure: a source root cannot be read, or a source holds no file while the target does.
            OSError: what is sorted or stored on disk cannot be written.
        """
        if self._roots is not None:
            self._roots.poll_mounts()
            if path and self._roots.automounts.is_expired(path):
                return  # it exists; a walk would mount it again
        spans, empty = self._keys.spans(path), list[str]()
        if self._policy.delete:
            self._shared_keys = self._read_shared_keys()
            empty = self._empty_sources.find(path, self._shared_keys, can_doubt=self._roots is not None)
        may = permission or Permission()
        self._deletions.begin_scan()
        self._check = None
        if self._roots is not None:
            self._check = RootCheck(self._roots, self._keys, path, accepted=may.accepted, empty=empty, about=self._about)
        self._link_limit = self.links.limit(whole=not path) if self._policy.rules.follow_links else None
        rule = Rule(self._policy.by, last_in_sync, self._listing.clock_ahead(), self._actor.can_match)
        with closing(Spool(self._spill)) as missing:
            for span in spans:
                yield from self._scan_span(span, report, rule, missing, is_part=bool(path))
            self._finish_links(path, report)
            self._keep_in_doubt(missing, report)
            part = ComparedPart(path, has_left, report.equal + len(missing), report.complete)
            count = len(missing)
            keys, report.deletes, report.withheld = self._deletions.allowed(missing, part, may)
            report.extra -= count - report.deletes - report.withheld.count  # files that were created while they were walked
            if report.shared and not path:
                log.info("%s%d keys that the source lacks are kept: other mirrors could have made them", self._about, report.shared)
            for key in keys:
                yield Difference(key, None, listed=True)

    def _finish_links(self, path: str, report: ScanReport) -> None:
        """Report what is beyond the limit of keys behind links. A scan of the whole source sets the limit for later scans of parts."""
        limit = self._link_limit
        if limit is None:
            return
        report.beyond_links = limit.refused
        if path:
            report.needs_whole_scan = report.needs_whole_scan or limit.is_exceeded
            return
        self.links.finish(limit)
        if limit.refused:
            log.error(
                "%slinks to directories lead to too many keys: %s keys behind links are mirrored, beside %s files. %s further paths behind "
                "links are skipped, with all that is below them; the target keeps what it has there. To send them, start again with a "
                "larger --max-links; to leave links out, with --links=skip",
                self._about, f"{limit.behind.files:,}", f"{limit.found.files:,}", f"{limit.refused:,}",
            )  # fmt: skip

    def _is_undecided(self, difference: Difference) -> bool:
        """Whether a scan of a part must not send a key, since too many keys may be behind links."""
        found = difference.found
        return found is not None and found.behind_link and not difference.listed and not self.links.admit()

    def _keep_in_doubt(self, missing: Spool, report: ScanReport) -> None:
        """Remove the keys from `missing` that are below a root or a mount point in doubt."""
        if self._check is None:
            return
        in_doubt = self._check.paths_in_doubt(str(self._keys.path(key)) for (key,) in missing)
        report.needs_whole_scan = report.needs_whole_scan or self._check.needs_scan
        if not in_doubt:
            return
        kept: Counter[str] = Counter()
        with ExitStack() as spools:
            rest = spools.enter_context(closing(Spool(self._spill)))
            below: dict[str, Spool] = {}
            for (key,) in missing:
                path = in_doubt.top_of(str(self._keys.path(key)))
                if path is None:
                    rest.add((key,))
                    continue
                kept[path] += 1
                top = self._check.top_of(path)
                if top not in below:
                    below[top] = spools.enter_context(closing(Spool(self._spill)))
                below[top].add((key,))
            missing.replace(rest)
            for top, rows in below.items():
                self._check.note_kept(top, len(rows), self._deletions.keep(rows))
        self._check.log_kept(kept)
        report.kept_in_doubt += kept.total()
        report.complete = report.complete and not kept

    def _scan_span(self, span: Span, report: ScanReport, rule: Rule, missing: Spool, *, is_part: bool) -> Iterator[Difference]:
        """Compare one span. If a listing is not in order, it is requested again and sorted on disk."""
        if not self._unsorted:
            unlisted = report.unlisted_skipped
            counted = self._check.counted() if self._check else None
            try:
                yield from self._merge(span, report, self._pages(span), rule, missing, is_part=is_part)
                return
            except OutOfOrder as error:
                log.info("%s; listings of this target are sorted on disk from now on", error)
                self._unsorted = True
                self._on_unsorted()
                report.unlisted_skipped = unlisted  # the same walk begins again
                if self._check is not None and counted is not None:
                    self._check.count_again(counted)
        yield from self._merge(span, report, self._pages(span), rule, missing, is_part=is_part)

    def _merge(
        self, span: Span, report: ScanReport, pages: Iterator[Page], rule: Rule, missing: Spool, *, is_part: bool
    ) -> Iterator[Difference]:
        """Merge the files of a span with the pages of its listing. Yields the files to send, and adds the keys to delete to `missing`."""
        check = self._check
        if self._link_limit is not None:
            self._link_limit.begin_walk(span.directory)
        walk = self._walks.walk(span, self._policy.rules, check=check, link_limit=self._link_limit)
        listed = in_order(pages) if check is None else check.count_pages(span, in_order(pages))
        merge = Merge(self._with_keys(walk, span, report), listed, rule)
        not_in_source = extra = 0
        with closing(Spool(self._spill)) as missing_here:
            for difference in merge:
                if difference.found is None:
                    not_in_source += 1
                    in_scope = self._keys.path(difference.key) is not None
                    if in_scope and difference.key in self._shared_keys:
                        report.shared += 1
                        in_scope = False
                    if check is not None:
                        check.count_absent(span, difference.key, in_scope=in_scope)
                    if not in_scope:
                        continue
                    extra += 1
                    if self._policy.delete:
                        report.on_extra()
                        missing_here.add((difference.key,))
                    continue
                if is_part and self._is_undecided(difference):
                    report.needs_whole_scan = True
                    continue
                yield difference
            report.extra += extra
            self._report_errors(span, walk.errors, report)
            report.equal += merge.listed - not_in_source
            if walk.errors:
                unreadable = UnreadablePaths(walk.errors)
                for (key,) in missing_here:
                    if str(self._keys.path(key)) not in unreadable:
                        missing.add((key,))
            else:
                missing.move_from(missing_here)

    def _report_errors(self, span: Span, errors: Sequence[OSError], report: ScanReport) -> None:
        root = self._walks.source_at(span).root
        for error in errors:
            if error.filename == root:
                raise SourceUnsure(f"source {root} cannot be read: {error.strerror}", "mount it, or correct PATH")
        for error in errors[:10]:
            log.warning("%s cannot be read: %s; nothing behind it is deleted in this scan", error.filename, error.strerror)
        report.complete = report.complete and not errors

    def _with_keys(self, walk: Walk, span: Span, report: ScanReport) -> Iterator[KeyedFiles]:
        """The files of a walk with their keys."""
        cut = len(span.directory.rstrip("/")) + 1
        # The target keeps what it has for a file that waits for its done-marker. So with markers, each file is checked on its own.
        for found in walk if self._keys.marker_of(slashed(span.directory)) else walk.runs():
            if isinstance(found, Run):
                report.source_files += len(found.names)
                if report.on_hard_link is not None:
                    for path, inode in found.with_several_names():
                        report.on_hard_link(path, inode)
                before = span.prefix + found.directory[cut:]
                yield ([span.prefix] if span.only else [before + name for name in found.names]), found
                continue
            key = span.prefix if span.only else span.prefix + found.path[cut:]
            if report.on_hard_link is not None and found.links > 1:
                report.on_hard_link(found.path, found.inode)
            if found.skipped:
                path = found.path.rstrip("/")
                if len(report.skipped) < MOST_SKIPPED or path in report.skipped:
                    report.skipped[path] = found.skipped
                else:
                    report.unlisted_skipped += 1
                if not found.keep_in_target:
                    continue
            else:
                report.source_files += 1
                marker = self._keys.marker_of(found.path)
                if marker and not os.path.lexists(marker):
                    found = found._replace(keep_in_target=True)
            yield key, found

    def _pages(self, span: Span) -> Iterator[Page]:
        return self._listing.pages(span.prefix, without=self._keys.target_exclude, is_sorted_here=self._unsorted)
