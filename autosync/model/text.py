"""Formats keys and sizes for people."""

from __future__ import annotations

from collections.abc import Collection


def printable(key: str) -> str:
    """A key for a terminal or a web page: control characters and invalid text are escaped, and a long key is shortened in the middle."""
    text = key if key.isprintable() else key.encode("unicode_escape", "surrogatepass").decode("ascii")
    return text if len(text) <= 200 else f"{text[:120]}…{text[-70:]}"


def listed(examples: Collection[str], count: int) -> str:
    """Some keys or paths for an operator, and the number of the others.

    Args:
        examples: some of them.
        count: number of all.
    """
    more = f" and {count - len(examples)} more" if count > len(examples) else ""
    return ", ".join(map(printable, examples)) + more


def human_size(size: float) -> str:
    """A number of bytes in the largest binary unit in which it is at least 1."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
