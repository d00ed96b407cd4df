"""The state of one worker process: its ledgers, the mirrors that it serves with their actors, and the claims that it renews."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..actor import Actor
from ..actors import actor_of
from ..errors import AutosyncError, BrokerError, LeaseLost, PermanentError, UnknownDefinition
from ..ledger import Claim, Ledger, Published, connect, mirror_names, new_owner
from ..model.definition_signature import is_signed, key_among
from ..model.keys import Keys
from ..model.mirror import FENCE, LEASE, Mirror, version_of
from ..process.boot_id import boot_id
from .first_seen import FirstSeen
from .sources import AllowedSources, MirrorSource
from .thread_pool import AdaptivePool
from .throttle import Throttle

log = logging.getLogger(__name__)

#: The limits of a target are read again after this time, in seconds.
_LIMITS_SECONDS = 1.0
#: Claims are renewed so many times in a lease; those that could not be are tried again so many times in a lease.
_RENEWALS, _RETRIES = 3, 10
#: How often it is reported that the definition of a mirror cannot be read, in seconds.
_REPORT_SECONDS = 60.0


class _Lease(NamedTuple):
    """The lease of a claim: when the claim was requested, and until when it may be used without a renewal, both on the monotonic clock."""

    claimed_at: float
    usable_until: float


class ClaimTable:
    """The claims of one mirror in this process.

    The time of the request distinguishes the claim of one batch from a later claim of the same key by another batch.
    """

    def __init__(self) -> None:
        self._leases: dict[str, _Lease] = {}
        self._lock = threading.Lock()

    def add(self, claims: list[Claim], claimed_at: float, lease: float = LEASE) -> None:
        """Add claims that were requested at `claimed_at`, for a lease in seconds."""
        with self._lock:
            self._leases.update(dict.fromkeys([claim.key for claim in claims], _Lease(claimed_at, _usable_until(claimed_at, lease))))

    def remove(self, keys: Iterable[str], claimed_at: float) -> None:
        """Remove claims that are done or lost, but not those that were requested at another time."""
        with self._lock:
            for key in keys:
                if key in self._leases and self._leases[key].claimed_at == claimed_at:
                    del self._leases[key]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._leases)

    def times(self) -> dict[str, float]:
        """The claimed keys, each with the time at which its claim was requested."""
        with self._lock:
            return {key: lease.claimed_at for key, lease in self._leases.items()}

    def extend(self, keys: list[str], renewed_at: float, lease: float = LEASE) -> None:
        """Note that claims were renewed, for a lease in seconds."""
        with self._lock:
            for key in keys:
                if key in self._leases:
                    self._leases[key] = self._leases[key]._replace(usable_until=_usable_until(renewed_at, lease))

    def check(self, key: str, claimed_at: float) -> None:
        """Check that no other worker can have the claim of a key.

        Raises:
            LeaseLost: another worker may have it.
        """
        lease = self._leases.get(key)
        if lease is None or lease.claimed_at != claimed_at or lease.usable_until < time.monotonic():
            raise LeaseLost(f"{key}: the claim could not be renewed in time")


def _usable_until(renewed_at: float, lease: float) -> float:
    return renewed_at + lease * (1 - FENCE)


@dataclass
class WorkerMirror:
    """A mirror with all that this process needs to serve it."""

    definition: Mirror
    version: str
    keys: Keys
    actor: Actor
    sources: list[MirrorSource]
    same_host: bool
    ledger: Ledger
    pool: AdaptivePool
    throttle: Throttle
    #: When its claims and slots are renewed next, on the monotonic clock.
    next_renewal: float
    claim_table: ClaimTable = field(default_factory=ClaimTable)
    #: Files that were not seen at rest yet.
    first_seen: FirstSeen = field(default_factory=FirstSeen)
    #: Whether the last renewal of its claims and slots failed.
    is_late: bool = False

    def source_of(self, path: str) -> MirrorSource:
        """The source of a path in scope."""
        if len(self.sources) == 1:
            return self.sources[0]
        return next(one for one in self.sources if one.source.holds(path))


class WorkerState:
    """The state of a worker process, shared by all its tasks.

    Args:
        broker: URL of the broker.
        allowed: `autosync_sources`.
        secrets: values of secret options, and the signing key, if there is one.
        name: Celery's name of this worker, such as `box1@host`.

    Raises:
        ConfigurationError: the signing key cannot be used.
    """

    def __init__(self, broker: str, allowed: Any, secrets: Mapping[str, Any], name: str) -> None:
        self.name = name
        self._owner = new_owner(socket.gethostname(), os.getpid(), name)
        self._client = connect(broker)
        self._allowed = AllowedSources(allowed)
        self._secrets = secrets
        self._signing_key = key_among(secrets)
        self._mirrors: dict[str, WorkerMirror] = {}
        self._lock = threading.Lock()
        self.draining = threading.Event()
        self._renewing: threading.Thread | None = None
        self._closed = threading.Event()
        #: When it was last reported that the definition of a mirror cannot be read, by name, on the monotonic clock.
        self._reported: dict[str, float] = {}
        #: Set when there is a mirror that the renewing thread does not have yet.
        self._mirrors_changed = threading.Event()

    @property
    def owner(self) -> str:
        """The owner of claims of this process, in the ledger."""
        return self._owner

    def ledger(self, name: str) -> Ledger:
        """The ledger of a mirror, whether or not this worker can serve it."""
        mirror = self._mirrors.get(name)
        return mirror.ledger if mirror else Ledger(self._client, name)

    def mirror(self, name: str, *, fresh: bool = False) -> WorkerMirror:
        """A mirror, with all that is needed to serve it.

        Args:
            name: its name.
            fresh: read its definition again, since it has changed.

        Raises:
            BrokerError: the broker did not answer.
            AutosyncError: this worker cannot serve it, for the reason in the text.
        """
        current = self._mirrors.get(name)
        if current is not None and not fresh:
            return current
        with self._lock:
            ledger = self.ledger(name)
            published = ledger.definition.read()
            if published is None:
                raise PermanentError(f"no mirror is called {name!r}")
            current = self._mirrors.get(name)
            if current is not None and current.version == published.version:
                return current
            mirror = self._load(name, published, ledger)
            if current is not None:
                # Batches that still run with the old definition keep their claims, and their actor.
                mirror.claim_table, mirror.throttle, mirror.first_seen = current.claim_table, current.throttle, current.first_seen
                mirror.throttle.lease = mirror.definition.lease
                mirror.next_renewal = 0.0  # the claims have the old lease
            self._mirrors[name] = mirror
            self._start_threads()
            self._mirrors_changed.set()
            return mirror

    def warm_up(self) -> None:
        """Load all mirrors, and connect to their targets, so that the first change does not wait for that. The first task reports what
        cannot be loaded."""
        with suppress(AutosyncError):
            for name in mirror_names(self._client):
                with suppress(Exception):
                    self.mirror(name).actor.check()

    def report_unreadable(self, name: str, error: UnknownDefinition) -> None:
        """Report that the definition of a mirror needs a later version of autosync: in the log and in the ledger, once a minute.

        Args:
            name: of the mirror.
            error: the reason.
        """
        now = time.monotonic()
        with self._lock:
            if now - self._reported.get(name, -_REPORT_SECONDS) < _REPORT_SECONDS:
                return
            self._reported[name] = now
        log.warning("the definition of mirror %s cannot be read here, so its keys are left to other workers: %s", name, error)
        with suppress(BrokerError):
            self.ledger(name).definition.note_unreadable(self.name, str(error))

    def close(self) -> None:
        """Let the claims expire, and close connections and threads."""
        self._closed.set()
        self._mirrors_changed.set()
        for mirror in self._mirrors.values():
            mirror.pool.close()
            mirror.actor.close()
        self._client.close()

    def _load(self, name: str, published: Published, ledger: Ledger) -> WorkerMirror:
        if self._signing_key and not is_signed(self._signing_key, name, published.definition, published.signature):
            raise PermanentError(
                f"the definition of mirror {name!r} is not signed with this worker's key",
                "start its autosync-watch with the same --signing-key",
            )
        if version_of(published.definition) != published.version:
            raise PermanentError(f"the definition of mirror {name!r} is damaged", "start its autosync-watch again")
        try:
            definition = Mirror.loads(published.definition)
        except (ValueError, TypeError, KeyError) as error:
            raise PermanentError(
                f"the definition of mirror {name!r} cannot be read: {error}", "use the same version of autosync on all hosts"
            ) from error
        same_host = definition.host == boot_id()
        sources = [
            MirrorSource(
                source,
                self._allowed.locate(source.root, self.name),
                definition.identities.get(source.root),
                same_host=same_host,
                rules=definition.file_rules,
            )
            for source in definition.sources
        ]
        return WorkerMirror(
            definition=definition,
            version=published.version,
            keys=definition.keys(),
            actor=actor_of(definition, self._secrets, "add {} to autosync_secrets in this worker's celeryconfig.py"),
            sources=sources,
            same_host=same_host,
            ledger=ledger,
            pool=AdaptivePool(definition.threads, name),
            throttle=Throttle(ledger.limits, self._owner, self.draining, definition.lease),
            next_renewal=time.monotonic() + definition.lease / _RENEWALS,
        )

    def _start_threads(self) -> None:
        if self._renewing is None:
            self._renewing = threading.Thread(target=self._renew_all, name="autosync-renew", daemon=True)
            self._renewing.start()
            threading.Thread(target=self._refresh_limits, name="autosync-limits", daemon=True).start()

    def _renew_all(self) -> None:
        """Until the process ends: a claim must last while its transfer is being drained, too."""
        while not self._closed.is_set():
            self._mirrors_changed.clear()
            for mirror in sorted(self._mirrors.values(), key=lambda one: one.next_renewal):
                if mirror.next_renewal <= time.monotonic():
                    self._renew_in_time(mirror)
            due = min(mirror.next_renewal for mirror in list(self._mirrors.values()))
            self._mirrors_changed.wait(max(due - time.monotonic(), 0.0))

    def _renew_in_time(self, mirror: WorkerMirror) -> None:
        """Renew the claims and slots of one mirror, and set the time of the next renewal."""
        began = time.monotonic()
        try:
            self._renew(mirror)
            mirror.is_late = False
            mirror.next_renewal = began + mirror.definition.lease / _RENEWALS
        except Exception as error:  # the next try may succeed after any error, and without this thread no claim would last
            level = logging.DEBUG if mirror.is_late else logging.WARNING
            log.log(level, "claims of %s could not be renewed: %s", mirror.definition.name, error)
            mirror.is_late = True
            mirror.next_renewal = time.monotonic() + mirror.definition.lease / _RETRIES

    def _refresh_limits(self) -> None:
        """Limits may change while a large file is in flight. Without claims, no request to the broker is made."""
        while not self._closed.wait(_LIMITS_SECONDS):
            for mirror in list(self._mirrors.values()):
                if mirror.claim_table:
                    try:
                        mirror.throttle.refresh()
                    except Exception as error:  # the next try may succeed after any error
                        log.debug("the limits of %s could not be read: %s", mirror.definition.name, error)

    def _renew(self, mirror: WorkerMirror) -> None:
        mirror.throttle.renew_slots()
        times = mirror.claim_table.times()
        keys = list(times)
        for start in range(0, len(keys), 500):
            page = keys[start : start + 500]
            renewed_at = time.monotonic()
            lost = set(mirror.ledger.claims.renew(self._owner, page, mirror.definition.lease))
            for key in lost:
                mirror.claim_table.remove([key], times[key])
            mirror.claim_table.extend([key for key in page if key not in lost], renewed_at, mirror.definition.lease)
