"""How much one look may delete. A source that has lost half of its files is more often a mistake than a wish."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ConfigurationError

#: By default so many deletions are never too many.
_FEW = 1000


@dataclass(frozen=True, slots=True)
class DeleteLimit:
    """A limit for the deletions of one look: a number, or percents of the keys in scope. By default half of them, where that is more
    than 1,000, else 1,000.

    Attributes:
        count: a number of keys; None: `percent` counts.
        percent: of the keys in scope; None with `count` None: the default.
    """

    count: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> DeleteLimit:
        """Read what stands behind --max-delete.

        Raises:
            ConfigurationError: it is neither a number nor percents.
        """
        match = re.fullmatch(r"(\d{1,12})|(\d{1,3}(?:\.\d+)?)%", text.strip(), re.ASCII)
        if match is None or (match[2] and float(match[2]) > 100):
            raise ConfigurationError(f"--max-delete {text!r} cannot be used", "write a number of keys, or percents up to 100%")
        return cls(count=int(match[1])) if match[1] else cls(percent=float(match[2]))

    def __str__(self) -> str:
        if self.count is not None:
            return str(self.count)
        return "by default" if self.percent is None else f"{self.percent:g}%"

    def of(self, scope: int) -> int:
        """How many keys may go when so many are in scope."""
        if self.count is not None:
            return self.count
        return max(_FEW, scope // 2) if self.percent is None else int(scope * self.percent / 100)
