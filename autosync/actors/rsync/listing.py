"""What `rsync --list-only` writes, and which patterns have it list a part of a module, or delete just some keys in it.

The formats are those of rsync(1), FILTER RULES, and of rsync's log.c: a byte that is not printable, and a backslash in front of what
looks like one, stands as `\\#` and three octal digits.
"""

from __future__ import annotations

import os
import re
from calendar import timegm
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from ...errors import TargetError
from ...files import Page

_ROW = re.compile(rb"(.)\S{9,}\s+([0-9]+) ([0-9/]{10}) ([0-9:]{8}) (.*)", re.DOTALL)
_WRITTEN = re.compile(rb"\\#([0-7]{3})")
_WILD = re.compile(r"[*?\[]")
_PAGE = 1000

#: List only; sizes without separators; bytes above ASCII as they are.
LIST = ("-r", "--list-only", "--no-h", "-8")


def pages(lines: Iterable[bytes], before: str, etag: str) -> Iterator[Page]:
    """The regular files among the rows of a listing.

    Args:
        lines: the rows.
        before: put in front of each name.
        etag: of each file.

    Raises:
        TargetError: a row is not understood.
    """
    page = Page([], [], [], [])
    for line in lines:
        row = _ROW.fullmatch(line)
        if row is None:
            raise TargetError(f"a row of rsync's listing is not understood: {line[:200]!r}")
        if row[1] != b"-":
            continue
        page.keys.append(before + os.fsdecode(_WRITTEN.sub(lambda found: bytes([int(found[1], 8)]), row[5])))
        page.sizes.append(int(row[2]))
        page.times.append(_day(row[3]) + _time(row[4]))
        page.etags.append(etag)
        if len(page.keys) == _PAGE:
            yield page
            page = Page([], [], [], [])
    if page.keys:
        yield page


def only_below(parts: Sequence[str]) -> list[str]:
    """Options that leave only what is below a directory, given by the parts of its path."""
    if not parts:
        return []
    ways = ["/" + "/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return [*(f"--include={literal(way)}/" for way in ways), f"--include={literal(ways[-1], wild=True)}/**", "--exclude=*"]


def only_these(keys: Iterable[Sequence[str]]) -> bytes:
    """Rules that leave only these keys, given by the parts of their paths, and the directories above them; for --from0."""
    rules: dict[str, None] = {}
    for parts in keys:
        for depth in range(1, len(parts)):
            rules[literal("/" + "/".join(parts[:depth])) + "/"] = None
        rules[literal("/" + "/".join(parts))] = None
    return b"".join(os.fsencode(rule) + b"\0" for rule in rules)


def literal(path: str, *, wild: bool = False) -> str:
    """A pattern that matches just this. A backslash means something only in a pattern that has a wildcard.

    Args:
        path: what to match.
        wild: the pattern is going to have a wildcard besides.
    """
    return re.sub(r"([*?\[\\])", r"\\\1", path) if wild or _WILD.search(path) else path


@lru_cache(1024)
def _day(text: bytes) -> float:
    year, month, day = map(int, text.split(b"/"))
    return float(timegm((year, month, day, 0, 0, 0)))


def _time(text: bytes) -> int:
    return int(text[:2]) * 3600 + int(text[3:5]) * 60 + int(text[6:8])
