"""The definition of a mirror in its ledger, and what a mirror gets back from there when it is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..compare.scan import Comparison
from ..feed.scanner import Scanner
from ..ledger import Ledger
from ..model.definition_signature import sign
from ..model.mirror import Mirror, version_of
from ..state.deletion_state import DeletionState
from ..state.run_record import RunRecord
from .unsorted_target import UnsortedTarget


class Registration:
    """Publishes the definition of one mirror. Not safe to use from many threads.

    Args:
        mirror: the definition, which is not published yet.
        ledger: the mirror's ledger.
        deletion_state: whether the mirror is accepted, and what is withheld.
        comparison: sorts listings if the target needs that.
        scanner: receives what is known from scans before this start.
        unsorted: whether the target needs that.
        run_record: records what is published, for other mirrors.
        announce: called when a definition is published.
        signing_key: signs the definition; "": it is not signed.
        accept_existing: the mirror is accepted even if its target has keys without a file.
        has_own_limit: whether an operator has given the limit of deletions, so that no scan is bound by what was withheld before.

    Attributes:
        mirror: the present definition.
        version: the version of the definition in the ledger; "": none was published.
        broker_generation: the generation of the broker in which it was published.
    """

    def __init__(
        self,
        mirror: Mirror,
        ledger: Ledger,
        deletion_state: DeletionState,
        comparison: Comparison,
        scanner: Scanner,
        unsorted: UnsortedTarget,
        run_record: RunRecord,
        announce: Callable[[], None],
        *,
        signing_key: str,
        accept_existing: bool,
        has_own_limit: bool,
    ) -> None:
        self.mirror = mirror
        self.version = ""
        self.broker_generation = ""
        self._ledger = ledger
        self._deletion_state = deletion_state
        self._comparison = comparison
        self._scanner = scanner
        self._unsorted = unsorted
        self._run_record = run_record
        self._announce = announce
        self._signing_key = signing_key
        self._accept_existing = accept_existing
        self._has_own_limit = has_own_limit

    @property
    def version_in_sync(self) -> str:
        """Identifies the definition with which a scan found both sides in sync. A service or a container may have another mount namespace
        after each start, and the same files."""
        return version_of(replace(self.mirror, host=self.mirror.boot).dumps())

    def publish(self, mirror: Mirror, *, keeps_scans: bool = False) -> None:
        """Publish the definition. Attributes are set last: if the broker goes away in between, the next tick does all of it again.

        Args:
            mirror: the definition.
            keeps_scans: whether what running scans find still counts.

        Raises:
            BrokerError: the broker does not respond.
        """
        if not keeps_scans:
            self._scanner.begin_generation()
        definition = mirror.dumps()
        version = version_of(definition)
        accepted = (
            self._scanner.state.accepted or (self._accept_existing and mirror.delete) or self._deletion_state.is_accepted(mirror)
        )  # fmt: skip
        if not accepted:  # before the definition: acceptance is for the definition in the ledger
            self._deletion_state.revoke()
        signature = sign(self._signing_key, mirror.name, definition)
        generation = self._ledger.definition.publish(definition, version, mirror.queue, signature)
        self._run_record.write(mirror)
        self._announce()
        in_sync = self._ledger.sync_state.last_in_sync()
        withheld = 0 if self._has_own_limit else self._deletion_state.withheld()  # also where a wider scope is accepted now
        self._unsorted.restore(self._comparison)
        self._deletion_state.mirror = mirror
        self._deletion_state.pending.rewrite()
        if accepted:
            self._deletion_state.accept()
        self.mirror, self.version, self.broker_generation = mirror, version, generation
        last_in_sync_at = in_sync[1] if in_sync and in_sync[0] == self.version_in_sync else 0.0
        self._scanner.restore(accepted=accepted, last_in_sync_at=last_in_sync_at, withheld_deletions=withheld)
        if self._scanner.state.accepted and not accepted:
            self._deletion_state.accept()  # a scan has accepted the mirror meanwhile, maybe before `revoke` was stored
