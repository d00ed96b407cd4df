"""The ledger of one mirror, which holds the parts that have a module each."""

from __future__ import annotations

from typing import cast

import redis

from ..model.mirror import DEFAULT_QUEUE
from .claims import Claims
from .definition import DefinitionStore
from .disputes import Disputes
from .failures import Failures
from .history import History
from .key_states import KeyStates
from .operator_requests import OperatorRequests
from .queues import Queues
from .rate_limits import FleetLimits
from .redis_keys import MIRRORS
from .registered_mirrors import queues_of_mirrors
from .root_records import RootRecords
from .stats import Stats
from .store import MirrorStore
from .sync_state import SyncState
from .uploads import OpenUploads
from .watcher_lock import WatcherLockEntry


class Ledger:
    """All parts of the ledger of one mirror. Safe to use from many threads.

    Args:
        client: a connection to the broker, see `connect`.
        mirror: the mirror's name.
    """

    def __init__(self, client: redis.Redis, mirror: str) -> None:
        self._store = store = MirrorStore(client, mirror)
        self.definition = DefinitionStore(store)
        self.claims = Claims(store)
        self.uploads = OpenUploads(store)
        self.disputes = Disputes(store)
        self.failures = Failures(store)
        self.history = History(store)
        self.key_states = KeyStates(store, self.failures)
        self.queues = Queues(store)
        self.requests = OperatorRequests(store)
        self.stats = Stats(store)
        self.sync_state = SyncState(store)
        self.root_records = RootRecords(store)
        self.watcher_lock = WatcherLockEntry(store)
        #: Limits of the target, for the whole fleet.
        self.limits = FleetLimits(store)

    def close(self) -> None:
        """Close the connections of the client, also those that the scripts hold."""
        self._store.client.connection_pool.disconnect()

    def release_all_of_dead(self, owners: str) -> int:
        """End the claims and the in-flight slots of workers that are known to be dead.

        Args:
            owners: how the names of these owners begin; "": all owners.

        Returns:
            How many claims there were.

        Raises:
            BrokerError: the broker does not respond.
        """
        self.limits.release_slots_of_dead(owners)
        return self.claims.release_claims_of_dead(owners)

    def delete(self) -> None:
        """Delete all that the broker holds of the mirror, and the messages in its queue if no other mirror uses that queue. The target
        stays as it is.

        Raises:
            BrokerError: the broker does not respond.
        """
        names, client = self._store.names, self._store.client
        with self._store.errors():
            queue = cast(bytes | None, client.hget(names.definition, "queue"))
            pipe = client.pipeline()
            pipe.srem(MIRRORS, names.mirror_name)
            pipe.delete(*names.permanent())
            pipe.execute()
        if queue and (name := queue.decode()) not in (DEFAULT_QUEUE, *queues_of_mirrors(client)):
            self.queues.delete(name)
