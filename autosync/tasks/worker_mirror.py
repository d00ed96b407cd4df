"""A mirror as one worker process serves it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..actor import Actor
from ..ledger import Ledger
from ..model.keys import Keys
from ..model.mirror import Mirror
from .claim_table import ClaimTable
from .sources import MirrorSource
from .thread_pool import AdaptivePool
from .throttle import Throttle
from .unchanged_files import UnchangedFiles
from .unseen import UnseenFiles


@dataclass
class WorkerMirror:
    """A mirror with all that this process needs to serve it."""

    definition: Mirror
    version: str
    keys: Keys
    actor: Actor
    sources: list[MirrorSource]
    same_host: bool
    ledger: Ledger
    pool: AdaptivePool
    throttle: Throttle
    #: When its claims and slots are renewed next, on the monotonic clock.
    next_renewal: float
    claim_table: ClaimTable = field(default_factory=ClaimTable)
    #: Files that were not seen at rest yet.
    unchanged_files: UnchangedFiles = field(default_factory=UnchangedFiles)
    #: Files that this worker does not see as the file host has confirmed them.
    unseen: UnseenFiles = field(default_factory=UnseenFiles)
    #: Whether the last renewal of its claims and slots failed.
    is_late: bool = False

    def source_of(self, path: str) -> MirrorSource:
        """The source of a path in scope."""
        if len(self.sources) == 1:
            return self.sources[0]
        return next(one for one in self.sources if one.source.holds(path))
