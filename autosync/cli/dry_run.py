"""`--dry-run`: what a start with these options would do now."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..compare.deletions import Permission
from ..compare.scan import Comparison, ScanReport
from ..daemon.overlaps import Overlaps
from ..errors import BrokerError, Exit
from ..ledger import Ledger, RegisteredMirror, connect, registered_mirrors
from ..model.definition_signature import read_key
from ..model.text import printable
from ..source.mounts import MountTable
from ..source.roots import RootRegister
from ..state.acceptance import is_accepted_in
from ..state.deletion_state import DeletionState, withheld_in
from ..state.root_memory import load_stored
from ..state.state_file import StateFile
from .ctl.mirrors import find_any_mirrors
from .options import state_base

if TYPE_CHECKING:
    from .plan import Plan


def dry_run(plans: Sequence[Plan], name: str, values: dict[str, Any]) -> Exit:
    """Print what would be uploaded, compared by content, deleted, kept and skipped: a line for each key or path.

    Args:
        plans: the mirrors. Their targets can be used.
        name: the name of the state directory.
        values: the values of the options, by name.

    Returns:
        The exit code.
    """
    code = Exit.DONE
    for plan in plans:
        if len(plans) > 1:
            print(f"{plan.mirror.name}:")
        overlaps = _overlaps(plan, plans, name, values)
        permission = _permission(plan, name, values)
        if overlaps.refresh():
            permission = replace(permission, accepted=False)
        report = ScanReport()
        with closing(MountTable()) as mounts, closing(_comparison(plan, _roots(plan, mounts, name, values), overlaps)) as comparison:
            for difference in comparison.differences("", report, permission=permission):
                verb = "delete" if difference.found is None else "check" if difference.etag else "upload"
                print(verb, printable(difference.key))
        for path, reason in report.skipped.items():
            print("skip", printable(path), reason)
        if report.unlisted_skipped:
            print(f"and {report.unlisted_skipped} more skipped paths, {report.skipped_list().total} in all")
        if not report.complete or report.withheld.count or report.beyond_links:
            code = Exit.INCOMPLETE
    return code


def _overlaps(plan: Plan, plans: Sequence[Plan], name: str, values: dict[str, Any]) -> Overlaps:
    """The overlaps of a mirror, which are logged. A broker that does not respond has none."""
    base, broker = state_base(values["state_dir"]), values["broker"]
    registered: list[RegisteredMirror] = []
    with suppress(BrokerError):
        registered = registered_mirrors(connect(broker)) if broker else []
    companions = [other.mirror for other in plans if other is not plan]
    about = f"{plan.mirror.name}: " if len(plans) > 1 else ""
    overlaps = Overlaps(plan.mirror, base, lambda: registered, companions, about=about, file=StateFile(base / name, plan.mirror.name))
    overlaps.check(is_dry=True)
    return overlaps


def _comparison(plan: Plan, roots: RootRegister, overlaps: Overlaps) -> Comparison:
    return Comparison(
        plan.mirror.keys(),
        plan.actor,
        plan.policy,
        exact=True,
        accept=f"autosync-ctl --name {plan.mirror.name} accept",
        on_withheld=lambda key: print("keep", printable(key)),
        roots=roots,
        shared_keys=lambda: overlaps.shared_keys,
    )


def _roots(plan: Plan, mounts: MountTable, name: str, values: dict[str, Any]) -> RootRegister:
    """What is remembered of the roots, by the state file and by the ledgers."""
    roots = RootRegister(plan.mirror.keys(), mounts)
    base, key, mirror = state_base(values["state_dir"]), read_key(values["signing_key"]), plan.mirror.name
    file = StateFile(base / name, mirror)
    ledgers: list[Ledger] = []
    with suppress(BrokerError):
        ledgers = [one.ledger for one in find_any_mirrors(values["broker"], base, mirror)]
    try:
        load_stored(roots, file, ledgers, mirror, key)
    except BrokerError:
        load_stored(roots, file, (), mirror, key)
    return roots


def _permission(plan: Plan, name: str, values: dict[str, Any]) -> Permission:
    """What this start could delete, by the state file and, where a broker with the mirror responds, by its ledger."""
    base, key, mirror = state_base(values["state_dir"]), read_key(values["signing_key"]), plan.mirror
    file = StateFile(base / name, mirror.name)
    accepted, withheld = is_accepted_in(file, mirror, key), withheld_in(file)
    with suppress(BrokerError):
        for one in find_any_mirrors(values["broker"], base, mirror.name):
            state = DeletionState(mirror, one.ledger, file, key)
            accepted, withheld = accepted or state.is_accepted(mirror), max(withheld, state.withheld())
    has_withheld = withheld > 0 and not plan.policy.has_own_limit
    return Permission(accepted or (plan.accept_existing and mirror.delete), has_withheld)
