"""The rule that turns paths into keys and back, and the scope of a mirror.

A key is the absolute path of the file, minus `source_prefix` if the path starts with it, with `target_prefix` put in front, character for
character. Nothing is normalised: a leading slash stays one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..errors import ConfigurationError
from .paths import is_at_or_below, is_plain, slashed

_MIXED = "(?=[a-z0-9]*[A-Z])(?=[A-Z]*[a-z0-9])[A-Za-z0-9]{6}"
#: Names of files that are not complete yet, or that only the program that made them uses: regular expressions for a whole name.
TEMPORARY = (
    r".*\.(part|filepart|partial|crdownload|tmp)",  # browsers, curl and wget scripts, WinSCP, and many more
    r"\.~.*",  # LibreOffice's locks, Nextcloud, rsync --delay-updates
    r".+~",  # backups of vim, emacs and others
    r"~\$.*",  # Microsoft Office's owner files
    r"\.#.*|#.*#",  # emacs: locks and autosaves
    r"\..*\.sw[a-px]",  # vim's swap files
    rf"\..+\.{_MIXED}",  # rsync while it receives: mkstemp(3), which draws six letters and digits
    r"\.rsync-(partial|tmp)",
    rf"sed{_MIXED}",  # sed -i
    r"\.in\..+",  # lftp, and ProFTPD's HiddenStores
    r"\.goutputstream-.+",  # GNOME
    r"\.nfs[0-9a-f]{16,}|\.fuse_hidden[0-9a-f]+",  # deleted files on a share that a process has open
    r"\.autosync-[0-9a-f]{16}",  # our own file target
)


#: The source filter that every path passes.
_EVERYTHING = "^.*$"


@dataclass(frozen=True, slots=True)
class Source:
    """One PATH of a mirror: a directory tree, or a single file.

    Attributes:
        path: absolute, without a trailing slash (except the root directory itself).
        is_file: True if PATH is a single file; then nothing else in its directory belongs to the mirror.
    """

    path: str
    is_file: bool = False

    @property
    def root(self) -> str:
        """The directory that is watched and opened: PATH itself, or the directory of a single file."""
        return (self.path.rpartition("/")[0] or "/") if self.is_file else self.path

    def holds(self, path: str) -> bool:
        """Whether `path` is this file, or is below this directory."""
        return path == self.path if self.is_file else path.startswith(slashed(self.path))


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a tree whose keys share a prefix and are in the order of the walk.

    Attributes:
        directory: the top of the walk, without a trailing slash.
        prefix: the prefix of every key in this part.
        without: a directory below that belongs to another span; "" if there is none.
        only: the one file of a single-file source; "" for a tree.
    """

    directory: str
    prefix: str
    without: str = ""
    only: str = ""


