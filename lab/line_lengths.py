"""`python -m lab.line_lengths` names each line of prose and of Lua that has more than 140 characters; ruff checks Python.

A longer line is allowed only where it is one URL, or a reference-style link definition (`[name]: URL`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST = 140
_CHECKED = ("*.md", "docs/**/*.md", "docs/*.txt", "docker/*.md", "benchmarks/*.md", "autosync/**/*.lua")
_UNBREAKABLE = re.compile(r"\s*(\[[^\]]+\]: )?<?https?://\S+>?\s*")


def too_long(path: Path) -> Iterator[tuple[int, int]]:
    """The lines of a file that are too long.

    Args:
        path: of a text file.

    Returns:
        Number and length of each such line.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if len(line) > MOST and not _UNBREAKABLE.fullmatch(line):
            yield number, len(line)


def main(paths: Iterable[Path]) -> int:
    """Print the lines that are too long. Returns the exit status: 1 if there are some."""
    found = [f"{path.relative_to(ROOT)}:{number}: {length} characters" for path in paths for number, length in too_long(path)]
    print(*found, sep="\n", end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sorted({path for pattern in _CHECKED for path in ROOT.glob(pattern)})))
