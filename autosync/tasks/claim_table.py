"""The claims of one mirror in this process, and until when each may be used."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import LeaseLost
from ..ledger import Claim
from ..model.mirror import FENCE, LEASE


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
