"""Paths that may not be read, and the changes of attributes after which they may be readable."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, KeysView, Sequence

from ..model.paths import itself_and_parents

#: More paths than this are not observed.
MOST_DENIED = 100_000


class DeniedPaths:
    """A bounded set of paths that may not be read. Safe to use from many threads.

    Whether a path may be read depends on its own attributes, and on those of each directory above it. All of these paths are *observed*, up
    to the root of the source. `in` tests whether a path is observed; `len()` is the number of paths in the set.

    Args:
        roots: the absolute paths of the sources' roots.
        limit: the most paths in the set.
    """

    def __init__(self, roots: Iterable[str], limit: int = MOST_DENIED) -> None:
        self._roots = frozenset(roots)
        self._limit = limit
        #: Path -> the other paths on which it depends: those through which links lead to it.
        self._paths: dict[str, tuple[str, ...]] = {}
        #: Observed path -> how many paths depend on it.
        self._observed: Counter[str] = Counter()
        self._changed: set[str] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, path: str) -> bool:
        return path in self._observed

    def paths(self) -> KeysView[str]:
        """The paths of the set."""
        return self._paths.keys()

    @property
    def has_changed(self) -> bool:
        """Whether attributes of observed paths have changed since `pop_changed`."""
        return bool(self._changed)

    def add(self, path: str, others: Sequence[str] = ()) -> list[str]:
        """Add a path, unless there are too many.

        Args:
            path: below one of the roots.
            others: paths through which links lead to it.

        Returns:
            The paths that are newly observed.
        """
        with self._lock:
            if path in self._paths or len(self._paths) >= self._limit:
                return []
            self._paths[path] = tuple(others)
            fresh = []
            for one in self._dependencies(path):
                self._observed[one] += 1
                if self._observed[one] == 1:
                    fresh.append(one)
            return fresh

    def discard(self, path: str) -> list[str]:
        """Remove a path.

        Returns:
            The paths that are not observed any more.
        """
        with self._lock:
            if path not in self._paths:
                return []
            gone = []
            for one in self._dependencies(path):
                self._observed[one] -= 1
                if not self._observed[one]:
                    del self._observed[one]
                    gone.append(one)
            del self._paths[path]
            return gone

    def note_change(self, path: str) -> None:
        """Note that the attributes of a path have changed. It has no effect if the path is not observed."""
        if path in self._observed:
            with self._lock:
                self._changed.add(path)

    def pop_changed(self) -> list[str]:
        """The paths of the set that depend on a path whose attributes have changed since the last call."""
        with self._lock:
            changed, self._changed = self._changed, set()
            if not changed:
                return []
            if changed <= self._paths.keys() and not any(self._paths.values()):
                below = [path for path in changed if self._observed[path] > 1]  # another path depends on it
                if not below:
                    return list(changed)
            return [path for path in self._paths if not changed.isdisjoint(self._dependencies(path))]

    def pop_page(self, size: int) -> list[str]:
        """The next paths of the set, in turn, not more than the size."""
        with self._lock:
            page = [path for path, _ in zip(self._paths, range(size), strict=False)]
            for path in page:
                self._paths[path] = self._paths.pop(path)
            return page

    def _dependencies(self, path: str) -> Iterator[str]:
        """The paths whose attributes decide whether a path of the set may be read."""
        for one in (path, *self._paths[path]):
            for above in itself_and_parents(one):
                yield above
                if above in self._roots:
                    break
