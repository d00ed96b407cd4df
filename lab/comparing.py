"""One comparison of a directory with a target that is held in memory."""

from __future__ import annotations

from pathlib import Path

from autosync.actor import Actor
from autosync.compare.delete_limit import DeleteLimit
from autosync.compare.deletions import Permission
from autosync.compare.scan import Comparison, Policy, ScanReport
from autosync.files import File, Listing
from autosync.model.file_rules import FileRules
from autosync.model.keys import Keys, Source
from autosync.model.withheld import AcceptedDeletions
from autosync.source.roots import RootRegister


class FixedTarget(Actor):
    """A target with empty objects.

    Args:
        keys: of the objects.
        created: when they were created, in seconds since the epoch.
    """

    def __init__(self, *keys: str, created: float = 0.0) -> None:
        super().__init__()
        self.keys = keys
        self.created = created

    def list(self, prefix: str = "") -> Listing:
        return Listing((File(key, 0, self.created) for key in sorted(self.keys)), already_sorted=True)


def scan(
    tree: Path,
    actor: Actor,
    path: str = "",
    *,
    limit: DeleteLimit | None = None,
    has_left: bool = False,
    has_withheld: bool = False,
    accepted: bool = True,
    acceptances: AcceptedDeletions | None = None,
    delete: bool = True,
    follow: bool = True,
    roots: RootRegister | None = None,
) -> tuple[list[str], ScanReport]:
    """Scan a part of a directory. Returns the keys that would be deleted, and the report."""
    policy = Policy(delete, limit or DeleteLimit(), rules=FileRules(follow_links=follow))
    comparison = Comparison(keys_of(tree), actor, policy, roots=roots)
    report = ScanReport()
    permission = Permission(accepted, has_withheld, acceptances or AcceptedDeletions())
    found = list(comparison.differences(path, report, has_left=has_left, permission=permission))
    return [one.key for one in found if one.found is None], report


def keys_of(tree: Path) -> Keys:
    """The keys of a directory: the paths below it."""
    return Keys([Source(str(tree))], source_prefix=f"{tree}/")


def fill(tree: Path, *names: str) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
