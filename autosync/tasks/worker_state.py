"""What one worker process holds: its ledgers, the mirrors that it has met with their actors, and the claims that it keeps alive."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..actor import Actor
from ..actors import actor_of
from ..errors import AutosyncError, BrokerError, LeaseLost, PermanentError, UnknownDefinition
from ..ledger import Claim, Ledger, Published, connect, mirror_names, owner_prefix
from ..model.definition_signature import is_signed, key_among
from ..model.keys import Keys
from ..model.mirror import FENCE, LEASE, Mirror, version_of
from ..process.boot_id import boot_id
from .first_seen import FirstSeen
from .sources import AllowedSources, MirrorSource
from .thread_pool import AdaptivePool
from .throttle import Throttle

log = logging.getLogger(__name__)

#: How old what is known of a target's limits may be, in seconds.
_LIMITS = 1.0
#: Claims are renewed so many times in a lease; those that could not be are tried again so many times in a lease.
_RENEWALS, _NEW_TRIES = 3, 10


class _Hold(NamedTuple):
    """A claim: when it was asked for, and until when it may be used without a renewal, both on the monotonic clock."""

    asked: float
    fence: float


class ClaimTable:
    """The claims of one mirror in this process.

    A batch that gives a key up and one that has claimed the same key since are told apart by the moment at which they asked for it.
    """

    def __init__(self) -> None:
        self._holds: dict[str, _Hold] = {}
        self._lock = threading.Lock()

    def take(self, claims: list[Claim], asked: float, lease: float = LEASE) -> None:
        """Note claims that were asked for at `asked`, for a lease in seconds."""
        with self._lock:
            self._holds.update(dict.fromkeys([claim.key for claim in claims], _Hold(asked, _fence(asked, lease))))

    def drop(self, keys: Iterable[str], asked: float) -> None:
        """Forget claims that are done or lost, unless they were asked for again since."""
        with self._lock:
            for key in keys:
                if key in self._holds and self._holds[key].asked == asked:
                    del self._holds[key]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._holds)

    def keys(self) -> dict[str, float]:
        """What is held, with the time at which it was asked for."""
        with self._lock:
            return {key: hold.asked for key, hold in self._holds.items()}

    def renewed(self, keys: list[str], asked: float, lease: float = LEASE) -> None:
        """Note that claims were renewed, for a lease in seconds."""
        with self._lock:
            for key in keys:
                if key in self._holds:
                    self._holds[key] = self._holds[key]._replace(fence=_fence(asked, lease))

    def insist(self, key: str, asked: float) -> None:
        """Go on only with a claim that nobody else can have taken over.

        Raises:
            LeaseLost: it may be somebody else's by now.
        """
        hold = self._holds.get(key)
        if hold is None or hold.asked != asked or hold.fence < time.monotonic():
            raise LeaseLost(f"{key}: the claim could not be renewed in time")


def _fence(asked: float, lease: float) -> float:
    return asked + lease * (1 - FENCE)


@dataclass
class WorkerMirror:
    """A mirror as this worker knows it."""

    mirror: Mirror
    version: str
    keys: Keys
    actor: Actor
    sources: list[MirrorSource]
    same_host: bool
    ledger: Ledger
    crew: AdaptivePool
    pace: Throttle
    #: When its claims and places are renewed next, on the monotonic clock.
    next_renewal: float
    held: ClaimTable = field(default_factory=ClaimTable)
    #: Files of which it is not known yet whether they rest.
    sightings: FirstSeen = field(default_factory=FirstSeen)
    #: Whether the last renewal of its claims and places failed.
    is_late: bool = False

    def source_of(self, path: str) -> MirrorSource:
        """The source that holds a path in scope."""
        if len(self.sources) == 1:
            return self.sources[0]
        return next(one for one in self.sources if one.source.holds(path))


#: How often it is reported that the definition of a mirror cannot be read, in seconds.
_REPORT_SECONDS = 60.0


class WorkerState:
    """The state of a worker process, shared by all its tasks.

    Args:
        broker: URL of the broker.
        allowed: `autosync_sources`.
        secrets: values of secret options, and the signing key, if there is one.

    Raises:
        ConfigurationError: the signing key cannot be used.
    """

    def __init__(self, broker: str, allowed: Any, secrets: Mapping[str, Any]) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._owner = owner_prefix(socket.gethostname(), os.getpid()) + uuid.uuid4().hex[:8]
        self._client = connect(broker)
        self._allowed = AllowedSources(allowed)
        self._secrets = secrets
        self._signing_key = key_among(secrets)
        self._known: dict[str, WorkerMirror] = {}
        self._lock = threading.Lock()
        self.draining = threading.Event()
        self._renewing: threading.Thread | None = None
        self._closed = threading.Event()
        #: When it was reported last that the definition of a mirror cannot be read, by name, on the monotonic clock.
        self._reported: dict[str, float] = {}
        #: Set when there is a mirror that the renewing thread does not know.
        self._learned = threading.Event()

    @property
    def owner(self) -> str:
        """Under which name this process claims keys."""
        return self._owner

    def ledger(self, name: str) -> Ledger:
        """The ledger of a mirror, whether or not it can be worked on here."""
        known = self._known.get(name)
        return known.ledger if known else Ledger(self._client, name)

    def mirror(self, name: str, *, fresh: bool = False) -> WorkerMirror:
        """A mirror, with everything that is needed to work on it.

        Args:
            name: its name.
            fresh: read its definition again, since it has changed.

        Raises:
            BrokerError: the broker did not answer.
            AutosyncError: this worker cannot work on it, and says why.
        """
        known = self._known.get(name)
        if known is not None and not fresh:
            return known
        with self._lock:
            ledger = self.ledger(name)
            found = ledger.definition.read()
            if found is None:
                raise PermanentError(f"no mirror is called {name!r}")
            known = self._known.get(name)
            if known is not None and known.version == found.version:
                return known
            made = self._learn(name, found, ledger)
            if known is not None:
                # Batches that still run with the old definition keep their claims, and their actor.
                made.held, made.pace, made.sightings = known.held, known.pace, known.sightings
                made.pace.lease = made.mirror.lease
                made.next_renewal = 0.0  # they have the old lease
            self._known[name] = made
            self._keep_claims()
            self._learned.set()
            return made

    def warm_up(self) -> None:
        """Learn the mirrors that there are, and connect to their targets, so that the first change does not wait for it. What cannot be
        learned is left to the first task, which says why."""
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
        """Let claims run out, and give connections and threads back."""
        self._closed.set()
        self._learned.set()
        for known in self._known.values():
            known.crew.close()
            known.actor.close()
        self._client.close()

    def _learn(self, name: str, found: Published, ledger: Ledger) -> WorkerMirror:
        if self._signing_key and not is_signed(self._signing_key, name, found.definition, found.signature):
            raise PermanentError(
                f"the definition of mirror {name!r} is not signed with this worker's key",
                "start its autosync-watch with the same --signing-key",
            )
        if version_of(found.definition) != found.version:
            raise PermanentError(f"the definition of mirror {name!r} is damaged", "start its autosync-watch again")
        try:
            mirror = Mirror.loads(found.definition)
        except (ValueError, TypeError, KeyError) as error:
            raise PermanentError(
                f"the definition of mirror {name!r} cannot be read: {error}", "use the same version of autosync on all hosts"
            ) from error
        same_host = mirror.host == boot_id()
        sources = [
            MirrorSource(
                source,
                self._allowed.locate(source.root, self.name),
                mirror.identities.get(source.root),
                same_host=same_host,
                follow=mirror.follow_links,
            )
            for source in mirror.sources
        ]
        return WorkerMirror(
            mirror=mirror,
            version=found.version,
            keys=mirror.keys(),
            actor=actor_of(mirror, self._secrets, "add {} to autosync_secrets in this worker's celeryconfig.py"),
            sources=sources,
            same_host=same_host,
            ledger=ledger,
            crew=AdaptivePool(mirror.threads, name),
            pace=Throttle(ledger.limits, self._owner, self.draining, mirror.lease),
            next_renewal=time.monotonic() + mirror.lease / _RENEWALS,
        )

    def _keep_claims(self) -> None:
        if self._renewing is None:
            self._renewing = threading.Thread(target=self._renew_all, name="autosync-renew", daemon=True)
            self._renewing.start()
            threading.Thread(target=self._look_at_limits, name="autosync-limits", daemon=True).start()

    def _renew_all(self) -> None:
        """Until the process ends; a claim must hold while its transfer is being drained too."""
        while not self._closed.is_set():
            self._learned.clear()
            for known in sorted(self._known.values(), key=lambda one: one.next_renewal):
                if known.next_renewal <= time.monotonic():
                    self._renew_in_time(known)
            due = min(known.next_renewal for known in list(self._known.values()))
            self._learned.wait(max(due - time.monotonic(), 0.0))

    def _renew_in_time(self, known: WorkerMirror) -> None:
        """Renew what is held of one mirror, and set the time of the next renewal."""
        began = time.monotonic()
        try:
            self._renew(known)
            known.is_late = False
            known.next_renewal = began + known.mirror.lease / _RENEWALS
        except Exception as error:  # whatever it is, the next try may succeed, and without this thread no claim would hold
            level = logging.DEBUG if known.is_late else logging.WARNING
            log.log(level, "claims of %s could not be renewed: %s", known.mirror.name, error)
            known.is_late = True
            known.next_renewal = time.monotonic() + known.mirror.lease / _NEW_TRIES

    def _look_at_limits(self) -> None:
        """Limits may change while a large file is on its way. Where nothing is, nobody is asked."""
        while not self._closed.wait(_LIMITS):
            for known in list(self._known.values()):
                if known.held:
                    try:
                        known.pace.look()
                    except Exception as error:  # whatever it is, the next look may succeed
                        log.debug("the limits of %s are not known: %s", known.mirror.name, error)

    def _renew(self, known: WorkerMirror) -> None:
        known.pace.keep()
        held = known.held.keys()
        keys = list(held)
        for start in range(0, len(keys), 500):
            page = keys[start : start + 500]
            asked = time.monotonic()
            lost = set(known.ledger.claims.renew(self._owner, page, known.mirror.lease))
            for key in lost:
                known.held.drop([key], held[key])
            known.held.renewed([key for key in page if key not in lost], asked, known.mirror.lease)