class Keys:
    """The naming rule and the scope of one mirror.

    Args:
        sources: the mirrored directories and files. A source inside another one is dropped.
        source_prefix: removed from the front of paths that start with it.
        target_prefix: put in front of every key.
        source_filter: regular expression; a file belongs to the mirror if `re.match` finds it in the absolute path.
        source_exclude: regular expressions of the same kind; a file or directory that one of them matches is left out, with everything
            below it.
        temporary: regular expressions for whole names; a file or directory below a source whose name one of them matches is left out until
            it is renamed.
        done_marker: name of a file that marks another one as complete. "{}" in it stands for the name of that file; without "{}", the
            marker is for all files of its directory. "" for no markers. Markers are not mirrored.
        state_directories: directories with autosync's own state; they are left out, with everything below them.
        target_exclude: keys that begin with one of these texts are left out.

    Raises:
        ConfigurationError: an expression does not compile, or two files of the sources could get the same key.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        source_prefix: str = "",
        target_prefix: str = "",
        source_filter: str = _EVERYTHING,
        source_exclude: Sequence[str] = (),
        temporary: Sequence[str] = (),
        done_marker: str = "",
        state_directories: Sequence[str] = (),
        target_exclude: Sequence[str] = (),
    ) -> None:
        self.sources = _outermost(sources)
        #: The directories among the sources that are inside another one. Their files belong to that one.
        self.inner_paths = tuple(sorted({one.path for one in sources if not one.is_file}.difference(one.path for one in self.sources)))
        self._strip = source_prefix
        self._prepend = target_prefix
        self._wanted = _compiled("--source-filter", source_filter)
        self._accepts_all = source_filter == _EVERYTHING
        self._unwanted = [_compiled("--source-exclude", pattern) for pattern in source_exclude]
        self._excluded = lru_cache(maxsize=4096)(self._is_excluded)
        self._temporary = _compiled("--temporary", "|".join(f"(?:{_checked(one)})" for one in temporary)) if temporary else None
        self._marker = _marker_parts(done_marker)
        self.state_directories = tuple(state_directories)
        self.target_exclude = tuple(target_exclude)
        # Whether all decisions about a file depend only on its directory, except for temporary names.
        self._is_simple = (
            self._accepts_all
            and not self._unwanted
            and self._marker is None
            and (not source_prefix or source_prefix.endswith("/"))
            and not any(source.is_file for source in self.sources)
        )
        self._directory = lru_cache(maxsize=4096)(self._directory_of)
        self._refuse_twins()

    def key(self, path: str) -> str:
        """The key of an absolute path, in scope or not."""
        return self._prepend + (path[len(self._strip) :] if path.startswith(self._strip) else path)

    def path(self, key: str) -> str | None:
        """The one path in scope that has this key, or None: the inverse of `key`."""
        if self.is_target_excluded(key):
            return None
        start = key.rfind("/") + 1
        if not self._is_simple or not start or start < len(self._prepend):
            return self._path_of_one(key)
        directory, name = self._directory(key[:start]), key[start:]
        if directory is None or name in ("", ".", "..") or "\0" in name:
            return None
        return None if self._temporary is not None and self._temporary.fullmatch(name) else directory + name

    def _directory_of(self, above: str) -> str | None:
        """The directory of the keys that begin with `above`, which ends with their last slash; None if they are not in scope. It is cached,
        and used only where nothing but temporary names depends on the rest of the key."""
        rest = above[len(self._prepend) :]
        for path in (f"{self._strip}{rest}x", f"{rest}x"):
            source = self.source_of(path)
            if source is None or not is_plain(path) or self.key(path) != f"{above}x" or self.is_state(path):
                continue
            if not self._is_below_temporary(path, source):
                return path[:-1]
        return None

    def _path_of_one(self, key: str) -> str | None:
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
        if source is None or self.is_state(path):
            return False
        return self.accepts(path, source) and not self._is_below_temporary(path, source)

    def is_target_excluded(self, key: str) -> bool:
        """Whether a key, or the beginning of keys, is left out, with all keys that begin with it."""
        return key.startswith(self.target_exclude)

    def is_state(self, path: str) -> bool:
        """Whether a path is a directory with autosync's own state, or is below one."""
        return any(is_at_or_below(path, one) for one in self.state_directories)

    def state_directory_of(self, key: str) -> str:
        """The directory with autosync's own state that would contain the file of this key; "" if there is none."""
        return next((one for one in self.state_directories if key.startswith(self.key(slashed(one)))), "")

    def state_beneath(self, root: str) -> frozenset[str]:
        """The directories with autosync's own state below a source root, relative to it."""
        top = slashed(root)
        return frozenset(one[len(top) :] for one in self.state_directories if one.startswith(top))

    def source_of(self, path: str) -> Source | None:
        """The source that holds `path`."""
        return next((source for source in self.sources if source.holds(path)), None)

    def accepts(self, path: str, source: Source) -> bool:
        """Whether the filters accept this file of `source`. The directories above are not checked, see `enters`."""
        if not self._wanted.match(path) or (self._unwanted and self._is_left_out(path, source)):
            return False
        if self.target_exclude and self.is_target_excluded(self.key(path)):
            return False
        return source.is_file or not (self._is_temporary(path) or self.is_marker(path))

    def accepted(self, directory: str, names: list[str], source: Source) -> list[str]:
        """The names of files that the filters accept, see `accepts`.

        Args:
            directory: absolute, with a slash at its end.
            names: names of files in the directory.
            source: that contains the directory.
        """
        if not self._accepts_all or self._unwanted or self._marker is not None or source.is_file or self.target_exclude:
            return [name for name in names if self.accepts(directory + name, source)]
        if self._temporary is None:
            return names
        is_temporary, at = self._temporary.fullmatch, len(directory)
        return [name for name in names if is_temporary(directory + name, at) is None]

    def enters(self, directory: str) -> bool:
        """Whether the walk enters a directory. The directories above are not checked."""
        if self.state_directories and self.is_state(directory):
            return False
        if self.target_exclude and self._is_directory_excluded(slashed(directory)):
            return False
        return not (self._unwanted and self._excluded(directory)) and not self._is_temporary(directory)

    def is_marker(self, path: str) -> bool:
        """Whether a path is a done-marker."""
        if self._marker is None:
            return False
        before, after, alone = self._marker
        name = path.rpartition("/")[2]
        if alone:
            return name == before
        return name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)

    def marker_of(self, path: str) -> str:
        """The path of the done-marker that a file waits for; "" if it waits for none."""
        if self._marker is None:
            return ""
        before, after, alone = self._marker
        directory, _, name = path.rpartition("/")
        return f"{directory}/{before if alone else before + name + after}"

    def marked_by(self, marker: str) -> tuple[str, bool]:
        """The path that a done-marker is for, and whether that is a directory, with all its files, or one file."""
        assert self._marker is not None
        before, after, alone = self._marker
        directory, _, name = marker.rpartition("/")
        return (directory, True) if alone else (f"{directory}/{name[len(before) : len(name) - len(after)]}", False)

    def spans(self, path: str) -> list[Span]:
        """The parts of the tree with every key at or below a directory; "" stands for all sources."""
        if self.is_state(path):
            return []
        spans: list[Span] = []
        for source in self.sources:
            if not path or is_at_or_below(source.path, path):
                spans += self._spans_of(source)
            elif source.holds(path):
                spans += [self._file_span(source)] if source.is_file else self._tree_spans(path)
        return [span for span in spans if not self.is_target_excluded(span.prefix)]

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

    def _is_temporary(self, path: str) -> bool:
        return self._temporary is not None and self._temporary.fullmatch(path, path.rfind("/") + 1) is not None

    def _is_below_temporary(self, path: str, source: Source) -> bool:
        if self._temporary is None or source.is_file:
            return False
        directories = path[len(slashed(source.path)) :].split("/")[:-1]
        return any(self._temporary.fullmatch(name) for name in directories)

    def _is_left_out(self, path: str, source: Source) -> bool:
        if any(pattern.match(path) for pattern in self._unwanted):
            return True
        parent = path.rpartition("/")[0]  # not by `parents`: this is done for each file, and would take twice as long
        while len(parent) > len(source.path):
            if self._excluded(parent):
                return True
            parent = parent.rpartition("/")[0]
        return False

    def _is_directory_excluded(self, directory: str) -> bool:
        """Whether `target_exclude` leaves out all files below a directory. The prefix that is removed may end below it."""
        return self.is_target_excluded(self.key(directory)) and not self._strip.startswith(directory)

    def _is_excluded(self, directory: str) -> bool:
        return any(pattern.match(directory) for pattern in self._unwanted)

    def _refuse_twins(self) -> None:
        """Raise `ConfigurationError` if two files could have the same key, or a file an empty one. Keys can be the same only if the prefix
        is removed from some paths and not from others."""
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
                if rest == "" or is_at_or_below(rest, other) or is_at_or_below(other, rest):
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


def _checked(pattern: str) -> str:
    _compiled("--temporary", pattern)  # each alone, so that the error names the wrong one
    return pattern


def _marker_parts(marker: str) -> tuple[str, str, bool] | None:
    """The text before and after the file's name, and whether the marker is for a whole directory."""
    if not marker:
        return None
    before, braces, after = marker.partition("{}")
    if "/" in marker or "\0" in marker or "{}" in after or marker in (".", "..", "{}"):
        raise ConfigurationError(f"--done-marker {marker!r} cannot be used", "write a file name; {} in it stands for the name of the file")
    return before, after, not braces


def _compiled(option: str, pattern: str) -> re.Pattern[str]:
    try:
        # A file name may hold a newline, and '^.*$' has to mean every name.
        return re.compile(pattern, re.DOTALL)
    except (re.error, ValueError, OverflowError, RecursionError) as error:  # ValueError: flags that exclude each other
        raise ConfigurationError(
            f"{option} {pattern!r} is not a regular expression: {error}", "Python's syntax applies (module re)"
        ) from error
