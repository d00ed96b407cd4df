"""How the ledger's data is named in Redis, and how keys of a mirror are written there.

Running fleets hold data under these names, so a name stays where our word for its meaning has changed:

| name in Redis | meaning |
| --- | --- |
| `mirror` | definition, state and limits of the mirror |
| `epoch`, `cleared`, `holding`, in `mirror` | broker generation, when the mirror was last in sync, number of withheld deletions |
| `ran_at`, `unsorted`, in `mirror` | when the watcher was last known to run, the target whose listings are not in order |
| `scan_error`, in `mirror` | why the last scan has failed |
| `since` | since when each dirty key is dirty |
| `stats` | counters; in it, `looks` counts the scans |
| `recent` | history of the last results |
| `watcher` | the watcher's lock |
| `asked`, `barrier` | requests of operators ("look": a scan, "barrier": a flush point), flush points |
| `pace` | arrival times of the limits of requests and bytes |
| `places`, `queue`, `asking`, `bell` | in-flight slots; processes that wait for one, times of their last calls, their wakeup keys |
| `rights` | used only to check permissions |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

#: All names in Redis begin with this, Celery's own included.
PREFIX = "autosync:"
#: The set of all mirrors that were ever published at a broker.
MIRRORS = PREFIX + "mirrors"
#: Priorities of messages; `priority_steps` in broker/celery_settings.py.
PRIORITIES = (0, 5, 9)
#: Keys in one call of a script: Lua cannot unpack more than some thousand values.
_KEYS_A_CALL = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class Names:
    """The names of one mirror's data in Redis; mark_dirty.lua and the other scripts describe the data.

    Args:
        mirror_name: the mirror's name.
    """

    mirror_name: str

    @cached_property
    def definition(self) -> str:
        """Hash: the definition, the state of the whole mirror, and its limits."""
        return self._name("mirror")

    @cached_property
    def unreadable(self) -> str:
        """Hash: each worker that cannot read the definition, with the reason."""
        return self._name("unreadable")

    @cached_property
    def state(self) -> str:
        """Hash: each dirty key, with its generation, claim and hint."""
        return self._name("state")

    @cached_property
    def dirty_since(self) -> str:
        """Sorted set: since when each dirty key is dirty, in ms."""
        return self._name("since")

    @cached_property
    def due(self) -> str:
        """Sorted set: when the lease of each claimed key ends, or the next try of a failed one is due, in ms."""
        return self._name("due")

    @cached_property
    def failed(self) -> str:
        """Hash: each failed key, with the reason."""
        return self._name("failed")

    @cached_property
    def counters(self) -> str:
        """Hash: totals since the mirror exists."""
        return self._name("stats")

    @cached_property
    def uploads(self) -> str:
        """Hash: the tokens of the multipart uploads that may be open, by key."""
        return self._name("uploads")

    @cached_property
    def disputed(self) -> str:
        """Hash: the disputed keys: a worker does not see at their paths what the file host saw."""
        return self._name("disputed")

    @cached_property
    def unresolved(self) -> str:
        """Sorted set: the disputed keys whose files the file host has to check once more."""
        return self._name("unresolved")

    @cached_property
    def denied(self) -> str:
        """Sorted set: the failed keys whose files may not be read, with the time of the next try, in ms."""
        return self._name("denied")

    @cached_property
    def denied_delays(self) -> str:
        """Hash: the delay before the next try of each denied key, in ms; a key that was not tried again yet has no delay."""
        return self._name("denied_delays")

    @cached_property
    def script_keys(self) -> tuple[str, ...]:
        """KEYS[1..9] of the scripts, in the order of mark_dirty.lua."""
        kept = (self.definition, self.state, self.dirty_since, self.due, self.failed, self.counters, self.uploads)
        return (*kept, self.disputed, self.unresolved)

    @cached_property
    def unseen(self) -> str:
        """Hash: the workers that do not see a file as the file host sees it, each with such a file."""
        return self._name("unseen")

    @cached_property
    def history(self) -> str:
        """List: the last results of the mirror."""
        return self._name("recent")

    @cached_property
    def watcher(self) -> str:
        """String: the holder of the watcher's lock."""
        return self._name("watcher")

    @cached_property
    def skipped(self) -> str:
        """Hash: paths that are not sent, with the reason."""
        return self._name("skipped")

    @cached_property
    def pending(self) -> str:
        """Hash: the pending items, which wait for an operator's acceptance."""
        return self._name("pending")

    @cached_property
    def requests(self) -> str:
        """List: the requests of operators for the watcher."""
        return self._name("asked")

    @cached_property
    def rates(self) -> str:
        """Hash: the arrival times of rate_limit.lua."""
        return self._name("pace")

    @cached_property
    def slots(self) -> str:
        """Sorted set: the in-flight slots in use."""
        return self._name("places")

    @cached_property
    def slot_queue(self) -> str:
        """Sorted set: the processes that wait for a slot, in their order."""
        return self._name("queue")

    @cached_property
    def slot_requests(self) -> str:
        """Sorted set: the time of the last call of each process that waits."""
        return self._name("asking")

    @cached_property
    def wakeup_prefix(self) -> str:
        """Prefix of the lists that wake a process when its turn for a slot has come."""
        return self._name("bell:")

    @property
    def access_check(self) -> str:
        """A key that only permissions.lua uses."""
        return self._name("rights")

    def flush_point(self, name: str) -> str:
        """String: when a flush point was reached, in ms."""
        return self._name(f"barrier:{name}")

    def permanent(self) -> list[str]:
        """All names, but for those of keys that expire."""
        slots = (self.slots, self.slot_queue, self.slot_requests)
        lists = (self.denied, self.denied_delays, self.skipped, self.pending, self.unseen)
        return [*self.script_keys, *lists, self.history, self.watcher, self.requests, self.rates, *slots]

    def _name(self, part: str) -> str:
        return f"{PREFIX}{{{self.mirror_name}}}:{part}"  # the braces keep a mirror in one slot of a cluster


def queue_list(queue: str, priority: int) -> str:
    """The list in which kombu keeps the messages of one priority (`priority_steps` and `sep` in broker/celery_settings.py)."""
    return f"{PREFIX}{queue}:{priority}" if priority else PREFIX + queue


def encode(key: str) -> bytes:
    """A key or path as Redis stores it."""
    return key.encode("utf-8", "surrogateescape")


def decode(raw: bytes) -> str:
    """A key or path that `encode` has written."""
    return raw.decode("utf-8", "surrogateescape")


def pages(items: Sequence[T]) -> list[Sequence[T]]:
    """Items in parts, each small enough for one call of a script."""
    return [items[start : start + _KEYS_A_CALL] for start in range(0, len(items), _KEYS_A_CALL)]
