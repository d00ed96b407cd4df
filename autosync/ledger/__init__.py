"""The ledger in Redis: which keys of a mirror are not known to be right, and who is working on them. One module for each subject."""

from __future__ import annotations

from .broker_permissions import check_reachable
from .entries import (
    GONE,
    UNKNOWN,
    Action,
    Claim,
    Dispute,
    DisputedKey,
    Facts,
    Failure,
    Hint,
    HistoryEntry,
    Marked,
    Message,
    MirrorStats,
    Published,
    Result,
    new_owner,
    now,
    owner_prefix,
    worker_of,
)
from .ledger import Ledger
from .operator_requests import ACCEPT, FLUSH_POINT, SCAN
from .rate_limits import FleetLimits, RateGrant
from .redis_connection import address, connect
from .redis_keys import PREFIX
from .registered_mirrors import RegisteredMirror, mirror_names, queues_of_mirrors, registered_mirrors
from .watcher_lock import WatcherLockEntry

__all__ = [
    "ACCEPT",
    "FLUSH_POINT",
    "GONE",
    "PREFIX",
    "SCAN",
    "UNKNOWN",
    "Action",
    "Claim",
    "Dispute",
    "DisputedKey",
    "Facts",
    "Failure",
    "FleetLimits",
    "Hint",
    "HistoryEntry",
    "Ledger",
    "Marked",
    "Message",
    "MirrorStats",
    "Published",
    "RateGrant",
    "RegisteredMirror",
    "Result",
    "WatcherLockEntry",
    "address",
    "check_reachable",
    "connect",
    "mirror_names",
    "new_owner",
    "now",
    "owner_prefix",
    "queues_of_mirrors",
    "registered_mirrors",
    "worker_of",
]  # fmt: skip
