"""How many keys one scan may delete. A source that has lost a quarter of its files is more often a mistake than an intention."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ConfigurationError

#: Default number of deletions that are always allowed.
_ALWAYS_ALLOWED = 20


@dataclass(frozen=True, slots=True)
class DeleteLimit:
    """A limit for the deletions of one scan: a number of keys, or a percentage of the keys in scope that the target has. The default is a
    quarter of these keys, and at least 20.

    Attributes:
        count: number of keys; None: `percent` is used.
        percent: the limit in percent of the keys in scope; None, if `count` is None too: the default.
    """

    count: int | None = None
    percent: float | None = None

    @property
    def is_default(self) -> bool:
        """Whether no limit was given."""
        return self.count is None and self.percent is None

    @classmethod
    def parse(cls, text: str) -> DeleteLimit:
        """Parse the value of --max-delete.

        Raises:
            ConfigurationError: the value is neither a number nor a percentage.
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
        """The number of keys that may be deleted.

        Args:
            scope: number of keys in scope that the target has.
        """
        if self.count is not None:
            return self.count
        return max(_ALWAYS_ALLOWED, scope // 4) if self.percent is None else int(scope * self.percent / 100)
