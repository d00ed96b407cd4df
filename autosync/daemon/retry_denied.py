"""Failed keys whose files workers may not read: they are tried again when permissions change, and after delays that grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..errors import BrokerError
from ..ledger.failures import Failures
from ..model.change import Change, Kind, Push
from ..model.keys import Keys
from ..watch.denied_paths import DeniedPaths

#: So many keys are tried again, or checked, in one second.
_AT_ONCE = 1000


class AttributeObserver(Protocol):
    """The part of the watcher that is used here."""

    def subscribe(self, denied: DeniedPaths) -> None:
        """See `Watcher`."""

    def observe(self, denied: DeniedPaths, paths: Sequence[str]) -> None:
        """See `Watcher`."""

    def forget(self, denied: DeniedPaths, paths: Sequence[str]) -> None:
        """See `Watcher`."""


class DeniedRetry:
    """Tries denied keys again. Not safe to use from many threads.

    A key that was denied for the first time is tried again at once, after the attributes of its path are observed: so no change is missed
    that came before.

    Args:
        failures: the failed list of the mirror.
        keys: naming rule and scope of the mirror.
        push: receives the files whose permissions may have changed.
        mark: marks keys whose state is not known, and sends them to workers.
    """

    def __init__(self, failures: Failures, keys: Keys, push: Push, mark: Callable[[Sequence[str]], None]) -> None:
        self._failures = failures
        self._keys = keys
        self._push = push
        self._mark = mark
        self._watcher: AttributeObserver | None = None
        self._paths = DeniedPaths(source.root for source in keys.sources)

    def start(self, watcher: AttributeObserver) -> None:
        """Use a watcher, which is not started yet."""
        self._watcher = watcher
        watcher.subscribe(self._paths)

    def retry(self, count: int) -> None:
        """Try the keys again that are due, or whose permissions may have changed; called once a second.

        Args:
            count: how many denied keys there are.

        Raises:
            BrokerError: the broker does not respond. What was not done is done by the next call.
        """
        if self._watcher is None or not (count or self._paths):
            return
        self._retry_changed(self._watcher)
        self._retry_due(self._watcher)
        if len(self._paths) > count:  # some could be read, or are gone
            page = self._paths.pop_page(_AT_ONCE)
            are_denied = self._failures.are_denied([self._keys.key(path) for path in page])
            self._watcher.forget(self._paths, [path for path, is_denied in zip(page, are_denied, strict=True) if not is_denied])

    def _retry_changed(self, watcher: AttributeObserver) -> None:
        changed = {self._keys.key(path): path for path in self._paths.pop_changed()}
        if not changed:
            return
        try:
            denied = self._failures.pop_denied(list(changed))
        except BrokerError:
            for path in changed.values():
                self._paths.note_change(path)
            raise
        watcher.forget(self._paths, [changed[key] for key in changed.keys() - set(denied)])
        self._push([Change(Kind.APPEARED, changed[key]) for key in denied])

    def _retry_due(self, watcher: AttributeObserver) -> None:
        keys = self._failures.pop_due_denied(_AT_ONCE)
        if keys:
            watcher.observe(self._paths, [path for path in map(self._keys.path, keys) if path is not None])
            self._mark(keys)
