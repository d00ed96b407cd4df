"""Keeping one mirror: the main thread holds the watcher's place, sends again what was lost, and looks at the clock. Events and scans have
threads of their own (`feed/events.py`, `feed/scanner.py`), and so has the watcher.
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
from ..compare.scan import Comparison, Policy
from ..errors import BrokerError, Exit, SourceUnsure
from ..feed.batches import BatchSender
from ..feed.broker_retry import BrokerRetry
from ..feed.events import EventFeed
from ..feed.publisher import Priority, Publisher
from ..feed.scanner import FinishedScan, Scanner
from ..feed.skipped_paths import SkippedPaths
from ..ledger import SCAN, Ledger, MirrorStats, connect, owner_prefix
from ..ledger.watcher_lock import WatcherLock
from ..model.change import LOOK_EVERYWHERE, Change, Kind
from ..model.definition_signature import sign
from ..model.limits import Limits
from ..model.mirror import Identity, Mirror, version_of
from ..model.text import shown
from ..watch.debounce import Debouncer
from ..watch.flush import FlushPoints
from ..watch.watcher import Watcher, identity_of
from .one_host import OneHost
from .status_line import Stands, summary

log = logging.getLogger(__name__)

#: Looks that fail so often in a row end `--once`.
_ONCE_LOOKS = 3
#: A key is sent again if its message should have arrived this long ago: with an empty queue, and with one that is being worked off.
_STRAY, _STRAY_BEHIND_OTHERS = 5.0, 600.0
#: So many sweeps send all keys again that nobody has claimed, once messages may be lost: the first may find leases that have ended only.
_SWEEPS_AFTER_LOSS = 2
_SWEPT_AT_ONCE = 1000
_SWEEPS = 20
_FAILURES_SHOWN = 20
#: In what unit a lag is told, in seconds.
_LAG_UNIT = 0.001
#: How often keys that ran out of tries get new ones, once nothing else is tried, in seconds: a target that was away is back some day.
_NEW_TRIES = 30.0


@dataclass(frozen=True)
class RunSettings:
    """How a mirror is kept: `settle` and `rescan` in seconds (0: no rescans); `signing_key`: what its definition is signed with; `about`:
    put in front of what is said to people, where there are several; `accept_existing`: the mirror is accepted, whatever its target has."""

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


class MirrorRunner:
    """One mirror.

    Args:
        run: what and how.
        host: broker and workers as children; None on a file host.
    """

    def __init__(self, run: RunSettings, host: OneHost | None) -> None:
        self._run = run
        self._host = host
        self._mirror = replace(run.mirror, identities=_identities(run.mirror))
        self._keys = run.mirror.keys()
        self._ledger = Ledger(connect(run.broker), run.mirror.name)
        self._watcher_lock = WatcherLock(self._ledger.watcher_lease, run.mirror.name, run.mirror.host, run.mirror.lock)
        self._settle = Debouncer(run.settle)
        comparison = Comparison(self._keys, run.actor, run.policy, spill=str(run.spill), about=run.about)
        watched = not (host and host.is_alone)  # nobody looks into an embedded broker, and events cost as much as small transfers do
        sender = sending_app(run.broker, run.mirror.queue, events=watched)
        self._publisher = Publisher(sender, run.mirror.name, run.mirror.queue, self._ledger)
        self._stop = threading.Event()
        retry = BrokerRetry(self._stop)
        self._sender = BatchSender(self._ledger.key_states, self._publisher, retry, host.begin if host else lambda: None)
        self._skipped = SkippedPaths(self._ledger.sync_state, retry)
        self._scanner = Scanner(
            comparison, self._ledger.sync_state, self._settle, self._sender, self._skipped, retry, self._stop, about=run.about
        )
        self._events: EventFeed | None = None
        self._watcher: Watcher | None = None
        self._failed_told = 0
        self._next_strays = time.monotonic() + _STRAY_BEHIND_OTHERS
        self._next_new_tries = 0.0
        #: How many sweeps from now on send keys again without a wait for their messages.
        self._sweeps_after_loss = 0
        self._strange: set[str] = set()
        self._paused = False
        self._told: dict[str, int] = {}
        self._barriers = FlushPoints(self._settle)
        #: The uploads in parts that are open, as of the last tick: a broker that loses its memory is told of them again.
        self._uploads: dict[str, list[str]] = {}
        self._broker_generation = ""
        self._version = ""
        self._standing: MirrorStats | None = None
        self._next_rescan = time.monotonic() + run.rescan if run.rescan else float("inf")
        self._stands = Stands()
        self._began = time.monotonic()
        self._before: MirrorStats | None = None
        self._after: MirrorStats | None = None

    @property
    def name(self) -> str:
        """Of the mirror."""
        return self._mirror.name

    # Start

    def begin(self, stop: threading.Event) -> bool:
        """Take the mirror's place, and publish its definition. Can be repeated after a BrokerError, as long as no worker has begun.

        Args:
            stop: ends the waiting for the place.

        Returns:
            Whether the place was taken; False if `stop` was set first.

        Raises:
            StartError: another process keeps this mirror.
            BrokerError: the broker does not answer.
        """
        if not self._watcher_lock.acquire(stop):
            return False
        self._ledger.limits.set(self._run.limits)
        self._register(self._mirror)
        if self._host and self._host.is_alone:
            self._ledger.release_all_of_dead("")  # whoever held these died together with the autosync before this one
        self._before = self._watcher_lock.heartbeat()
        return True

    def mark_unfinished(self) -> bool:
        """Mark what the autosync before this one left failed or unfinished. Can be repeated after a BrokerError. Returns True.

        Raises:
            BrokerError: the broker does not answer.
        """
        self._again_failed()
        self._again_unfinished()
        return True

    def _register(self, mirror: Mirror) -> None:
        """Publish the definition. All or nothing: where the broker goes away in between, the next tick finds what is to be done undone."""
        self._scanner.begin_generation()
        definition = mirror.dumps()
        version = version_of(definition)
        accepted = self._is_accepted(mirror)
        if not accepted:  # before the definition, which says of what the mirror was accepted
            self._ledger.sync_state.set_accepted(False)
        signature = sign(self._run.signing_key, mirror.name, definition)
        generation = self._ledger.definition.publish(definition, version, mirror.queue, signature)
        if not (self._host and self._host.is_alone):
            self._publisher.announce()
        cleared = self._ledger.sync_state.last_in_sync()
        holding = self._ledger.sync_state.withheld_deletions()
        if accepted:
            self._ledger.sync_state.set_accepted(True)
        self._mirror, self._version, self._broker_generation = mirror, version, generation
        last_in_sync_at = cleared[1] if cleared and cleared[0] == version else 0.0
        self._scanner.restore(accepted=accepted, last_in_sync_at=last_in_sync_at, withheld_deletions=holding)

    def _is_accepted(self, mirror: Mirror) -> bool:
        """Whether comparisons of a definition may delete: it was accepted with this target, and with all that is in its scope. A broker
        that lost its memory takes no acceptance back, and gives none."""
        if self._scanner.state.accepted or (self._run.accept_existing and mirror.delete):
            return True
        before = self._ledger.definition.read()
        try:
            return before is not None and self._ledger.sync_state.accepted() and mirror.is_within_scope_of(Mirror.loads(before.definition))
        except (ValueError, TypeError, KeyError):  # another version wrote it
            return False

    def start(self, watcher: Watcher | None, ends: ExitStack) -> None:
        """Begin to feed what `say` is told; without a watcher, what one look finds.

        Args:
            watcher: of the sources, not started yet.
            ends: is given what is to be done in the end.
        """
        self._watcher = watcher
        if watcher:
            self._publisher.prepare()
        self._events = EventFeed(
            self._keys, self._settle, self._sender, self._skipped, self._stop,
            on_link=watcher.look_into if watcher else lambda _: None, follow=self._mirror.follow_links,
        )  # fmt: skip
        ends.callback(self._close_feeds, 2.0)
        self._events.start()
        self._scanner.start()
        if watcher:
            log.info("keeping %s equal to %s", self._mirror.name, ", ".join(source.path for source in self._keys.sources))
        else:
            self.say((LOOK_EVERYWHERE,))

    def say(self, changes: Iterable[Change]) -> None:
        """What has changed in the sources; see `Debouncer.say`."""
        self._settle.say(changes)

    # The main loop

    @property
    def broken(self) -> Exception | None:
        """What ended a thread that should not have ended."""
        return (self._events and self._events.error) or self._scanner.error

    def forfeit(self, pid: int) -> None:
        """A worker of this host has died: whoever sees that need not wait for its leases to run out.

        Raises:
            BrokerError: the broker does not answer.
        """
        self._ledger.release_all_of_dead(owner_prefix(socket.gethostname(), pid))
        self._sweeps_after_loss = _SWEEPS_AFTER_LOSS  # it may have had messages whose keys it had not claimed

    def stands(self) -> str:
        """How it stands, in a few words."""
        if self._standing is None:
            return ""
        scans = self._scanner.state
        return self._stands.line(
            self._standing,
            looking=scans.is_scanning,
            held=scans.withheld_deletions,
            unwatched=self._watcher.unwatched if self._watcher else 0,
        )

    def tick(self) -> None:
        """What is done every second. A broker that is away is waited for; the feed has said so."""
        try:
            finished_scan = self._scanner.state.finished_scan
            uploads = self._ledger.uploads.all()
            asked = time.monotonic()
            self._standing = self._guard()  # if the broker has lost its memory, this goes by what was known before
            self._uploads = uploads
            self._sweep()
            self._note_in_sync(finished_scan, self._standing, asked)
            self._hear(self._standing)
            self._watch_roots()
            if time.monotonic() >= self._next_rescan:
                self._again_failed()
                self._again_unfinished()
                self._next_rescan = time.monotonic() + self._run.rescan  # not before: a broker that is away must not cost the rescan
                self._look_everywhere()
            self._tell_of_failures()
            self._give_new_tries(self._standing)
        except BrokerError as error:
            log.debug("%s", error)

    def _guard(self) -> MirrorStats:
        standing = self._watcher_lock.renew(self._news())
        if standing.dirty and self._host:
            self._host.begin()  # there may be messages from before, which nobody sends again so soon
        if standing.broker_generation != self._broker_generation:
            lost = standing.broker_generation.partition(" ")[0] != self._broker_generation.partition(" ")[0]
            what = "has lost its memory" if lost else "was started again, and may have lost the last of what it was told"
            log.warning("the broker %s: everything is compared again", what)
            for key, token in [(key, token) for key, tokens in self._uploads.items() for token in tokens]:
                self._ledger.uploads.add(key, token)
            self._again_unfinished()
            self._ledger.limits.set(self._run.limits, if_lost=True)  # others may have been set since
            self._register(self._mirror)
            self._sweeps_after_loss = _SWEEPS_AFTER_LOSS  # workers did not find the definition, or their messages are gone
            self._settle.say((LOOK_EVERYWHERE,))
        return standing

    def _news(self) -> dict[str, int]:
        """What operators are told in numbers, where it has changed since the last tick."""
        now = {"looks": self._scanner.state.scans}
        if self._watcher:
            now |= {"watches": self._watcher.watches(), "unwatched": self._watcher.unwatched}
        news = {name: count for name, count in now.items() if self._told.get(name) != count}
        self._told = now
        return news

    def _hear(self, standing: MirrorStats) -> None:
        """What an operator asks for; see `autosync-ctl`."""
        if standing.paused != self._paused:
            self._paused = standing.paused
            log.warning("%s is %s", self._mirror.name, "paused: nothing is sent until it is resumed" if standing.paused else "resumed")
        for what, about in self._ledger.requests.pop_all() if standing.requests else ():
            if what == SCAN:
                log.info("a look at %s was asked for", about or "everything")
                self._settle.say((Change(Kind.LOOK, about),) if about else (LOOK_EVERYWHERE,))
            elif self._watcher:
                self._watcher.catch_up(partial(self._barriers.begin, about))
            else:
                self._barriers.begin(about)
        for name in self._barriers.reached():
            self._ledger.requests.confirm_flush_point(name)

    def _sweep(self) -> None:
        assert self._standing is not None
        if not self._standing.dirty:
            return
        age = self._stray_age()
        before: list[str] = []
        for _ in range(_SWEEPS):
            keys = self._ledger.claims.requeue_orphans(_SWEPT_AT_ONCE, age)
            if keys == before:  # strays are found as long as nobody has claimed them
                return
            self._sender.resend(keys, Priority.EVENT if len(keys) < _SWEPT_AT_ONCE else Priority.LOOK)
            if len(keys) < _SWEPT_AT_ONCE:
                return
            before = keys

    def _stray_age(self) -> float | None:
        """For how long a key must have waited to be taken for one whose message is lost. With messages in the queue its own may be among
        them, so that is asked rarely; sending it again does no harm, but sending thousands again each second would."""
        if self._ledger.queues.count_waiting(self._mirror.queue) == 0:
            if not self._sweeps_after_loss:
                return _STRAY
            self._sweeps_after_loss -= 1
            return 0.0
        if time.monotonic() < self._next_strays:
            return None
        self._next_strays = time.monotonic() + _STRAY_BEHIND_OTHERS
        return _STRAY_BEHIND_OTHERS

    def _note_in_sync(self, finished_scan: FinishedScan | None, stats: MirrorStats, asked: float) -> None:
        """Record that source and target were equal when a scan began, if all differences that it found have been dealt with.

        They have been once no key is dirty that was dirty when the scan ended. That proves nothing if the broker has lost dirty keys since
        the scan began, or if a source has become another directory.

        Args:
            finished_scan: the last one.
            stats: of the mirror, from after the scan.
            asked: when `stats` was requested, on the monotonic clock.
        """
        state = self._scanner.state
        if finished_scan is None or finished_scan.generation != state.scan_generation or finished_scan.began <= state.last_in_sync_at:
            return
        if stats.dirty == 0 or asked - stats.lag - _LAG_UNIT > finished_scan.ended:
            self._ledger.sync_state.set_last_in_sync(self._version, finished_scan.began, accepted=state.accepted)
            self._scanner.set_last_in_sync(finished_scan.began)

    def _tell_of_failures(self) -> None:
        """Failures are told as a whole, each time that there are half as many again; the end of `once` lists them."""
        assert self._standing is not None
        count = self._standing.failed
        if count > self._failed_told * 1.5 and not self._run.once:
            first = next(iter(self._ledger.failures.all()), None)
            if first is not None:
                log.error("%s%d keys are in the failed list; one is %s: %s", self._run.about, count, shown(first.key), first.reason)
            self._failed_told = count
        self._failed_told = min(self._failed_told, count)

    def _watch_roots(self) -> None:
        """Another directory where a root was gives no event; it is seen here. One that holds something is the source from now on. One that
        is empty may be the place where a share was mounted: workers go on asking for the old one, and delete nothing. One that looks like
        the old one may be a share that was mounted again, or a new directory that was given the old number: no watch is left in it."""
        known = self._mirror.identities
        found = _identities(self._mirror)
        strange = {root for root in {*known, *found} if known.get(root) != found.get(root)}
        for root in sorted(strange - self._strange):
            log.warning("source %s %s", root, "is another directory than before" if root in found else "is gone; nothing is deleted")
        self._strange = strange
        adopted = {root for root in strange if root in found and _holds_something(root)}
        if adopted:
            self._register(replace(self._mirror, identities={**known, **{root: found[root] for root in adopted}}))
        if self._watcher is None:
            return
        back = self._watcher.lost_roots & (found.keys() - strange)
        for source in self._keys.sources:
            if source.root in adopted | back:
                self._watcher.replace_root(source)

    def _look_everywhere(self) -> None:
        """The rescan; it also watches what could not be watched before."""
        if self._watcher:
            self._watcher.place_again()
        else:
            self._settle.say((LOOK_EVERYWHERE,))

    def _give_new_tries(self, standing: MirrorStats) -> None:
        """What failed because it ran out of tries is not left to the next rescan, which may be never; what was refused for good is."""
        if self._run.once or not standing.failed or standing.held or time.monotonic() < self._next_new_tries:
            return
        self._next_new_tries = time.monotonic() + _NEW_TRIES
        self._again_failed(self._mirror.attempts)

    def _again_failed(self, tries: int = 0) -> None:
        page: list[str] = []
        for failure in self._ledger.failures.all():
            if failure.attempts < tries:
                continue
            page.append(failure.key)
            if len(page) == 100:
                self._sender.mark_unknown(page)
                page = []
        if page:
            self._sender.mark_unknown(page)

    def _again_unfinished(self) -> None:
        """Whoever claims a key ends what others had begun to send of it; most are in good hands, and take no harm from one more look."""
        keys = list(self._ledger.uploads.all())
        if keys:
            self._sender.mark_unknown(keys)

    def is_through(self) -> bool:
        """For `once`: the look has ended and nothing is left to do.

        Raises:
            AutosyncError: the look failed, and would again.
        """
        scans = self._scanner.state
        report = scans.last_report
        if report is None:
            return False
        if report.error is not None:
            if isinstance(report.error, SourceUnsure) or scans.failed_scans >= _ONCE_LOOKS:
                raise report.error
            return False
        return self._settle.is_through() and self._is_clean()

    def _is_clean(self) -> bool:
        """Whether nothing is dirty, and nothing was lost that may have been: then everything is compared again."""
        generation = self._scanner.state.scan_generation
        with suppress(BrokerError):
            return self._guard().dirty == 0 and self._scanner.state.scan_generation == generation
        return False

    def is_empty(self) -> bool:
        """Whether nothing is dirty, as far as the broker says."""
        try:
            return self._ledger.key_states.count_dirty() == 0
        except BrokerError:
            return False

    # End

    def leave(self) -> None:
        """Give the mirror's place up, and close the connections."""
        self._watcher_lock.release()
        self._publisher.close()

    def close(self, patience: float, *, finished: bool) -> None:
        """Send what was seen.

        Args:
            patience: how long to wait for a broker that does not answer, in seconds.
            finished: `once` is through.
        """
        self._close_feeds(patience)
        if finished:
            asked = time.monotonic()
            with suppress(BrokerError):
                self._note_in_sync(self._scanner.state.finished_scan, self._watcher_lock.heartbeat(), asked)

    def _close_feeds(self, patience: float) -> None:
        """End both threads. The thread of events is first: it sends what is pending, and may wait for the broker meanwhile."""
        if self._events:
            self._events.close(patience)
            self._scanner.close(patience)

    def look_back(self) -> bool:
        """See how it stands in the end. Returns whether nothing is left to do."""
        self._after = self._standing
        with suppress(BrokerError):
            self._after = self._watcher_lock.heartbeat()
        return self._after is not None and self._after.dirty == 0

    def end(self, *, finished: bool) -> Exit:
        """Say what was done. Returns what it means for the exit code."""
        before, after = self._before, self._after
        if before is not None and after is not None:
            log.info("%s%s", self._run.about, summary(before, after, time.monotonic() - self._began, skipped=len(self._skipped)))
        if after is not None and after.failed:
            self._tell_failures(after.failed)
            return Exit.INCOMPLETE
        report = self._scanner.state.last_report
        return Exit.INCOMPLETE if finished and report is not None and (report.held or not report.complete) else Exit.DONE

    def _tell_failures(self, count: int) -> None:
        with suppress(BrokerError):
            for number, failure in enumerate(self._ledger.failures.all()):
                if number == _FAILURES_SHOWN:
                    break
                log.error("%sfailed: %s: %s", self._run.about, shown(failure.key), failure.reason)
        if count > _FAILURES_SHOWN:
            log.error("and %d more failed", count - _FAILURES_SHOWN)


def _identities(mirror: Mirror) -> dict[str, Identity]:
    found = {}
    for source in mirror.sources:
        with suppress(OSError):
            found[source.root] = identity_of(source.root)
    return found


def _holds_something(directory: str) -> bool:
    with suppress(OSError), os.scandir(directory) as entries:
        return next(entries, None) is not None
    return False
