"""The state of one worker process: its ledgers, and the mirrors that it serves with their actors."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..actors import actor_of
from ..errors import AutosyncError, BrokerError, PermanentError, UnknownDefinition, UnknownMirror
from ..ledger import Ledger, Published, connect, mirror_names, new_owner
from ..model.definition_signature import is_signed, key_among
from ..model.mirror import Mirror, version_of
from ..process.boot_id import has_file_view
from .lease_renewal import RENEWALS, LeaseRenewal
from .sources import AllowedSources, MirrorSource, mounts_below
from .thread_pool import AdaptivePool
from .throttle import Throttle
from .worker_mirror import WorkerMirror

log = logging.getLogger(__name__)

#: How often it is reported that the definition of a mirror cannot be read, in seconds.
_REPORT_SECONDS = 60.0


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
        self._renewal = LeaseRenewal(self._owner, self._mirrors)
        #: When it was last reported that the definition of a mirror cannot be read, on the monotonic clock, and the reason; by name.
        self._reported: dict[str, tuple[float, str]] = {}

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
            name: the mirror's name.
            fresh: read its definition again, since it has changed.

        Raises:
            BrokerError: the broker does not respond.
            UnknownMirror: the broker has no definition of it.
            AutosyncError: this worker cannot serve it, for the reason in the text.
        """
        current = self._mirrors.get(name)
        if current is not None and not fresh:
            return current
        with self._lock:
            ledger = self.ledger(name)
            published = ledger.definition.read()
            if published is None:
                raise UnknownMirror(f"no mirror is called {name!r}")
            current = self._mirrors.get(name)
            if current is not None and current.version == published.version:
                self._reported.pop(name, None)
                return current
            mirror = self._load(name, published, ledger)
            self._remove_report(name, ledger)
            if current is not None:
                # Batches that still run with the old definition keep their claims, and their actor.
                mirror.claim_table, mirror.throttle, mirror.unchanged_files = current.claim_table, current.throttle, current.unchanged_files
                mirror.unseen = current.unseen
                mirror.throttle.slots.lease = mirror.definition.lease
                mirror.next_renewal = 0.0  # the claims have the old lease
            self._mirrors[name] = mirror
            self._renewal.include_all()
            return mirror

    def warm_up(self) -> None:
        """Load all mirrors, and connect to their targets, so that the first change does not wait for that. The first task reports what
        cannot be loaded."""
        with suppress(AutosyncError):
            for name in mirror_names(self._client):
                with suppress(Exception):
                    self.mirror(name).actor.check()

    def report_unreadable(self, name: str, error: UnknownDefinition) -> None:
        """Report that the definition of a mirror needs a later version of autosync: in the log and in the ledger, once a minute, and at
        once if the reason is another one than before.

        Args:
            name: the mirror's name.
            error: the reason.
        """
        now, reason = time.monotonic(), str(error)
        with self._lock:
            reported_at, reported = self._reported.get(name, (0.0, ""))
            if reported == reason and now - reported_at < _REPORT_SECONDS:
                return
            self._reported[name] = now, reason
        log.warning(
            "the definition of mirror %s cannot be read here, so its keys are left to other workers: %s", name, reason,
            extra={"mirror": name, "worker": self.name},
        )  # fmt: skip
        with suppress(BrokerError):
            self.ledger(name).definition.note_unreadable(self.name, reason)

    def close(self) -> None:
        """Let the claims expire, and close connections and threads."""
        self._renewal.close()
        for mirror in self._mirrors.values():
            mirror.pool.close()
            mirror.actor.close()
        self._client.close()

    def _remove_report(self, name: str, ledger: Ledger) -> None:
        """Remove this worker's report that it cannot read the definition, also that of an earlier process of the same name."""
        self._reported.pop(name, None)
        with suppress(BrokerError):  # the note expires
            ledger.definition.remove_unreadable(self.name)

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
        except ValueError as error:
            raise PermanentError(
                f"the definition of mirror {name!r} cannot be read: {error}", "use the same version of autosync on all hosts"
            ) from error
        same_host = has_file_view(definition.host)
        sources = [
            MirrorSource(
                source,
                self._allowed.locate(source.root, self.name),
                definition.identities.get(source.root),
                same_host=same_host,
                rules=definition.file_rules,
                mounts=mounts_below(source, definition.identities),
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
            next_renewal=time.monotonic() + definition.lease / RENEWALS,
        )
