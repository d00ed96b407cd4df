"""The deletions that a scan withholds, and those of them that an operator has accepted."""

from __future__ import annotations

from dataclasses import dataclass

from .text import listed


@dataclass(frozen=True)
class Withheld:
    """What one scan has withheld.

    Attributes:
        count: number of keys.
        examples: the first of them.
        digest: identifies the set of these keys, if the whole source was scanned; else "".
    """

    count: int = 0
    examples: tuple[str, ...] = ()
    digest: str = ""

    def listed(self) -> str:
        """The examples and the number of the others, in one text."""
        return listed(self.examples, self.count)


@dataclass(frozen=True)
class AcceptedDeletions:
    """Deletions that an operator has accepted.

    Attributes:
        digests: the digests of sets of keys that were withheld; see `Withheld.digest`.
        since: when the last of them was accepted, in seconds since the epoch.
    """

    digests: frozenset[str] = frozenset()
    since: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.digests)
