"""A watched tree with everything up to the queue: real kernel, real ledger; the workers are left out."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from autosync.actor import Actor
from autosync.compare.scan import Comparison
from autosync.feed.batches import BatchSender
from autosync.feed.broker_retry import BrokerRetry
from autosync.feed.events import EventFeed
from autosync.feed.scanner import Scanner
from autosync.feed.skipped_paths import SkippedPaths
from autosync.files import Listing
from autosync.ledger import Action, Hint, Ledger, Marked, Result, connect
from autosync.model.change import Change, Kind
from autosync.model.keys import TEMPORARY, Keys, Source
from autosync.watch.debounce import Debouncer
from autosync.watch.hard_links import HardLinks
from autosync.watch.watcher import Watcher

from .servers import wait_until
from .state import deletion_state


class Empty(Actor):
    """A target that holds nothing."""

    def list(self, prefix: str = "") -> Listing:
        return Listing((), already_sorted=True)


class Sent:
    """Stands in the place of the queue: counts the messages in which each key came, and has it done at once, as a fast worker would."""

    def __init__(self, ledger: Ledger, state: Callable[[str], object]) -> None:
        self._ledger = ledger
        self._state = state
        self.keys: Counter[str] = Counter()
        #: In which state each file stood when it was sent last.
        self.states: dict[str, object] = {}

    def mark(self, found: Sequence[tuple[str, Hint]], **_: object) -> Marked:
        marked = self._ledger.claims.mark(found)
        self.send(marked.fresh)
        return marked

    def send(self, keys: Sequence[str], **_: object) -> None:
        self.keys.update(keys)
        self.states.update((key, self._state(key)) for key in keys)
        claims = self._ledger.claims.claim("w", "v", keys) or []
        while claims:
            claims, _lost = self._ledger.claims.done("w", [Result(claim, Action.UPLOADED) for claim in claims])


class Feeds:
    """Both threads that fill the ledger of the mirror `m`.

    Args:
        keys: naming rule and scope.
        target: is compared with the source.
        ledger: of the mirror.
        sent: stands in the place of the publisher.
        debouncer: where changes come from.
        on_link: called with each link among the changes.
    """

    def __init__(
        self,
        keys: Keys,
        target: Actor,
        ledger: Ledger,
        sent: Sent,
        debouncer: Debouncer,
        on_link: Callable[[str], None] = lambda _: None,
    ) -> None:
        stop = threading.Event()
        retry = BrokerRetry(stop)
        sender = BatchSender(ledger.key_states, sent, retry)  # type: ignore[arg-type]
        skipped = SkippedPaths(ledger.sync_state, retry)
        self.hard_links = HardLinks()
        self.scanner = Scanner(
            Comparison(keys, target), deletion_state(ledger), debouncer, sender, skipped, retry, stop, hard_links=self.hard_links
        )
        self.events = EventFeed(keys, debouncer, sender, skipped, stop, on_link=on_link, hard_links=self.hard_links)

    def start(self) -> None:
        self.events.start()
        self.scanner.start()

    def close(self) -> None:
        self.events.close()
        self.scanner.close()


class WatchPipeline:
    """A watched tree with everything up to the queue."""

    def __init__(self, tree: Path, broker: str, quiet: float, max_wait: float, until_idle: bool, **options: object) -> None:
        self.keys = Keys([Source(str(tree))], source_prefix=f"{tree}/", temporary=TEMPORARY, **options)  # type: ignore[arg-type]
        self.ledger = Ledger(connect(broker), "m")
        self.ledger.definition.publish("{}", "v")
        self.sent = Sent(self.ledger, self.state)
        #: Directories that have left.
        self.left: list[str] = []
        self.debouncer = Debouncer(quiet, max_wait=max_wait)
        self.watcher = Watcher(self.keys, self._push)
        self._feeds = Feeds(self.keys, Empty(), self.ledger, self.sent, self.debouncer, self.watcher.follow_link)
        self._feeds.start()
        self.watcher.start()
        wait_until(lambda: self._has_scanned() and (self.is_idle() or not until_idle), what="the first scan has ended")

    def is_idle(self) -> bool:
        """Whether nothing is pending, no scan is running, and everything that was found is marked and sent."""
        return self.debouncer.is_drained()

    @property
    def hard_links(self) -> HardLinks:
        """The names of files with more than one."""
        return self._feeds.hard_links

    def scans(self) -> int:
        """Number of scans that were begun."""
        return self._feeds.scanner.state.scans

    def _has_scanned(self) -> bool:
        return self._feeds.scanner.state.last_report is not None

    def _push(self, changes: Iterable[Change]) -> None:
        changes = list(changes)
        self.left += [path for kind, path in changes if kind is Kind.LEFT]
        self.debouncer.push(changes)

    def state(self, key: str) -> object:
        """A checksum of the file of this name; None if there is none."""
        path = Path(str(self.keys.path(key)))
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        except OSError:
            return None

    def below_left(self, keys: set[str]) -> set[str]:
        """Those of the keys that are gone and that were below a directory that has left."""
        gone = {key: str(self.keys.path(key)) for key in keys if self.state(key) is None}
        return {key for key, path in gone.items() if any(path.startswith(f"{top}/") for top in self.left)}

    def wait_for(self, key: str, times: int = 1) -> None:
        wait_until(lambda: self.sent.keys[key] >= times, 20, f"{key} is sent: {self.sent.keys}")

    def close(self) -> None:
        self.watcher.close()
        self._feeds.close()
