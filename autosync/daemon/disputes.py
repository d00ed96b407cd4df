"""Resolves disputed keys on the file host: workers of upload boxes do not see their files as it saw them (`ledger/disputes.py`)."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from ..errors import AutosyncError, SourceReplaced
from ..ledger import GONE, DisputedKey, Hint
from ..ledger.disputes import Disputes, Resolution
from ..ledger.worker_notes import WorkerNotes
from ..model.file_rules import FileRules
from ..model.keys import Keys, Source
from ..model.mirror import Identity
from ..model.text import printable
from ..source.entry import Entry, entry_at
from ..tasks.sources import MirrorSource, mounts_below
from ..watch.recheck import entry_behind_links

log = logging.getLogger(__name__)

#: The most disputed keys that are read at once, and how long they may take, in seconds: the watcher's lock has to be renewed meanwhile.
_MAX_KEYS, _MAX_SECONDS = 1000, 0.5
#: How often the log names workers that do not see what this host sees, in seconds.
_UNSEEN_INTERVAL = 60.0


class Trust(NamedTuple):
    """What the file host's own view of its files is worth now.

    Attributes:
        identities: the identity of each source root's directory, by path of the root.
        roots_in_doubt: the roots that are another directory now, or gone. Keys of their files stay unresolved as long as
            `waits_for_doubts` is set.
        has_scanned: whether a scan of the whole source has succeeded. Before that, no file counts as gone.
        may_delete: whether scans may delete. If not, what is gone is left to the scans, which count it as withheld.
        waits_for_doubts: whether keys below a root or a mount point in doubt wait until the doubt ends. If not, as with `once`, the target
            is left as it is there.
    """

    identities: Mapping[str, Identity]
    roots_in_doubt: Collection[str]
    has_scanned: bool
    may_delete: bool
    waits_for_doubts: bool = True


class DisputeResolver:
    """Checks the files of disputed keys on the file host.

    Args:
        disputes: the disputed keys of the mirror.
        keys: naming rule and scope of the mirror.
        rules: which files are sent.
        is_certain: whether a path at which nothing was found can count as gone, see `DeferredScans.is_certain`.
        clock: monotonic time, in seconds.

    Attributes:
        kept_in_doubt: number of keys for which the target was left as it is, since a root or a mount point above them is in doubt.
    """

    def __init__(
        self, disputes: Disputes, keys: Keys, rules: FileRules, *,
        is_certain: Callable[[str], bool] = lambda _: True, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._disputes = disputes
        self._keys = keys
        self._rules = rules
        self._is_certain = is_certain
        self._clock = clock
        self.kept_in_doubt = 0

    def resolve(self, trust: Trust) -> list[str]:
        """Resolve the oldest disputes, with one lstat(2) each.

        Returns:
            The keys for which the caller has to send a message.

        Raises:
            BrokerError: the broker does not respond.
        """
        disputed_keys = self._disputes.unresolved(_MAX_KEYS)
        until = self._clock() + _MAX_SECONDS
        sources = {
            source.root: MirrorSource(
                source, source.root, trust.identities.get(source.root), same_host=True, rules=self._rules,
                mounts=mounts_below(source, trust.identities),
            )
            for source in self._keys.sources
        }  # fmt: skip
        resolutions = []
        for disputed in disputed_keys:
            resolutions.append(self._resolution(disputed, trust, sources))
            if self._clock() > until:
                break
        return self._disputes.resolve(resolutions)

    def _resolution(self, disputed: DisputedKey, trust: Trust, sources: Mapping[str, MirrorSource]) -> Resolution:
        path = self._keys.path(disputed.key)
        source = self._keys.source_of(path) if path is not None else None
        if path is None or source is None:
            return Resolution(disputed, is_kept=True)  # the mirror has got other options since
        if source.root in trust.roots_in_doubt:
            return self._resolution_if_in_doubt(disputed, path, trust)
        try:
            if sources[source.root].prove_absent(path):
                if self._is_certain(path):
                    return self._resolution_if_gone(disputed, path, trust)
                return self._resolution_if_in_doubt(disputed, path, trust)
            found = self._found(path, source)
        except SourceReplaced:
            return self._resolution_if_in_doubt(disputed, path, trust)
        except (AutosyncError, OSError) as error:  # a file system may be away
            log.debug("%s cannot be checked now: %s", printable(path), error)
            return Resolution(disputed)
        if found is None:
            return Resolution(disputed)
        return Resolution(disputed, is_kept=True) if found.skipped else Resolution(disputed, Hint(found.size, found.mtime_ns))

    def _found(self, path: str, source: Source) -> Entry | None:
        """What is at a path."""
        if self._rules.follow_links:
            return entry_behind_links(path, source, self._rules)
        return entry_at(path, os.lstat(path), self._rules)

    def _resolution_if_in_doubt(self, disputed: DisputedKey, path: str, trust: Trust) -> Resolution:
        """The resolution if a root or a mount point above the path seems to be in doubt. It is scanned when the doubt ends."""
        if trust.waits_for_doubts or not trust.has_scanned or self._is_certain(path):
            return Resolution(disputed)
        log.info("%s: a root or a mount above it is not the directory that it was; what the target has is kept", printable(path))
        self.kept_in_doubt += 1
        return Resolution(disputed, is_kept=True)

    def _resolution_if_gone(self, disputed: DisputedKey, path: str, trust: Trust) -> Resolution:
        """The resolution if it is proved that nothing is at the path."""
        if disputed.hint is not None and disputed.hint.gone:
            return Resolution(disputed, GONE)
        if not trust.has_scanned:
            return Resolution(disputed)
        if trust.may_delete:
            return Resolution(disputed, GONE)
        log.info("%s is gone, and deletions are withheld; what the target has is kept", printable(path))
        return Resolution(disputed, is_kept=True)


class UnseenLog:
    """Logs which workers have not seen for long what this host sees: their keys wait, with `once` too.

    Args:
        unseen: what workers have not seen.
        about: prefix of log lines, where there are several mirrors.
    """

    def __init__(self, unseen: WorkerNotes, *, about: str = "") -> None:
        self._unseen = unseen
        self._about = about
        self._next = 0.0

    def log(self, disputed: int) -> None:
        """Log them, but not more often than the interval permits.

        Args:
            disputed: number of disputed keys.

        Raises:
            BrokerError: the broker does not respond.
        """
        if not disputed or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _UNSEEN_INTERVAL
        for worker, what in sorted(self._unseen.read().items()):
            log.warning("%sworker %s %s; %d keys wait for such files", self._about, worker, what, disputed)
