"""Where a key is decided: the rule that turns paths into keys and back, and the scope of a mirror.

A key is the absolute path of the file, minus `source_prefix` if the path starts with it, with `target_prefix` put in
front, character for character. Nothing is normalised: a leading slash stays one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from .errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Source:
    """One PATH of a mirror: a directory tree, or a single file.

    Attributes:
        path: absolute, without a trailing slash (except the root directory itself).
        is_file: True if PATH is a single file; then the mirror knows nothing else in its directory.
    """

    path: str
    is_file: bool = False

    @property
    def root(self) -> str:
        """The directory that is watched and opened: PATH itself, or the directory of a single file."""
        return (self.path.rpartition("/")[0] or "/") if self.is_file else self.path

    def holds(self, path: str) -> bool:
        """Whether `path` is this file, or lies below this directory."""
        return path == self.path if self.is_file else path.startswith(slashed(self.path))


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a tree whose keys share a prefix and stand in the order in which the tree is walked.

    Attributes:
        directory: where the walk starts, without a trailing slash.
        prefix: the prefix of every key in the stretch.
        without: a directory below that belongs to another span; "" if there is none.
        only: the one file of a single-file source; "" for a tree.
    """

    directory: str
    prefix: str
    without: str = ""
    only: str = ""


def slashed(directory: str) -> str:
    """`directory` with exactly one slash at its end."""
    return directory if directory.endswith("/") else directory + "/"


def is_plain(path: str) -> bool:
    """Whether `path` is absolute and written without `.`, `..`, empty components or NUL."""
    return path.startswith("/") and "\0" not in path and not {"", ".", ".."}.intersection(path.split("/")[1:])


class Keys:
    """The naming rule and the scope of one mirror.

    Args:
        sources: what is mirrored. A source inside another one is dropped.
        source_prefix: taken off the front of paths that start with it.
        target_prefix: put in front of every key.
        source_filter: regular expression; a file belongs to the mirror if `re.match` finds it in the absolute path.
        source_exclude: regular expressions of the same kind; a file or directory that one of them matches is left
            out, with all that is below it.

    Raises:
        ConfigurationError: an expression does not compile, or two files of the sources could get the same key.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        source_prefix: str = "",
        target_prefix: str = "",
        source_filter: str = "^.*$",
        source_exclude: Sequence[str] = (),
    ) -> None:
        self.sources = _outermost(sources)
        self._strip = source_prefix
        self._prepend = target_prefix
        self._wanted = _compiled("--source-filter", source_filter)
        self._unwanted = [_compiled("--source-exclude", pattern) for pattern in source_exclude]
        self._excluded = lru_cache(maxsize=4096)(self._is_excluded)
        self._refuse_twins()

    def key(self, path: str) -> str:
        """The key of an absolute path. Says nothing about scope."""
        return self._prepend + (path[len(self._strip) :] if path.startswith(self._strip) else path)

    def path(self, key: str) -> str | None:
        """The one path in scope that has this key, or None: the inverse of `key`."""
        if not key.startswith(self._prepend):
            return None
        rest = key[len(self._prepend) :]
        for path in (self._strip + rest, rest):
            if is_plain(path) and self.key(path) == key and self.covers(path):
                return path
        return None

    def covers(self, path: str) -> bool:
        """Whether a file of this path belongs to the mirror."""
        source = self.source_of(path)
        return source is not None and self.accepts(path, source)

    def source_of(self, path: str) -> Source | None:
        """The source that holds `path`."""
        return next((source for source in self.sources if source.holds(path)), None)

    def accepts(self, path: str, source: Source) -> bool:
        """Whether the filters let this file of `source` in. The walk asks only this: it knows where it is."""
        return bool(self._wanted.match(path)) and not (self._unwanted and self._is_left_out(path, source))

    def enters(self, directory: str) -> bool:
        """Whether a directory is visited at all; the caller has asked the same of those above it."""
        return not (self._unwanted and self._excluded(directory))

    def spans(self, path: str) -> list[Span]:
        """The stretches that hold every key at or below a directory; "" stands for all sources."""
        if not path:
            return [span for source in self.sources for span in self._spans_of(source)]
        spans = []
        for source in self.sources:
            if path == source.path or source.holds(path):
                spans += [self._file_span(source)] if source.is_file else self._tree_spans(path)
            elif source.path.startswith(slashed(path)):
                spans += self._spans_of(source)
        return spans

    def _spans_of(self, source: Source) -> list[Span]:
        return [self._file_span(source)] if source.is_file else self._tree_spans(source.path)

    def _file_span(self, source: Source) -> Span:
        return Span(source.root, self.key(source.path), only=source.path)

    def _tree_spans(self, directory: str) -> list[Span]:
        top = slashed(directory)
        inner = self._strip[:-1]
        if inner != directory and self._strip.startswith(top) and is_plain(inner):
            return [Span(directory, self._prepend + top, without=inner), Span(inner, self._prepend)]
        return [Span(directory, self.key(top))]

    def _is_left_out(self, path: str, source: Source) -> bool:
        if any(pattern.match(path) for pattern in self._unwanted):
            return True
        parent = path.rpartition("/")[0]
        while len(parent) > len(source.path):
            if self._excluded(parent):
                return True
            parent = parent.rpartition("/")[0]
        return False

    def _is_excluded(self, directory: str) -> bool:
        return any(pattern.match(directory) for pattern in self._unwanted)

    def _refuse_twins(self) -> None:
        """Two files must never share a key, and none may have an empty one. Two can only where the prefix is taken off some paths and not
        off others."""
        for source in self.sources:
            if source.is_file and not self.key(source.path):
                raise ConfigurationError(f"--source-prefix {self._strip} leaves no key for {source.path}", "give a shorter prefix")
        if self._strip.endswith("/") or not self._strip:
            return
        stripped: list[str] = []
        kept: list[str] = []
        for source in self.sources:
            if not source.is_file and self._strip.startswith(slashed(source.path)):
                raise ConfigurationError(
                    f"--source-prefix {self._strip} ends inside {source.path} without a slash",
                    f"write {self._strip}/ or give a PATH below it",
                )
            (stripped if source.path.startswith(self._strip) else kept).append(source.path)
        for path in stripped:
            rest = path[len(self._strip) :]
            for other in kept:
                if rest == "" or slashed(rest).startswith(slashed(other)) or slashed(other).startswith(slashed(rest)):
                    raise ConfigurationError(
                        f"files of {path} and {other} could get the same key with --source-prefix {self._strip}",
                        "end the prefix with a slash or mirror them under two names",
                    )


def _outermost(sources: Sequence[Source]) -> tuple[Source, ...]:
    kept: list[Source] = []
    for source in sorted(set(sources), key=lambda one: (slashed(one.path), one.is_file)):
        if not any(outer.holds(source.path) for outer in kept):
            kept.append(source)
    return tuple(kept)


def _compiled(option: str, pattern: str) -> re.Pattern[str]:
    try:
        # A file name may hold a newline, and '^.*$' has to mean every name.
        return re.compile(pattern, re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigurationError(
            f"{option} {pattern!r} is not a regular expression: {error}", "Python's syntax applies (module re)"
        ) from error
