"""One mirror on the file host. The main thread renews the watcher's lock, and calls the parts of the mirror once a second. Events and scans
have threads of their own (`feed/events.py`, `feed/scanner.py`), and so has the watcher.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..actor import Actor
from ..celery import sending_app
from ..compare.followed_links import FollowedLinks
from ..compare.scan import Comparison, Policy
from ..errors import BrokerError, Exit, SourceUnsure
from ..feed.batches import BatchSender
from ..feed.broker_retry import BrokerRetry
from ..feed.events import EventFeed
from ..feed.publisher import Priority, Publisher
from ..feed.scanner import Scanner
from ..feed.skipped_paths import SkippedPaths
from ..ledger import Ledger, MirrorStats, address, connect, owner_prefix, registered_mirrors
from ..ledger.watcher_lock import WatcherLock
from ..model.change import SCAN_ALL, Change
from ..model.limits import Limits
from ..model.mirror import Mirror
from ..source.deferred_scans import DeferredScans
from ..source.mounts import MountTable
from ..source.roots import RootRegister
from ..state.deletion_state import DeletionState
from ..state.pending import AcceptedItems
from ..state.root_memory import RootMemory
from ..state.run_record import RunRecord
from ..state.state_file import StateFile, requests_file
from ..watch.debounce import Debouncer
from ..watch.hard_link_scans import HardLinkScans
from ..watch.hard_links import HardLinks
from ..watch.watcher import Watcher
from .disputes import DisputeResolver, Trust, UnseenLog
from .failed_scans import FailedScanRecorder
from .heartbeat import Heartbeat
from .in_sync import InSyncRecorder
from .one_host import OneHost
from .overlaps import Overlaps
from .registration import Registration
from .request_handler import RequestHandler
from .rescans import Rescans
from .resend_orphans import OrphanResender
from .retry_denied import DeniedRetry
from .retry_failed import FailedRetry
from .root_acceptance import RootAcceptance
from .root_watch import RootWatch, root_identities
from .run_summary import RunSummary
from .status_line import StatusText
from .unsorted_target import UnsortedTarget

log = logging.getLogger(__name__)

#: Number of failed scans of one part in a row that ends `--once`.
_ONCE_SCANS = 3


@dataclass(frozen=True)
class RunSettings:
    """The options of one mirror's run.

    Attributes:
        mirror: the mirror's definition.
        policy: its rules for scans.
        actor: lists the target.
        broker: URL.
        spill: directory for listings that are sorted on disk.
        once: end when source and target are equal.
        settle: the quiet time, in seconds.
        rescan: seconds between two scans of the whole source; 0: none.
        limits: the limits of the target, for the whole fleet.
        signing_key: signs the definition; "": it is not signed.
        about: prefix of log lines, where there are several mirrors.
        accept_existing: the mirror is accepted even if its target has keys without a file.
        is_state_new: whether the state directory had nothing of a mirror.
        companions: the other mirrors of the same watcher.
    """

    mirror: Mirror
    policy: Policy
    actor: Actor
    broker: str
    spill: Path
    once: bool
    settle: float
    rescan: float
    limits: Limits = field(default_factory=Limits)
    signing_key: str = field(default="", repr=False)
    about: str = ""
    accept_existing: bool = False
    is_state_new: bool = False
    companions: tuple[Mirror, ...] = ()


class MirrorRunner:
    """Runs one mirror: makes its parts, starts its threads, and has the parts do the work that is due once a second.

    Args:
        run: options.
        host: broker and workers as children; None on a file host.
    """

    def __init__(self, run: RunSettings, host: OneHost | None) -> None:
        self._run = run
        self._host = host
        mirror = replace(run.mirror, identities=root_identities(run.mirror))
        self._has_own_broker = host is not None and host.has_embedded_broker
        self._keys = mirror.keys()
        self._mounts = MountTable()
        self._roots = RootRegister(self._keys, self._mounts)
        self._deferred_scans = DeferredScans(self._roots)
        client = connect(run.broker)
        self._ledger = Ledger(client, mirror.name)
        self._disputes = DisputeResolver(self._ledger.disputes, self._keys, mirror.file_rules, is_certain=self._deferred_scans.is_certain)
        self._unseen_log = UnseenLog(self._ledger.disputes.unseen, about=run.about)
        self._watcher_lock = WatcherLock(
            self._ledger.watcher_lock, mirror.name, mirror.boot, mirror.watcher_lease,
            has_broker_alone=self._has_own_broker,
        )  # fmt: skip
        self._debouncer = Debouncer(run.settle)
        push = self._debouncer.push
        state_file = StateFile(run.spill, mirror.name)
        self._deletion_state = DeletionState(mirror, self._ledger, state_file, run.signing_key)
        self._root_memory = RootMemory(self._roots, state_file, self._ledger, mirror.name, run.signing_key)
        unsorted = UnsortedTarget(self._ledger.sync_state, mirror.target_hash())
        self._stop = threading.Event()
        retry = BrokerRetry(self._stop)
        # What an embedded broker knows of mirrors is in the state files too.
        registered = tuple if self._has_own_broker else partial(registered_mirrors, client)
        self._overlaps = Overlaps(run.mirror, run.spill.parent, registered, run.companions, about=run.about, file=state_file)
        self._comparison = Comparison(
            self._keys, run.actor, run.policy, spill=str(run.spill), about=run.about, on_unsorted=unsorted.store, roots=self._roots,
            accept=f"autosync-ctl --name {mirror.name} accept",
            shared_keys=lambda: self._overlaps.shared_keys,
        )  # fmt: skip
        # No monitor and no upload box can reach an embedded broker, and events cost as much as small transfers.
        sender = sending_app(run.broker, mirror.queue, events=not self._has_own_broker)
        self._publisher = Publisher(sender, mirror.name, mirror.queue, self._ledger)
        begin_workers = host.begin if host else lambda: None
        self._sender = BatchSender(self._ledger.key_states, self._publisher, retry, begin_workers)
        self._denied_retry = DeniedRetry(self._ledger.failures, self._keys, push, self._sender.mark_unknown)
        self._orphans = OrphanResender(self._ledger, self._sender, mirror.queue)
        self._failed_retry = FailedRetry(self._ledger, self._sender, mirror.attempts, once=run.once)
        self._skipped = SkippedPaths(self._ledger.sync_state, retry, about=run.about)
        self._hard_links = HardLinks()
        self._hard_link_scans = HardLinkScans(self._hard_links, self._debouncer, about=run.about)
        self._scanner = Scanner(
            self._comparison, self._deletion_state, self._debouncer, self._sender, self._skipped, retry, self._stop, about=run.about,
            hard_links=None if run.once else self._hard_links,
            prepare=lambda: run.policy.delete and retry.retry_until_success(
                partial(self._overlaps.refresh_stored, self._deletion_state.revoke)
            ),
        )  # fmt: skip
        self._run_record = RunRecord(state_file, self._ledger.definition, "" if self._has_own_broker else address(run.broker))
        self._registration = Registration(
            mirror, self._ledger, self._deletion_state, self._comparison, self._scanner, unsorted, self._run_record,
            self._publisher.announce if not self._has_own_broker else lambda: None,
            signing_key=run.signing_key, accept_existing=run.accept_existing, has_own_limit=run.policy.has_own_limit,
        )  # fmt: skip
        self._root_watch = RootWatch(
            self._keys, self._roots, self._deferred_scans, self._root_memory, self._registration, self._debouncer,
            once=run.once, about=run.about,
        )  # fmt: skip
        self._heartbeat = Heartbeat(
            self._watcher_lock, self._ledger, run.limits, self._registration, self._root_memory, self._orphans, self._scanner, push,
            begin_workers,
        )  # fmt: skip
        self._in_sync = InSyncRecorder(self._ledger, self._registration, self._scanner)
        self._failed_scans = FailedScanRecorder(self._ledger.sync_state, self._registration, self._scanner)
        #: The first scan generation that compares the keys which were left as they are below roots or mounts in doubt; -1: there are none.
        self._left_in_generation = -1
        self._accepted_items = AcceptedItems(state_file)
        self._root_acceptance = RootAcceptance(
            self._roots, self._scanner, self._debouncer, self._deletion_state.pending, self._accepted_items, about=run.about
        )
        self._request_handler = RequestHandler(
            mirror.name, self._ledger.requests, requests_file(run.spill, mirror.name), self._watcher_lock, self._debouncer,
            self._hard_link_scans, self._scanner.accept_deletions, self._root_acceptance.add, self._accepted_items, about=run.about,
        )  # fmt: skip
        self._rescans = Rescans(run.rescan, self._scanner, self.links, push)
        self._summary = RunSummary(
            self._ledger.failures, self._skipped, once=run.once, new_state=run.spill if run.is_state_new else None, about=run.about
        )
        self._status_text = StatusText()
        self._events: EventFeed | None = None
        self._watcher: Watcher | None = None
        self._stats: MirrorStats | None = None

    @property
    def name(self) -> str:
        """The name of the mirror."""
        return self._run.mirror.name

    # Start

    def begin(self, stop: threading.Event) -> bool:
        """Acquire the watcher's lock, and publish the definition. Can be repeated after a BrokerError, as long as no worker has begun.

        Args:
            stop: ends the wait for the lock.

        Returns:
            Whether the lock was acquired; False if `stop` was set first.

        Raises:
            StartError: another process watches for this mirror, or it overlaps with another mirror.
            BrokerError: the broker does not respond.
        """
        if not self._watcher_lock.acquire(stop):
            return False
        if not self._has_own_broker:  # the command has checked it before it started the broker
            self._overlaps.check()
        self._ledger.limits.set(self._run.limits)
        self._root_watch.begin()
        if self._has_own_broker:
            self._ledger.release_all_of_dead("")  # their workers died together with the autosync before this one
        self._summary.begin(self._watcher_lock.heartbeat())
        return True

    def mark_unfinished(self) -> bool:
        """Mark failed keys, and keys with open uploads, of the autosync before this one. Can be repeated after a BrokerError. Returns True.

        Raises:
            BrokerError: the broker does not respond.
        """
        self._ledger.failures.forget_denied()  # their permissions may have changed since
        self._failed_retry.requeue()
        self._orphans.requeue_unfinished()
        return True

    def start(self, watcher: Watcher | None, ends: ExitStack) -> None:
        """Start both threads. Without a watcher, request one scan of the whole source.

        Args:
            watcher: watches the sources; it is not started yet.
            ends: receives the calls that end the threads.
        """
        self._watcher = watcher
        self._heartbeat.start(watcher)
        self._root_watch.start(watcher)
        self._rescans.start(watcher)
        self._request_handler.start(watcher)
        if watcher:
            self._denied_retry.start(watcher)
            self._publisher.prepare()
        self._events = EventFeed(
            self._keys, self._debouncer, self._sender, self._skipped, self._stop,
            on_link=watcher.follow_link if watcher else lambda _: None, rules=self._run.mirror.file_rules,
            is_certain=self._deferred_scans.is_certain, hard_links=self._hard_links, is_beyond_links=self.links.is_beyond,
        )  # fmt: skip
        ends.callback(self._close_feeds, 2.0)
        self._request_handler.handle_unfinished()
        self._events.start()
        self._scanner.start()
        self._request_handler.handle_file()
        if watcher:
            log.info("mirroring %s from %s", self.name, ", ".join(source.path for source in self._keys.sources))
        else:
            self.push_changes((SCAN_ALL,))

    @property
    def links(self) -> FollowedLinks:
        """What scans have decided about keys behind links."""
        return self._comparison.links

    def push_changes(self, changes: Iterable[Change]) -> None:
        """Pass changes in the sources on to the debouncer. From any thread."""
        self._debouncer.push(changes)

    # The main loop

    @property
    def broken(self) -> Exception | None:
        """The exception that ended one of the threads; None as long as both run, or ended as they should."""
        return (self._events and self._events.error) or self._scanner.error

    def release_claims_of_dead(self, pid: int) -> None:
        """End the claims of a dead worker at once, before its leases expire.

        Args:
            pid: process id of the worker, on this host.

        Raises:
            BrokerError: the broker does not respond.
        """
        self._ledger.release_all_of_dead(owner_prefix(socket.gethostname(), pid))
        self._orphans.note_loss()  # it may have had messages whose keys it had not claimed

    def status(self) -> str:
        """The state of the mirror, in a few words for people; "" before the first tick."""
        if self._stats is None:
            return ""
        scans = self._scanner.state
        return self._status_text.line(
            self._stats,
            is_scanning=scans.is_scanning,
            withheld=scans.withheld_deletions,
            unwatched=self._unwatched,
            in_doubt=sum(not doubt.accepted for doubt in self._roots.remembered.doubts().values()),
            has_failed=scans.failed_scan is not None,
        )

    @property
    def _unwatched(self) -> int:
        """Number of directories without a watch."""
        return self._watcher.unwatched if self._watcher else 0

    def tick(self) -> None:
        """Do the work that is due; called every second. If the broker is away, the next tick tries again; the sender has logged that."""
        try:
            finished_scan = self._scanner.state.finished_scan
            requested = time.monotonic()
            self._stats = stats = self._heartbeat.tick()
            self._orphans.resend(stats)
            self._in_sync.record(finished_scan, stats, requested)
            self._run_record.renew()
            self._rescans.place_behind_links()
            self._request_handler.handle(stats)
            self._hard_link_scans.request_if_due()
            self._rescans.request_if_reopened()
            self._root_watch.poll()
            self._resolve_disputes(stats)
            self._unseen_log.log(stats.disputed)
            if self._rescans.is_due:
                self._failed_retry.requeue()
                self._orphans.requeue_unfinished()
                self._rescans.request()  # not before: a broker that is away must not cost the rescan
            self._summary.log_failures(stats.failed)
            self._failed_retry.retry(stats)
            if not stats.paused:
                self._denied_retry.retry(stats.denied)
            self._root_acceptance.forget_carried_out()
            self._request_handler.handle_file()
            self._root_acceptance.accept()
            self._root_acceptance.write_pending()
            self._failed_scans.record()
        except BrokerError as error:
            log.debug("%s", error)

    def _resolve_disputes(self, stats: MirrorStats) -> None:
        """Check the files that workers of upload boxes do not see as this host saw them."""
        if not stats.unresolved:
            return
        scans = self._scanner.state
        trust = Trust(
            self._registration.mirror.identities,
            self._root_watch.roots_in_doubt,
            has_scanned=scans.last_report is not None and scans.last_report.error is None,
            may_delete=scans.accepted and not scans.withheld_deletions,
            waits_for_doubts=not self._run.once,
        )
        kept_before = self._disputes.kept_in_doubt
        changed = self._disputes.resolve(trust)
        kept = self._disputes.kept_in_doubt - kept_before
        if kept:
            self._scanner.begin_generation()  # that nothing is dirty proves nothing now
            self._left_in_generation = self._scanner.state.scan_generation
            log.warning(
                "%s%d keys below roots or mounts that are not the directories that they were are left as they are, for a later scan",
                self._run.about, kept,
            )  # fmt: skip
        if changed:
            self._sender.resend(changed, Priority.EVENT)

    def is_through(self) -> bool:
        """With `once`: whether the scan, and those of parts that it has requested, have ended and no key is dirty.

        Raises:
            AutosyncError: a scan has failed, and would fail again.
        """
        scans = self._scanner.state
        for failed in scans.failures.values():
            if isinstance(failed.error, SourceUnsure) or failed.times >= _ONCE_SCANS:
                raise failed.error
        if scans.last_report is None or scans.last_report.error is not None:
            return False
        return not self._root_acceptance.has_requests and self._debouncer.is_drained() and self._is_clean()

    def _is_clean(self) -> bool:
        """Whether nothing is dirty, and the broker has lost nothing; if it has, the whole source is scanned again."""
        generation = self._scanner.state.scan_generation
        with suppress(BrokerError):
            return self._heartbeat.renew().dirty == 0 and self._scanner.state.scan_generation == generation
        return False

    def is_drained(self) -> bool:
        """Whether the broker responds, and workers have nothing to do. Without ticks, nobody sends messages for other dirty keys."""
        try:
            return not self._ledger.key_states.are_in_work()
        except BrokerError:
            return False

    # End

    def leave(self) -> None:
        """Release the watcher's lock, and close the connections."""
        try:
            self._watcher_lock.release()
        finally:
            self._publisher.close()
            self._ledger.close()
            self._mounts.close()

    def close(self, patience: float, *, finished: bool) -> None:
        """Send unsent keys, and end both threads.

        Args:
            patience: how long to wait for a broker that does not respond, in seconds.
            finished: whether `once` has reached its end.
        """
        self._close_feeds(patience)
        with suppress(BrokerError):
            self._roots.refresh_names()
            self._root_watch.publish()
            self._root_acceptance.write_pending()
            self._failed_scans.record()
            self._root_acceptance.forget_carried_out()
        self._run_record.close()
        if finished:
            requested = time.monotonic()
            with suppress(BrokerError):
                self._in_sync.record(self._scanner.state.finished_scan, self._watcher_lock.heartbeat(), requested)

    def _close_feeds(self, patience: float) -> None:
        """End both threads, that of events first: it sends unsent keys, and may wait for the broker meanwhile."""
        if self._events:
            self._events.close(patience)
            self._scanner.close(patience)

    def read_final_stats(self) -> bool:
        """Read the figures for the summary. Returns whether no key is dirty."""
        after, unseen = self._stats, False
        with suppress(BrokerError):
            after = self._watcher_lock.heartbeat()
            unseen = after.disputed > 0 and bool(self._ledger.disputes.unseen.read())
        self._summary.finish(after, has_unseen=unseen)
        return after is not None and after.dirty == 0

    def end(self, *, finished: bool) -> Exit:
        """Log the summary. Returns the exit code of this mirror.

        Args:
            finished: whether `once` has reached its end.
        """
        finished_scan = self._scanner.state.finished_scan
        has_left = self._left_in_generation > (finished_scan.generation if finished_scan is not None else -1)
        has_doubts = self._roots.remembered.has_doubts or has_left
        return self._summary.log(self._scanner.state, has_doubts=has_doubts, unwatched=self._unwatched, finished=finished)
