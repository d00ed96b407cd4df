"""Paths as text: absolute, and without a slash at the end except for the root directory."""

from __future__ import annotations

from collections.abc import Iterator


def slashed(directory: str) -> str:
    """`directory` with exactly one slash at its end."""
    return directory if directory.endswith("/") else directory + "/"


def is_plain(path: str) -> bool:
    """Whether `path` is absolute and written without `.`, `..`, empty components or NUL."""
    return path.startswith("/") and "\0" not in path and not {"", ".", ".."}.intersection(path.split("/")[1:])


def parents(path: str) -> Iterator[str]:
    """The directories that contain a path, from below. The last one is "/", which none contains."""
    while len(path) > 1:
        path = path.rpartition("/")[0] or "/"
        yield path


def itself_and_parents(path: str) -> Iterator[str]:
    """A path, and then the directories that contain it, from below; nothing for ""."""
    if path:
        yield path
        yield from parents(path)


def is_at_or_below(path: str, directory: str) -> bool:
    """Whether a path is that of a directory, or of something below it. Both may be relative to the same directory."""
    return path == directory or path.startswith(slashed(directory))
