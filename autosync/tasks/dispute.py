"""Returns a key to the ledger if this worker's file differs from what the file host saw."""

from __future__ import annotations

import logging

from ..ledger import Action, Claim, Result
from ..model.text import printable
from .claimed_batch import ClaimedBatch

log = logging.getLogger("autosync.transfer")


def dispute(batch: ClaimedBatch, claim: Claim, path: str, finding: str) -> Result:
    """Return a key whose file differs here from what the file host saw. The file host has to check the file once more.

    Args:
        batch: the batch that the claim is part of.
        claim: the claim.
        path: the file's path on the file host.
        finding: what this worker sees, with "{}" for the path; the end of a sentence that begins with the worker.
    """
    mirror, worker = batch.mirror, batch.worker.name
    root = mirror.source_of(path).local_root
    report = finding.format(f"{printable(path)} below {printable(root)}")
    log.log(  # one line for a key, however often it is tried
        logging.INFO if claim.dispute is None else logging.DEBUG,
        "%s: %s %s; the file host checks it once more", printable(claim.key), worker, report,
        extra={"mirror": mirror.definition.name, "key": claim.key, "worker": worker},
    )  # fmt: skip
    if claim.dispute is not None and claim.dispute.confirmed_for is not None and claim.dispute.tries:
        mirror.unseen.add(path, report, claim.dispute.confirmed_for)
    return Result(claim, Action.DISPUTED)
