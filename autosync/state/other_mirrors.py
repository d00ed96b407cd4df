"""The mirrors with which a mirror is compared: those of its broker, of the state directories on its host, and of its own watcher."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, UnknownDefinition
from ..model.mirror import Mirror
from ..model.target_scope import TargetScope
from ..source.mounts import real_paths
from .run_record import stored_mirrors

if TYPE_CHECKING:
    from ..ledger import RegisteredMirror

#: For so long, a mirror that has stopped counts as one that will run again, in seconds.
RECENT = 30 * 86_400.0


@dataclass(frozen=True)
class OtherMirror:
    """Another mirror.

    Attributes:
        name: the mirror's name.
        definition: the definition as `Mirror.dumps` writes it; "" if it is lost.
        ran_at: when the mirror was last known to run, in seconds since the epoch; None if that is unknown.
        is_watched: whether a watcher runs.
        is_companion: whether the same watcher runs it.
    """

    name: str
    definition: str
    ran_at: float | None
    is_watched: bool = False
    is_companion: bool = False

    @property
    def is_recent(self) -> bool:
        """Whether the mirror is watched, or ran within 30 days. In doubt, it did."""
        return self.is_watched or self.ran_at is None or time.time() - self.ran_at < RECENT

    def last_run(self) -> str:
        """When the mirror ran last, as the end of a sentence about it."""
        if self.is_companion:
            return "is of the same configuration file"
        if self.is_watched:
            return "is watched now"
        if self.ran_at is None:
            return "ran last at an unknown time"
        return f"ran last on {time.strftime('%Y-%m-%d at %H:%M', time.localtime(self.ran_at))}"


def other_mirrors(
    own: str, base: Path, registered: Iterable[RegisteredMirror], companions: Sequence[Mirror]
) -> tuple[list[tuple[OtherMirror, TargetScope]], list[str]]:  # fmt: skip
    """All mirrors but one. Of several definitions of one name, that which ran last counts.

    Args:
        own: the name of that one.
        base: the directory with the state directories.
        registered: the mirrors of the broker.
        companions: the other mirrors of the same watcher, as they are defined now.

    Returns:
        The mirrors with what they can make, sorted by name; and the names of those whose definitions cannot be read.
    """
    found: dict[str, OtherMirror] = {}
    stored = [OtherMirror(one.name, one.definition, one.ran_at) for one in stored_mirrors(base)]
    for one in [*stored, *(OtherMirror(one.name, one.definition, one.ran_at, one.is_watched) for one in registered)]:
        before = found.get(one.name)
        if one.definition and (before is None or _order(one) >= _order(before)):
            found[one.name] = one
    found |= {mirror.name: OtherMirror(mirror.name, mirror.dumps(), None, is_watched=True, is_companion=True) for mirror in companions}
    scopes: list[tuple[OtherMirror, TargetScope]] = []
    unreadable: list[str] = []
    for name, one in sorted(found.items()):
        if name == own:
            continue
        try:
            scopes.append((one, TargetScope(Mirror.loads(one.definition), real_paths)))
        except (UnknownDefinition, ConfigurationError, ValueError):  # another version wrote it
            unreadable.append(name)
    return scopes, unreadable


def _order(one: OtherMirror) -> tuple[bool, float]:
    return one.is_watched, one.ran_at or 0.0
