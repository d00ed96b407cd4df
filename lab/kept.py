"""A watched tree with everything up to the queue: real kernel, real ledger; the workers are left out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from autosync.actor import Actor
from autosync.compare.scan import Comparison
from autosync.feed.feed import Feed
from autosync.files import Listing
from autosync.ledger import Action, Hint, Ledger, Marked, Result, connect
from autosync.model.change import Change, Kind
from autosync.model.keys import TEMPORARY, Keys, Source
from autosync.watch.debounce import Debouncer
from autosync.watch.watcher import Watcher

from .servers import wait_until


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


class Kept:
    """A watched tree with everything up to the queue."""

    def __init__(self, tree: Path, broker: str, quiet: float, patience: float, until_idle: bool, **options: object) -> None:
        self.keys = Keys([Source(str(tree))], source_prefix=f"{tree}/", temporary=TEMPORARY, **options)  # type: ignore[arg-type]
        self.ledger = Ledger(connect(broker), "m")
        self.ledger.definition.publish("{}", "v")
        self.sent = Sent(self.ledger, self.state)
        #: Directories that were looked at.
        self.looked: list[str] = []
        self.settle = Debouncer(quiet, patience=patience)
        self.feed = Feed("m", self.keys, Comparison(self.keys, Empty()), self.ledger, self.sent, self.settle)  # type: ignore[arg-type]
        self.watcher = Watcher(self.keys, self._hear)
        self.feed.on_link = self.watcher.look_into
        self.feed.start()
        self.watcher.start()
        wait_until(lambda: self.feed.last_look is not None and (self.feed.is_idle() or not until_idle), what="the first look has ended")

    def _hear(self, changes: Iterable[Change]) -> None:
        changes = list(changes)
        self.looked += [path for kind, path in changes if kind is Kind.LEFT]
        self.settle.say(changes)

    def state(self, key: str) -> object:
        """A checksum of the file that stands under a name; None if none does."""
        path = Path(str(self.keys.path(key)))
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        except OSError:
            return None

    def looked_for(self, keys: set[str]) -> set[str]:
        """Those of the keys that are gone, below a directory of which the kernel told that it left."""
        gone = {key: str(self.keys.path(key)) for key in keys if self.state(key) is None}
        return {key for key, path in gone.items() if any(path.startswith(f"{top}/") for top in self.looked)}

    def wait_for(self, key: str, times: int = 1) -> None:
        wait_until(lambda: self.sent.keys[key] >= times, 20, f"{key} is sent: {self.sent.keys}")

    def close(self) -> None:
        self.watcher.close()
        self.feed.close()
