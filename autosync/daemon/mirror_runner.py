"""One mirror on the file host. The main thread renews the watcher's lock, sends lost keys again, and requests rescans. Events and scans
have threads of their own (`feed/events.py`, `feed/scanner.py`), and so has the watcher.
"""

from __future__ import annotations

import logging
import os
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
from ..feed.scanner import FinishedScan, Scanner
from ..feed.skipped_paths import SkippedPaths
from ..ledger import ACCEPT, SCAN, Ledger, MirrorStats, connect, owner_prefix
from ..ledger.watcher_lock import WatcherLock
from ..model.change import SCAN_ALL, Change, Kind
from ..model.definition_signature import sign
from ..model.limits import Limits
from ..model.mirror import IN_DOUBT, Identity, Mirror, version_of
from ..model.text import printable
from ..source.mounts import MountTable
from ..source.roots import MOST_MOUNTS, KnownRoots
from ..state import pending
from ..state.deletion_state import DeletionState
from ..state.root_memory import RootMemory
from ..state.state_file import StateFile, requests_file
from ..watch.debounce import Debouncer
from ..watch.flush import FlushPoints
from ..watch.hard_links import HardLinks
from ..watch.watcher import Watcher, identity_of
from .denied_keys import DeniedKeys
from .disputes import DisputeResolver, Trust
from .one_host import OneHost
from .status_line import StatusText, summary

log = logging.getLogger(__name__)

#: So many failed scans in a row end `--once`.
_ONCE_SCANS = 3
#: A dirty key that no worker has claimed is sent again at this age, in seconds: with an empty queue, and with one that is not empty.
_ORPHAN_AGE, _ORPHAN_AGE_IN_BACKLOG = 5.0, 600.0
#: How often all unclaimed keys are sent again after messages may be lost: the first time may find expired leases only.
_RESENDS_AFTER_LOSS = 2
_ORPHANS_AT_ONCE = 1000
_ORPHAN_PAGES = 20
_FAILURES_LOGGED = 20
#: The resolution of `MirrorStats.lag`, in seconds.
_LAG_UNIT = 0.001
#: A file that was saved while some of its names were not known is checked again after this time, in seconds, since most such names are
#: temporary. If they are still not known, the whole source is scanned, at most once in the interval, in seconds.
_NAMES_AGE, _NAMES_INTERVAL = 1.0, 600.0
#: The interval, in seconds, in which keys that ran out of tries are tried again while no other key is: a target that was away may be back.
_RETRY_INTERVAL = 30.0
#: How often the log names workers that do not see what this host sees, in seconds.
_UNSEEN_INTERVAL = 60.0


