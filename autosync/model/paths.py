"""Paths as text: absolute, and without a slash at the end except for the root directory."""

from __future__ import annotations


def slashed(directory: str) -> str:
    """`directory` with exactly one slash at its end."""
    return directory if directory.endswith("/") else directory + "/"


def is_plain(path: str) -> bool:
    """Whether `path` is absolute and written without `.`, `..`, empty components or NUL."""
    return path.startswith("/") and "\0" not in path and not {"", ".", ".."}.intersection(path.split("/")[1:])
