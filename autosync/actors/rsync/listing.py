"""Reads the output of `rsync --list-only`, and makes filter rules for a part of a module or for single keys.

The formats are those of rsync(1), FILTER RULES, and of rsync's log.c: `\\#` and three octal digits stand for a byte that is not printable,
and for a backslash that such digits follow.
"""

from __future__ import annotations

import os
import re
from calendar import timegm
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

from ...errors import TargetError
from ...files import Page

_ROW = re.compile(rb"(.)\S{9,}\s+([0-9]+) ([0-9/]{10}) ([0-9:]{8}) (.*)", re.DOTALL)
_WRITTEN = re.compile(rb"\\#([0-7]{3})")
_WILD = re.compile(r"[*?\[]")
_PAGE = 1000

#: Options for listing: sizes without separators, bytes above ASCII unchanged.
LIST = ("-r", "--list-only", "--no-h", "-8")


def pages(lines: Iterable[bytes], before: str, etag: str) -> Iterator[Page]:
    """The regular files of a listing.

    Args:
        lines: the rows of the listing.
        before: put in front of each name.
        etag: the ETag of each file.

    Raises:
        TargetError: a row does not have the expected form.
    """
    page = Page([], [], [], [])
    for line in lines:
        row = _ROW.fullmatch(line)
        if row is None:
            raise TargetError(f"a row of rsync's listing is not understood: {line[:200]!r}")
        if row[1] != b"-":
            continue
        page.keys.append(before + _name(row[5]))
        page.sizes.append(int(row[2]))
        page.times.append(_day(row[3]) + _time(row[4]))
        page.etags.append(etag)
        if len(page.keys) == _PAGE:
            yield page
            page = Page([], [], [], [])
    if page.keys:
        yield page


def only_below(parts: Sequence[str]) -> list[str]:
    """Options that include only the content of a directory.

    Args:
        parts: the components of the directory's path.
    """
    if not parts:
        return []
    paths = ["/" + "/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return [*(f"--include={literal(path)}/" for path in paths), f"--include={literal(paths[-1], wild=True)}/**", "--exclude=*"]


def only_these(keys: Iterable[Sequence[str]]) -> bytes:
    """Filter rules that include only some keys and the directories above them; for --from0.

    Args:
        keys: the components of each key.
    """
    rules: dict[str, None] = {}
    for parts in keys:
        for depth in range(1, len(parts)):
            rules[literal("/" + "/".join(parts[:depth])) + "/"] = None
        rules[literal("/" + "/".join(parts))] = None
    return b"".join(os.fsencode(rule) + b"\0" for rule in rules)


def any_of(paths: Iterable[str]) -> bytes:
    """Filter rules that include only these paths, whatever is there; for --from0. Those above a path are among them.

    Args:
        paths: relative to the module.
    """
    return b"".join(os.fsencode(literal(f"/{path}")) + b"\0" for path in paths)


def no_directories(output: bytes, paths: Collection[str]) -> dict[str, str]:
    """Those of the paths in a listing that are no directories: what each of them is, for people.

    Args:
        output: what rsync prints for a listing with the rules of `any_of`.
        paths: the same paths.
    """
    found: dict[str, str] = {}
    for line in output.splitlines():
        row = _ROW.fullmatch(line)
        if row is None or row[1] == b"d":
            continue
        name = _name(row[5])
        if row[1] == b"l":  # the row ends with " -> " and where the link leads
            found |= {path: "a link" for path in paths if name.startswith(f"{path} -> ")}
        elif name in paths:
            found[name] = "a file" if row[1] == b"-" else "a special file"
    return found


def _name(written: bytes) -> str:
    return os.fsdecode(_WRITTEN.sub(lambda found: bytes([int(found[1], 8)]), written))


def literal(path: str, *, wild: bool = False) -> str:
    """A pattern that matches only this path. In a pattern without wildcards, rsync takes a backslash literally.

    Args:
        path: the path to match.
        wild: the caller adds a wildcard to the pattern.
    """
    return re.sub(r"([*?\[\\])", r"\\\1", path) if wild or _WILD.search(path) else path


@lru_cache(1024)
def _day(text: bytes) -> float:
    year, month, day = map(int, text.split(b"/"))
    return float(timegm((year, month, day, 0, 0, 0)))


def _time(text: bytes) -> int:
    return int(text[:2]) * 3600 + int(text[3:5]) * 60 + int(text[6:8])
