"""Keys and sizes as people read them."""

from __future__ import annotations


def shown(key: str) -> str:
    """A key fit for a terminal or a web page: no control characters, no broken text, not endless."""
    text = key if key.isprintable() else key.encode("unicode_escape", "surrogatepass").decode("ascii")
    return text if len(text) <= 200 else f"{text[:120]}…{text[-70:]}"


def human_size(size: float) -> str:
    """Bytes in the largest binary unit that leaves a number of at least 1."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