@dataclass(frozen=True)
class RunSettings:
    """The options of one mirror's run.

    Attributes:
        mirror: its definition.
        policy: its rules for scans.
        actor: lists the target.
        broker: URL.
        spill: directory for listings that are sorted on disk.
        once: end when source and target are equal.
        settle: the quiet time, in seconds.
        rescan: seconds between two scans of the whole source; 0: none.
        limits: of the target, for the whole fleet.
        signing_key: signs the definition; "": it is not signed.
        about: prefix of log lines, where there are several mirrors.
        accept_existing: the mirror is accepted even if its target has keys without a file.
        is_state_new: whether the state directory had nothing of a mirror.
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


class MirrorRunner:
    """Runs one mirror: publishes its definition, starts its threads, and does the work that is due once a second.

    Args:
        run: options.
        host: broker and workers as children; None on a file host.
    """

    def __init__(self, run: RunSettings, host: OneHost | None) -> None:
        self._run = run
        self._host = host
        self._mirror = replace(run.mirror, identities=_identities(run.mirror))
        self._keys = run.mirror.keys()
        self._mounts = MountTable()
        self._roots = KnownRoots(self._keys, self._mounts)
        self._ledger = Ledger(connect(run.broker), run.mirror.name)
        self._disputes = DisputeResolver(self._ledger.disputes, self._keys, run.mirror.file_rules)
        self._watcher_lock = WatcherLock(
            self._ledger.watcher_lease, run.mirror.name, run.mirror.boot, run.mirror.lock,
            has_broker_alone=host is not None and host.has_embedded_broker,
        )  # fmt: skip
        self._debouncer = Debouncer(run.settle)
        self._state_file = StateFile(run.spill, run.mirror.name)
        self._requests_file = requests_file(run.spill, run.mirror.name)
        self._deletion_state = DeletionState(self._mirror, self._ledger, self._state_file, run.signing_key)
        self._root_memory = RootMemory(self._roots, self._state_file, self._ledger, run.mirror.name, run.signing_key)
        self._comparison = Comparison(
            self._keys, run.actor, run.policy, spill=str(run.spill), about=run.about, on_unsorted=self._store_unsorted, roots=self._roots,
            accept=f"autosync-ctl --name {run.mirror.name} accept",
        )  # fmt: skip
        # No monitor can reach an embedded broker, and events cost as much as small transfers.
        watched = not (host and host.has_embedded_broker)
        sender = sending_app(run.broker, run.mirror.queue, events=watched)
        self._publisher = Publisher(sender, run.mirror.name, run.mirror.queue, self._ledger)
        self._stop = threading.Event()
        retry = BrokerRetry(self._stop)
        self._sender = BatchSender(self._ledger.key_states, self._publisher, retry, host.begin if host else lambda: None)
        self._denied_keys = DeniedKeys(self._ledger.failures, self._keys, self._debouncer.push, self._sender.mark_unknown)
        self._skipped = SkippedPaths(self._ledger.sync_state, retry, about=run.about)
        self._hard_links = HardLinks()
        self._scanner = Scanner(
            self._comparison, self._deletion_state, self._debouncer, self._sender, self._skipped, retry, self._stop, about=run.about,
            hard_links=None if run.once else self._hard_links,
        )  # fmt: skip
        self._events: EventFeed | None = None
        self._watcher: Watcher | None = None
        self._failures_logged = 0
        self._next_backlog_check = time.monotonic() + _ORPHAN_AGE_IN_BACKLOG
        self._next_retry = self._next_unseen = 0.0
        #: How many more times orphans of any age are sent again.
        self._resends_after_loss = 0
        self._changed_roots: set[str] = set()
        #: The roots and mount points that an operator has accepted, as they were shown.
        self._accepted_roots: list[pending.Pending] = []
        #: The directories that are watched as the roots.
        self._watched_roots = dict(self._mirror.identities)
        self._has_logged_mounts = False
        self._paused = False
        self._sent_counters: dict[str, int] = {}
        self._flush_points = FlushPoints(self._debouncer, self._scan_before_flush)
        #: When the last flush point was drained, on the monotonic clock.
        self._drained_at = 0.0
        self._next_names_scan = 0.0
        #: For so many directories that could not be read before everything is scanned.
        self._reopened = 0
        #: Whether a scan had decided about keys behind links at the last tick, and whether they were too many.
        self._decided_links = (False, False)
        #: Open multipart uploads, as of the last tick. They are put back into a broker that has lost its memory.
        self._uploads: dict[str, list[str]] = {}
        self._broker_generation = ""
        self._version = ""
        self._stats: MirrorStats | None = None
        self._next_rescan = time.monotonic() + run.rescan if run.rescan else float("inf")
        self._status_text = StatusText()
        self._began = time.monotonic()
        self._before: MirrorStats | None = None
        self._after: MirrorStats | None = None

    @property
    def name(self) -> str:
        """The name of the mirror."""
        return self._mirror.name

    # Start

    def begin(self, stop: threading.Event) -> bool:
        """Acquire the watcher's lock, and publish the definition. Can be repeated after a BrokerError, as long as no worker has begun.

        Args:
            stop: ends the wait for the lock.

        Returns:
            Whether the lock was acquired; False if `stop` was set first.

        Raises:
            StartError: another process watches for this mirror.
            BrokerError: the broker does not respond.
        """
        if not self._watcher_lock.acquire(stop):
            return False
        self._ledger.limits.set(self._run.limits)
        self._root_memory.load()
        self._register(replace(self._mirror, identities=self._roots.identities()))
        self._root_memory.store()
        if self._host and self._host.has_embedded_broker:
            self._ledger.release_all_of_dead("")  # their workers died together with the autosync before this one
        self._before = self._watcher_lock.heartbeat()
        return True

    def mark_unfinished(self) -> bool:
        """Mark failed keys, and keys with open uploads, of the autosync before this one. Can be repeated after a BrokerError. Returns True.

        Raises:
            BrokerError: the broker does not answer.
        """
        self._ledger.failures.forget_denied()  # their permissions may have changed since
        self._requeue_failed()
        self._requeue_unfinished()
        return True

    def _register(self, mirror: Mirror, *, keeps_scans: bool = False) -> None:
        """Publish the definition. Fields are set last: if the broker goes away in between, the next tick does all of it again.

        Args:
            mirror: the definition.
            keeps_scans: whether what running scans find still counts.
        """
        if not keeps_scans:
            self._scanner.begin_generation()
        definition = mirror.dumps()
        version = version_of(definition)
        was_accepted = self._scanner.state.accepted or self._deletion_state.is_accepted(mirror)
        accepted = was_accepted or (self._run.accept_existing and mirror.delete)
        if not accepted:  # before the definition: acceptance is for the definition in the ledger
            self._deletion_state.revoke()
        signature = sign(self._run.signing_key, mirror.name, definition)
        generation = self._ledger.definition.publish(definition, version, mirror.queue, signature)
        if not (self._host and self._host.has_embedded_broker):
            self._publisher.announce()
        in_sync = self._ledger.sync_state.last_in_sync()
        withheld = self._deletion_state.withheld() if was_accepted and not self._run.policy.is_limit_given else 0
        self._restore_unsorted(mirror)
        self._deletion_state.mirror = mirror
        self._deletion_state.pending.rewrite()
        if accepted:
            self._deletion_state.accept()
        self._mirror, self._version, self._broker_generation = mirror, version, generation
        last_in_sync_at = in_sync[1] if in_sync and in_sync[0] == _version_in_sync(mirror) else 0.0
        self._scanner.restore(accepted=accepted, last_in_sync_at=last_in_sync_at, withheld_deletions=withheld)

    def _restore_unsorted(self, mirror: Mirror) -> None:
        """Sort listings from the start if they were not in order before. If the broker may have lost that, store it again."""
        target = mirror.target_hash()
        if self._comparison.sorts_listings:
            self._ledger.sync_state.set_unsorted_target(target)
        elif self._ledger.sync_state.unsorted_target() == target:
            self._comparison.sort_listings()

    def _store_unsorted(self) -> None:
        """Store for the next start that listings are not in order. Without a broker, the next start finds that again."""
        with suppress(BrokerError):
            self._ledger.sync_state.set_unsorted_target(self._mirror.target_hash())

    def start(self, watcher: Watcher | None, ends: ExitStack) -> None:
        """Start both threads. Without a watcher, request one scan of the whole source.

        Args:
            watcher: of the sources, not started yet.
            ends: receives the calls that end the threads.
        """
        self._watcher = watcher
        if watcher:
            self._denied_keys.start(watcher)
            self._publisher.prepare()
        self._events = EventFeed(
            self._keys, self._debouncer, self._sender, self._skipped, self._stop,
            on_link=watcher.follow_link if watcher else lambda _: None, rules=self._mirror.file_rules, is_settled=self._roots.is_settled,
            hard_links=self._hard_links, is_beyond_links=self.links.is_beyond,
        )  # fmt: skip
        ends.callback(self._close_feeds, 2.0)
        self._events.start()
        self._scanner.start()
        self._accept_from_file()
        if watcher:
            log.info("keeping %s equal to %s", self._mirror.name, ", ".join(source.path for source in self._keys.sources))
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
            BrokerError: the broker does not answer.
        """
        self._ledger.release_all_of_dead(owner_prefix(socket.gethostname(), pid))
        self._resends_after_loss = _RESENDS_AFTER_LOSS  # it may have had messages whose keys it had not claimed

    def status(self) -> str:
        """The state of the mirror, in a few words for people; "" before the first tick."""
        if self._stats is None:
            return ""
        scans = self._scanner.state
        return self._status_text.line(
            self._stats,
            is_scanning=scans.is_scanning,
            withheld=scans.withheld_deletions,
            unwatched=self._watcher.unwatched if self._watcher else 0,
        )

    def tick(self) -> None:
        """Do the work that is due; called every second. If the broker is away, the next tick tries again; the sender has logged that."""
        try:
            finished_scan = self._scanner.state.finished_scan
            uploads = self._ledger.uploads.all()
            requested = time.monotonic()
            self._stats = self._heartbeat()  # needs the open uploads of the tick before
            self._uploads = uploads
            self._resend_orphans()
            self._note_in_sync(finished_scan, self._stats, requested)
            self._watch_behind_links()
            self._handle_requests(self._stats)
            self._scan_for_names()
            self._scan_reopened()
            self._watch_roots()
            self._answer_questions(self._stats)
            self._log_unseen(self._stats)
            if time.monotonic() >= self._next_rescan:
                self._requeue_failed()
                self._requeue_unfinished()
                self._next_rescan = time.monotonic() + self._run.rescan  # not before: a broker that is away must not cost the rescan
                self._rescan()
            self._log_failures()
            self._retry_failed(self._stats)
            if not self._stats.paused:
                self._denied_keys.retry(self._stats.denied)
            self._accept_from_file()
            self._accept_roots()
            self._write_pending()
        except BrokerError as error:
            log.debug("%s", error)

    def _heartbeat(self) -> MirrorStats:
        """Renew the watcher's lock. If the broker has lost its memory, publish everything again and scan the whole source.

        Returns:
            The figures of the mirror, as they were before that.
        """
        stats = self._watcher_lock.renew(self._changed_counters())
        if stats.dirty and self._host:
            self._host.begin()  # there may be messages from before, for which no new one would be sent soon
        if stats.broker_generation != self._broker_generation:
            lost = stats.broker_generation.partition(" ")[0] != self._broker_generation.partition(" ")[0]
            what = "has lost its memory" if lost else "was started again, and may have lost its last writes"
            log.warning("the broker %s: everything is scanned again", what)
            for key, token in [(key, token) for key, tokens in self._uploads.items() for token in tokens]:
                self._ledger.uploads.add(key, token)
            self._requeue_unfinished()
            self._ledger.limits.set(self._run.limits, if_lost=True)  # others may have been set since
            self._register(self._mirror)
            self._root_memory.lose_ledger()
            self._resends_after_loss = _RESENDS_AFTER_LOSS  # workers did not find the definition, or their messages are gone
            self._debouncer.push((SCAN_ALL,))
        return stats

    def _changed_counters(self) -> dict[str, int]:
        """Figures for operators that have changed since the last tick, by their names in the ledger."""
        now = {"looks": self._scanner.state.scans}
        if self._watcher:
            now |= {"watches": self._watcher.watches(), "unwatched": self._watcher.unwatched}
        changed = {name: count for name, count in now.items() if self._sent_counters.get(name) != count}
        self._sent_counters = now
        return changed

    def _handle_requests(self, stats: MirrorStats) -> None:
        """Handle the requests of operators by `autosync-ctl`."""
        if stats.paused != self._paused:
            self._paused = stats.paused
            log.warning("%s is %s", self._mirror.name, "paused: nothing is sent until it is resumed" if stats.paused else "resumed")
        for what, about in self._ledger.requests.pop_all() if stats.requests else ():
            if what == SCAN:
                log.info("a scan of %s was requested", about or "everything")
                self._debouncer.push((Change(Kind.SCAN, about),) if about else (SCAN_ALL,))
            elif what == ACCEPT:
                self._accept_pending(about)
            elif self._watcher:
                self._watcher.flush(partial(self._flush_points.add, about))
            else:
                self._flush_points.add(about)
        reached = self._flush_points.pop_reached()
        if reached:
            self._watcher_lock.renew({"unsure_names": self._hard_links.unsure(self._drained_at)})
        for name in reached:
            self._ledger.requests.confirm_flush_point(name)

    def _scan_before_flush(self) -> None:
        """All events before a flush point are processed. If a file was saved while some of its names were not known, only a scan finds
        these. More names than can be kept would cause a scan for each flush point; there, the count is reported instead."""
        self._drained_at = time.monotonic()
        if self._hard_links.unsure() and not self._hard_links.is_full:
            self._debouncer.push((SCAN_ALL,))

    def _watch_behind_links(self) -> None:
        """Place watches again when a scan has decided anew whether keys behind links are too many. Before that, the watcher may have had no
        room for all directories behind links, and could not know which of them are mirrored."""
        decided = (self.links.has_decided, self.links.cut is not None)
        if decided != self._decided_links and self._watcher and self._watcher.without_room:
            self._watcher.place_all()
        self._decided_links = decided

    def _scan_for_names(self) -> None:
        """Scan the whole source if a file was saved while some of its names were not known."""
        now = time.monotonic()
        if now >= self._next_names_scan and self._hard_links.unsure(now - _NAMES_AGE - 2 * self._debouncer.quiet):
            self._next_names_scan = now + _NAMES_INTERVAL
            log.info("%sa file was saved that has further names: everything is scanned to find them", self._run.about)
            self._debouncer.push((SCAN_ALL,))

    def _accept_pending(self, request: str) -> None:
        """Accept what an operator has seen by `autosync-ctl accept`.

        Args:
            request: that, by `Pending.dumps`.
        """
        shown = pending.parse(request)
        if shown is None:
            return
        log.warning("%san operator has accepted %s", self._run.about, shown.text())
        if shown.kind in (pending.Kind.EXISTING, pending.Kind.DELETIONS):
            self._scanner.confirm_deletions(shown.count)
        else:
            self._accepted_roots.append(shown)

    def _accept_from_file(self) -> None:
        for item in pending.pop_requests(self._requests_file):
            self._accept_pending(item.dumps())

    def _scan_reopened(self) -> None:
        """Scan the whole source once the last directory that could not be read can be. A scan of a part neither accepts the mirror nor
        finds it in sync."""
        scans = self._scanner.state
        if self._watcher is None or self._watcher.unreadable or self._watcher.reopened == self._reopened or scans.is_scanning:
            return
        if scans.last_report is None:
            return
        self._reopened = self._watcher.reopened
        if scans.last_report.error is None and not scans.last_report.complete:
            self._debouncer.push((SCAN_ALL,))

    def _resend_orphans(self) -> None:
        """Send messages for keys whose lease has expired or whose next try is due, or else for those whose message seems to be lost."""
        assert self._stats is not None
        if not self._stats.dirty:
            return
        age = self._orphan_age()
        before: list[str] = []
        for _ in range(_ORPHAN_PAGES):
            keys = self._ledger.claims.requeue_orphans(_ORPHANS_AT_ONCE, age)
            if keys == before:  # orphans are found again until a worker has claimed them
                return
            self._sender.resend(keys, Priority.EVENT if len(keys) < _ORPHANS_AT_ONCE else Priority.SCAN)
            if len(keys) < _ORPHANS_AT_ONCE:
                return
            before = keys

    def _orphan_age(self) -> float | None:
        """The age from which a key counts as an orphan, in seconds; None: only keys whose lease has expired or whose next try is due.

        While messages wait in the queue, that of the key may be among them. To send one again does no harm, but to send thousands again
        each second would, so that is done rarely.
        """
        if self._ledger.queues.count_waiting(self._mirror.queue) == 0:
            if not self._resends_after_loss:
                return _ORPHAN_AGE
            self._resends_after_loss -= 1
            return 0.0
        if time.monotonic() < self._next_backlog_check:
            return None
        self._next_backlog_check = time.monotonic() + _ORPHAN_AGE_IN_BACKLOG
        return _ORPHAN_AGE_IN_BACKLOG

    def _note_in_sync(self, finished_scan: FinishedScan | None, stats: MirrorStats, requested: float) -> None:
        """Record that source and target were equal when a scan began, if all differences that it found have been synced.

        They have been synced once no key is dirty that was dirty when the scan ended. This proves nothing if the broker has lost dirty keys
        since the scan began, or if a source has become another directory.

        Args:
            finished_scan: the last scan.
            stats: of the mirror, from after the scan.
            requested: when `stats` was requested, on the monotonic clock.
        """
        state = self._scanner.state
        if finished_scan is None or finished_scan.generation != state.scan_generation or finished_scan.began <= state.last_in_sync_at:
            return
        if stats.dirty == 0 or requested - stats.lag - _LAG_UNIT > finished_scan.ended:
            self._ledger.sync_state.set_last_in_sync(_version_in_sync(self._mirror), finished_scan.began, accepted=state.accepted)
            self._scanner.set_last_in_sync(finished_scan.began)

    def _log_failures(self) -> None:
        """Log the number of failures each time that it has grown by half. With `once`, they are listed at the end instead."""
        assert self._stats is not None
        count = self._stats.failed
        if count > self._failures_logged * 1.5 and not self._run.once:
            first = next(iter(self._ledger.failures.all()), None)
            if first is not None:
                log.error("%s%d keys are in the failed list; one is %s: %s", self._run.about, count, printable(first.key), first.reason)
            self._failures_logged = count
        self._failures_logged = min(self._failures_logged, count)

    def _watch_roots(self) -> None:
        """Detect that a root is another directory, and that something was mounted or unmounted below it: there are no events for that.

        Another root that holds something is watched and scanned, and that scan decides whether it is the source from now on
        (`compare/root_check.py`). A root that was lost and is the same again may be a share that was mounted again, or a new directory with
        the old inode number: its watches are gone, so they are placed anew.
        """
        self._roots.poll_roots()
        found = _identities(self._mirror)
        strange = {root for root in self._roots.roots if not self._roots.is_confirmed(root)}
        newly = strange - self._changed_roots
        for root in sorted(newly):
            is_there = root in found or os.path.isdir(root)
            log.warning("source %s %s", root, "is another directory than before" if is_there else "is gone; nothing is deleted")
        back, self._changed_roots = self._changed_roots - strange, strange
        self._watch_mounts()
        self._publish_roots()
        for path in self._roots.pop_unsettled():
            self._debouncer.push((Change(Kind.SCAN, path),))
        if self._watcher is None:
            return
        back |= self._watcher.lost_roots & (found.keys() - strange)
        for source in self._keys.sources:
            now = found.get(source.root)
            # Another file system may have the device and the inode number of the one before, and the watches are gone with that.
            is_changed = source.root in newly or now != self._watched_roots.get(source.root)
            is_other = now is not None and is_changed and _holds_something(source.root)
            if is_other or source.root in back:
                self._watcher.replace_root(source)
                self._watched_roots[source.root] = now or IN_DOUBT
        for path in sorted(back.intersection(self._keys.inner_paths)):
            self._replace_tree(path, is_mounted=True)

    def _watch_mounts(self) -> None:
        """Watch and scan what is at a mount point now. The scan finds out whether it is what is known there."""
        for path, mount in self._roots.pop_mount_changes():
            if self._roots.has_moved(path):
                self._debouncer.push((Change(Kind.LEFT, path),))  # a scan of the directory above may have been before the mount table
                continue
            is_waiting = (mount is None or mount.is_trigger) and self._roots.is_waiting_for_use(path)  # to walk it would mount it again
            self._replace_tree(path, is_mounted=mount is not None, is_placed=not is_waiting)
        if self._roots.has_more and not self._has_logged_mounts:
            log.error(
                "%sthere are more than %d mount points below %s: the others are not remembered, and where one is unmounted, its keys "
                "count as gone",
                self._run.about, MOST_MOUNTS, ", ".join(self._roots.roots),
            )  # fmt: skip
            self._has_logged_mounts = True

    def _replace_tree(self, path: str, *, is_mounted: bool, is_placed: bool = True) -> None:
        source = next((source for source in self._keys.sources if source.holds(path) or source.root == path), None)
        if self._watcher is not None and source is not None:
            self._watcher.replace_tree(source, path, is_mounted=is_mounted, is_placed=is_placed)
        elif is_placed:
            self._debouncer.push((Change(Kind.SCAN, path),))

    def _publish_roots(self) -> None:
        """Publish and store what is known of the roots and mount points, if that has changed."""
        identities = self._roots.identities()
        before = self._mirror.identities
        if identities != before:
            # What a scan found before still counts if all that has changed is that the scan believed the directory.
            keeps = all(before.get(path, IN_DOUBT) in (IN_DOUBT, one) for path, one in identities.items())
            self._register(replace(self._mirror, identities=identities), keeps_scans=keeps and before.keys() <= identities.keys())
        self._root_memory.store()

    def _pending_roots(self) -> list[pending.Pending]:
        """The roots and mount points that are not what is known of them, and below which keys are kept for that."""
        return [
            pending.Pending(pending.Kind(self._roots.kind(path)), path, doubt.keys or 0, (doubt.text,))
            for path, doubt in self._roots.pending().items()
        ]  # fmt: skip

    def _write_pending(self) -> None:
        self._deletion_state.pending.replace((pending.Kind.ROOT, pending.Kind.MOUNT), self._pending_roots())
        self._deletion_state.pending.write()

    def _accept_roots(self) -> None:
        """Accept the roots and mount points that an operator has accepted, and scan them. A request from before the start waits for the
        first scan, which finds out what is in doubt."""
        waiting = self._pending_roots()
        for shown in self._accepted_roots:
            if not any(item.is_covered_by(shown) for item in waiting) or not self._roots.accept(shown.path):
                continue
            if shown.kind == pending.Kind.ROOT:
                self._scanner.confirm_deletions(shown.count)
            else:
                self._debouncer.push((Change(Kind.LEFT, shown.path),))  # without the limit: these keys were shown
                if self._run.once:
                    self._debouncer.push((SCAN_ALL,))  # the scan that is running may have kept them, and its result would be the last
        if waiting or self._scanner.state.last_report is not None:
            self._accepted_roots.clear()

    def _answer_questions(self, stats: MirrorStats) -> None:
        """Check the files that workers of upload boxes do not see as this host saw them."""
        if not stats.questions:
            return
        scans = self._scanner.state
        trust = Trust(
            self._mirror.identities,
            self._changed_roots,
            has_scanned=scans.last_report is not None and scans.last_report.error is None,
            may_delete=scans.accepted and not scans.withheld_deletions,
        )
        changed = self._disputes.answer(trust)
        if changed:
            self._sender.resend(changed, Priority.EVENT)

    def _log_unseen(self, stats: MirrorStats) -> None:
        """Log which workers have not seen for long what this host sees: their keys wait, with `once` too."""
        if not stats.disputed or time.monotonic() < self._next_unseen:
            return
        self._next_unseen = time.monotonic() + _UNSEEN_INTERVAL
        for worker, what in sorted(self._ledger.disputes.unseen.read().items()):
            log.warning("%sworker %s %s; %d keys wait for such files", self._run.about, worker, what, stats.disputed)

    def _rescan(self) -> None:
        """Scan the whole source, and place watches that could not be placed before."""
        if self._watcher:
            self._watcher.place_all()
        else:
            self._debouncer.push((SCAN_ALL,))

    def _retry_failed(self, stats: MirrorStats) -> None:
        """Requeue keys that ran out of tries: the next rescan may be never. Keys that were refused for good wait for a rescan; for those
        whose files may not be read see `DeniedKeys`."""
        tried = stats.claimed - stats.disputed  # disputed keys may wait for long
        if self._run.once or not stats.failed or tried > 0 or time.monotonic() < self._next_retry:
            return
        self._next_retry = time.monotonic() + _RETRY_INTERVAL
        self._requeue_failed(self._mirror.attempts)

    def _requeue_failed(self, min_attempts: int = 0) -> None:
        """Mark the keys of the failed list.

        Args:
            min_attempts: only those that have failed so many times, and no denied ones; 0: all.
        """
        page: list[str] = []
        for failure in self._ledger.failures.all():
            if failure.attempts < min_attempts or (min_attempts and failure.next_try is not None):
                continue
            page.append(failure.key)
            if len(page) == 100:
                self._sender.mark_unknown(page)
                page = []
        if page:
            self._sender.mark_unknown(page)

    def _requeue_unfinished(self) -> None:
        """Mark all keys with an open multipart upload: the worker that claims a key aborts what others have left open. Most of these
        uploads are still running, and marking their keys does no harm."""
        keys = list(self._ledger.uploads.all())
        if keys:
            self._sender.mark_unknown(keys)

    def is_through(self) -> bool:
        """With `once`: whether the scan has ended and no key is dirty.

        Raises:
            AutosyncError: the scan has failed, and would fail again.
        """
        scans = self._scanner.state
        report = scans.last_report
        if report is None:
            return False
        if report.error is not None:
            if isinstance(report.error, SourceUnsure) or scans.failed_scans >= _ONCE_SCANS:
                raise report.error
            return False
        return self._debouncer.is_drained() and self._is_clean()

    def _is_clean(self) -> bool:
        """Whether nothing is dirty, and the broker has lost nothing; if it has, the whole source is scanned again."""
        generation = self._scanner.state.scan_generation
        with suppress(BrokerError):
            return self._heartbeat().dirty == 0 and self._scanner.state.scan_generation == generation
        return False

    def is_empty(self) -> bool:
        """Whether the broker responds, and no key is dirty."""
        try:
            return self._ledger.key_states.count_dirty() == 0
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
        """Send pending keys, and end both threads.

        Args:
            patience: how long to wait for a broker that does not respond, in seconds.
            finished: whether `once` has reached its end.
        """
        self._close_feeds(patience)
        with suppress(BrokerError):
            self._roots.refresh_names()
            self._publish_roots()
            self._write_pending()
        if finished:
            requested = time.monotonic()
            with suppress(BrokerError):
                self._note_in_sync(self._scanner.state.finished_scan, self._watcher_lock.heartbeat(), requested)

    def _close_feeds(self, patience: float) -> None:
        """End both threads, that of events first: it sends pending keys, and may wait for the broker meanwhile."""
        if self._events:
            self._events.close(patience)
            self._scanner.close(patience)

    def read_final_stats(self) -> bool:
        """Read the figures for the summary. Returns whether no key is dirty."""
        self._after = self._stats
        with suppress(BrokerError):
            self._after = self._watcher_lock.heartbeat()
        return self._after is not None and self._after.dirty == 0

    def end(self, *, finished: bool) -> Exit:
        """Log the summary. Returns the exit code of this mirror.

        Args:
            finished: whether `once` has reached its end.
        """
        before, after = self._before, self._after
        if before is not None and after is not None:
            seconds = time.monotonic() - self._began
            log.info("%s%s", self._run.about, summary(before, after, seconds, skipped=self._skipped.listed()))
        if after is not None and after.failed:
            self._log_failed_keys(after.failed)
            return Exit.INCOMPLETE
        scans = self._scanner.state
        if scans.withheld_deletions and not scans.accepted and self._run.once and self._run.is_state_new:
            log.warning("%sstate directory %s was empty: if it lies on a volume, that may be missing", self._run.about, self._run.spill)
        report = scans.last_report
        is_partial = finished and report is not None and (report.beyond_links > 0 or not report.complete)
        return Exit.INCOMPLETE if scans.withheld_deletions or self._roots.pending() or is_partial else Exit.DONE

    def _log_failed_keys(self, count: int) -> None:
        with suppress(BrokerError):
            for number, failure in enumerate(self._ledger.failures.all()):
                if number == _FAILURES_LOGGED:
                    break
                log.error("%sfailed: %s: %s", self._run.about, printable(failure.key), failure.reason)
        if count > _FAILURES_LOGGED:
            log.error("and %d more failed", count - _FAILURES_LOGGED)


def _identities(mirror: Mirror) -> dict[str, Identity]:
    found = {}
    for source in mirror.sources:
        with suppress(OSError):
            found[source.root] = identity_of(source.root)
    return found


def _version_in_sync(mirror: Mirror) -> str:
    """Identifies the definition with which a scan found both sides in sync. A service or a container may have another mount namespace after
    each start, and the same files."""
    return version_of(replace(mirror, host=mirror.boot).dumps())


def _holds_something(directory: str) -> bool:
    with suppress(OSError), os.scandir(directory) as entries:
        return next(entries, None) is not None
    return False
