"""One comparison of a directory with a target that is held in memory."""

from __future__ import annotations

from pathlib import Path

from autosync.actor import Actor
from autosync.compare.delete_limit import DeleteLimit
from autosync.compare.scan import Comparison, Policy, ScanReport
from autosync.files import File, Listing
from autosync.model.keys import Keys, Source


class Held(Actor):
    """A target that holds the keys it is told to hold, made at the beginning of time."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.keys = keys

    def list(self, prefix: str = "") -> Listing:
        return Listing((File(key, 0, 0.0) for key in sorted(self.keys)), already_sorted=True)


def looked(
    tree: Path,
    actor: Actor,
    path: str = "",
    *,
    limit: DeleteLimit | None = None,
    seen_leaving: bool = False,
    holding: bool = False,
    accepted: bool = True,
    delete: bool = True,
    follow: bool = True,
) -> tuple[list[str], ScanReport]:
    """Which keys a look would delete, and its report."""
    policy = Policy(delete, limit or DeleteLimit(), follow=follow)
    comparison = Comparison(Keys([Source(str(tree))], source_prefix=f"{tree}/"), actor, policy)
    report = ScanReport()
    found = list(comparison.differences(path, report, seen_leaving=seen_leaving, holding=holding, accepted=accepted))
    return [one.key for one in found if one.found is None], report


def fill(tree: Path, *names: str) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
