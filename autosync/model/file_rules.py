"""Which of the files in scope are sent, by what they are and not by their names."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import ConfigurationError
from .limits import parse_bytes


@dataclass(frozen=True, slots=True)
class FileRules:
    """What the walk, the check after an event, and the worker that opens a file must agree on.

    Attributes:
        follow_links: whether symbolic links are followed to files and directories beneath the same source.
        min_size: a smaller file is skipped, in bytes.
        max_size: a larger file is skipped, in bytes; None for no bound.
        one_file_system: whether directories on other file systems than that of their PATH are left out.
        max_links: number of keys behind links to directories that are always sent.
    """

    follow_links: bool = True
    min_size: int = 0
    max_size: int | None = None
    one_file_system: bool = False
    max_links: int = 10_000

    @property
    def has_size_bounds(self) -> bool:
        """Whether any file can be skipped for its size."""
        return self.min_size > 0 or self.max_size is not None

    def without_size_bounds(self) -> FileRules:
        """The same rules, by which no file is skipped for its size."""
        return replace(self, min_size=0, max_size=None)

    @property
    def beyond_links(self) -> str:
        """Why what is behind too many links is skipped, as the end of a sentence about its path."""
        return f"is behind links, and beyond --max-links, {self.max_links:,} keys"

    def reason_to_skip(self, size: int) -> str:
        """Why a file of this size, in bytes, is skipped, as the end of a sentence about its path; "" if it is not skipped. A file that
        grows has the same reason each time, so that the reason is logged once."""
        if size < self.min_size:
            return f"is smaller than --min-size, {self.min_size:,} bytes"
        if self.max_size is not None and size > self.max_size:
            return f"is larger than --max-size, {self.max_size:,} bytes"
        return ""


def parse_size_bounds(min_size: str | None, max_size: str | None) -> tuple[int, int | None]:
    """Parse --min-size and --max-size.

    Args:
        min_size, max_size: a number with a unit: 1B, 512kB, 20MB, 5GiB; None, "", 0 or none for no bound.

    Returns:
        The bounds for `FileRules`, in bytes.

    Raises:
        ConfigurationError: one of them is not such a number, or no file can be within both.
    """
    least, most = parse_bytes("--min-size", min_size), parse_bytes("--max-size", max_size)
    if most is not None and most < (least or 0):
        raise ConfigurationError(f"--max-size {max_size} is less than --min-size {min_size}", "no file would be sent")
    return least or 0, most
