"""Which sources a worker may read, and what proves that a file is gone.

The worker's own configuration has the list of allowed sources; a definition that came through Redis can only choose from it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import NamedTuple

from ..errors import PermanentError, SourceDenied, SourceRefused, SourceReplaced, SourceUnsure
from ..model.file_rules import FileRules
from ..model.keys import Source
from ..model.mirror import IN_DOUBT, Identity
from ..model.paths import is_at_or_below, is_plain, slashed
from ..source.beneath import FILE_FLAGS, NotMirrored, open_beneath, open_directory_beneath, open_root, resolve_beneath, root_paths

#: The file, or a directory on its path, does not exist; any other error is no proof.
_GONE = (errno.ENOENT, errno.ENOTDIR)


class Absent(Exception):  # noqa: N818 - a finding, not an error
    """The path names no file."""


class Opened(NamedTuple):
    """A file that was opened for reading: its descriptor, and the result of fstat(2)."""

    descriptor: int
    seen: os.stat_result


class DirectoryCache:
    """The directory of the last path, kept open for the next path, which most often lies in the same directory. A directory that does not
    exist is cached as well: when it was removed, a thousand keys are gone.

    The directory may be moved meanwhile. So a cache is used for milliseconds only, and after every transfer the path of the file is checked
    (`MirrorSource.inodes`).
    """

    def __init__(self) -> None:
        self._directory, self._name = -1, ""
        self._missing_errno: int | None = None  # of the attempt to open that directory, if it does not exist

    def open(self, root: int, relative: str) -> int:
        """Like `open_beneath`, for a file."""
        above, _, name = relative.rpartition("/")
        directory = self._open_directory(root, above)
        if name in ("", ".", "..") or "\0" in name:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), relative)
        return os.open(name, FILE_FLAGS, dir_fd=directory)

    def stat(self, root: int, relative: str) -> os.stat_result:
        """The result of lstat(2)."""
        above, _, name = relative.rpartition("/")
        return os.stat(name, dir_fd=self._open_directory(root, above), follow_symlinks=False)

    def close(self) -> None:
        """Close the directory."""
        if self._directory >= 0:
            os.close(self._directory)
        self._directory = -1

    def _open_directory(self, root: int, above: str) -> int:
        if self._missing_errno is not None and above == self._name:
            raise OSError(self._missing_errno, os.strerror(self._missing_errno), above)
        if self._directory < 0 or above != self._name:
            self.close()
            self._name, self._missing_errno = above, None
            try:
                self._directory = open_directory_beneath(root, above)
            except OSError as error:
                if error.errno in _GONE:
                    self._missing_errno = error.errno
                raise
        return self._directory


class AllowedSources:
    """The source roots that a worker may read, and where it mounts them.

    Args:
        allowed: paths on the file host; in a mapping, each with its path on this host.
    """

    def __init__(self, allowed: Iterable[str] | Mapping[str, str]) -> None:
        pairs = allowed.items() if isinstance(allowed, Mapping) else ((path, path) for path in allowed)
        self._mounts = {path.rstrip("/") or "/": mount.rstrip("/") or "/" for path, mount in pairs}

    def locate(self, root: str, worker: str) -> str:
        """The path of a source root on this host.

        Raises:
            SourceRefused: the root is not in the list of allowed sources.
        """
        if is_plain(root):
            for path in sorted(self._mounts, key=len, reverse=True):
                if is_at_or_below(root, path):
                    return os.path.join(self._mounts[path], root[len(path) :].lstrip("/")).rstrip("/") or "/"
        raise SourceRefused(f"worker {worker} was not given the source {root}", "add it to autosync_sources in its celeryconfig.py")


class MirrorSource:
    """One source of a mirror, on this host.

    Args:
        source: the source on the file host.
        local_root: the path of its root on this host.
        identity: the root directory, as the file host saw it; None: unknown.
        same_host: whether this process has the watcher's view of the files. Another view may lack file systems, or show changes late.
        rules: which files are sent.
        mounts: the mount points below the root, as the file host saw them, by path.
    """

    def __init__(
        self,
        source: Source,
        local_root: str,
        identity: Identity | None,
        *,
        same_host: bool,
        rules: FileRules,
        mounts: Mapping[str, Identity] | None = None,
    ) -> None:
        self.source = source
        self.local_root = local_root
        self._identity = identity
        self._same_host = same_host
        self._rules = rules
        #: The mount points by path relative to the root. Other hosts may have other mounts there.
        self._mounts = {self._relative(path): one for path, one in (mounts or {}).items()} if same_host else {}

    def open_root(self) -> int:
        """Open the root; the caller closes it.

        Raises:
            SourceUnsure: it cannot be opened.
        """
        try:
            return open_root(self.local_root)
        except OSError as error:
            raise SourceUnsure(f"source root {self.local_root}: {error.strerror}", "mount it, or correct autosync_sources") from error

    def open(self, path: str, root: int, directories: DirectoryCache | None = None) -> Opened:
        """Open a file of this source for reading, beneath its root.

        Args:
            path: on the file host.
            root: descriptor of the root, opened lately.
            directories: cache of the last directory; for files that are opened one right after the other.

        Returns:
            A regular file.

        Raises:
            Absent: the path names nothing (ENOENT, ENOTDIR), or something that is no file; or a link, where links are not followed.
            NotMirrored: a symbolic link on the path leads out of the source.
            SourceDenied: it may not be read.
            PermanentError: the kernel refuses the path, since it leads out of the source (EXDEV).
            SourceUnsure: the share fails.
        """
        try:
            descriptor = self._open(root, self._relative(path), directories)
        except OSError as error:
            if error.errno in (*_GONE, errno.ENXIO):  # the last is the error for a socket
                raise Absent from error
            if error.errno == errno.ELOOP:
                if self._rules.follow_links:
                    raise SourceUnsure(f"{path}: its links change while they are followed") from error
                raise Absent from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise SourceDenied(
                    f"{path} may not be read: {error.strerror}", "change its permissions, or the user of the worker"
                ) from error
            if error.errno == errno.EXDEV:
                raise PermanentError(f"{path} leads out of the source {self.source.root}") from error
            raise SourceUnsure(f"{path}: {error.strerror}") from error
        seen = os.fstat(descriptor)
        if stat.S_ISREG(seen.st_mode):
            return Opened(descriptor, seen)
        os.close(descriptor)
        raise Absent

    def inodes(self, paths: Iterable[str]) -> Iterator[int | None]:
        """The inode number of the file of each path at this moment. None: there is none. 0: a path like this takes more steps to resolve.

        Raises:
            SourceUnsure: the root cannot be opened.
        """
        root = self.open_root()
        try:
            with closing(DirectoryCache()) as directories:
                for path in paths:
                    try:
                        seen = directories.stat(root, self._relative(path))
                    except OSError as error:
                        yield None if error.errno == errno.ENOENT else 0
                    else:
                        yield seen.st_ino if stat.S_ISREG(seen.st_mode) else 0
        finally:
            os.close(root)

    def prove_absent(self, path: str) -> bool:
        """Whether the file system proves that nothing that is to be mirrored has this path at this moment.

        Returns:
            False if there is something after all.

        Raises:
            SourceReplaced: the root, or a mount point above the path, is another directory by now.
            SourceUnsure: the error is neither ENOENT nor ENOTDIR.
        """
        root = self.open_root()
        try:
            self._check_identity(root)
            relative = self._relative(path)
            real = self._real(root, relative)
            self._check_mounts(root, real)
            # When releases are switched, a link gets another target, and the old target is removed; then nothing is gone.
            return self._is_absent(root, real) and self._real(root, relative) == real
        except NotMirrored:
            return False
        except OSError as error:
            if error.errno == errno.ELOOP and not self._rules.follow_links:
                return True  # a link has replaced a directory; what was below is not in the tree
            raise SourceUnsure(f"{path} may be gone, and the source cannot prove it: {error.strerror}", "nothing is deleted") from error
        finally:
            os.close(root)

    def gone(self, paths: Iterable[str]) -> set[str]:
        """Those of the paths for which one check of their directory proves what `prove_absent` would prove. Others may be gone as well.

        Raises:
            SourceReplaced: the root is another directory by now.
        """
        by_directory: dict[str, list[tuple[str, str]]] = {}
        for path in paths:
            above, _, name = self._relative(path).rpartition("/")
            by_directory.setdefault(above, []).append((name, path))
        root = self.open_root()
        try:
            self._check_identity(root)
            return {path for above, found in by_directory.items() for path in self._gone_from(root, above, found)}
        finally:
            os.close(root)

    def _gone_from(self, root: int, above: str, found: list[tuple[str, str]]) -> list[str]:
        try:
            real = self._real(root, above) if above else ""
            self._check_mounts(root, f"{real}/")
            try:
                directory = open_directory_beneath(root, real)
            except OSError as error:
                if error.errno not in _GONE:
                    return []
                gone = [path for _, path in found]
            else:
                try:
                    gone = [path for name, path in found if _is_nothing(directory, name)]
                finally:
                    os.close(directory)
            return gone if not above or self._real(root, above) == real else []  # see `prove_absent`
        except (NotMirrored, OSError, SourceUnsure):
            return []

    def _relative(self, path: str) -> str:
        return path[len(self.source.root) :].lstrip("/")

    def _open(self, root: int, relative: str, directories: DirectoryCache | None) -> int:
        try:
            return directories.open(root, relative) if directories else open_beneath(root, relative)
        except OSError as error:
            # Without openat2, the error for a link on the path is ENOTDIR.
            if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not self._rules.follow_links:
                raise
            return open_beneath(root, self._resolve(root, relative))

    def _real(self, root: int, relative: str) -> str:
        return self._resolve(root, relative) if self._rules.follow_links else relative

    def _is_absent(self, root: int, relative: str) -> bool:
        """Whether there is neither a file nor a link that is still to be followed."""
        try:
            seen = self._lstat(root, relative)
        except OSError as error:
            if error.errno in _GONE:
                return True
            raise
        if stat.S_ISLNK(seen.st_mode):
            return not self._rules.follow_links
        return not stat.S_ISREG(seen.st_mode)

    def _lstat(self, root: int, relative: str) -> os.stat_result:
        parent, _, name = relative.rpartition("/")
        directory = open_directory_beneath(root, parent) if parent else os.dup(root)
        try:
            return os.stat(name or ".", dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)

    def _resolve(self, root: int, relative: str) -> str:
        """Absolute links have the paths of the file host."""
        return resolve_beneath(root, (self.source.root, *root_paths(self.local_root)), relative).real

    def _check_mounts(self, root: int, real: str) -> None:
        """Check that each mount point above a path is the directory that the file host saw. The path has no links.

        Raises:
            SourceReplaced: one of them is not.
        """
        for path, identity in self._mounts.items():
            if not real.startswith(slashed(path)):
                continue
            found: Identity | None = None
            with suppress(OSError):
                seen = self._lstat(root, path)
                found = Identity(seen.st_dev, seen.st_ino)
            if found != identity:
                raise SourceReplaced(f"{slashed(self.source.root)}{path} is not what was mounted there", "nothing below it is deleted")

    def _check_identity(self, root: int) -> None:
        """Check that the root is the directory that the file host saw. Another host cannot compare devices, and some file systems have
        other inode numbers on every client; there, an empty root proves nothing."""
        if self._identity is None:
            return
        seen = os.fstat(root)
        if self._same_host or self._identity == IN_DOUBT:
            if Identity(seen.st_dev, seen.st_ino) != self._identity:
                raise SourceReplaced(f"source root {self.local_root} is not the directory that it was", "nothing is deleted")
        elif seen.st_ino != self._identity.inode:
            with os.scandir(root) as entries:
                if next(entries, None) is None:
                    raise SourceReplaced(f"source root {self.local_root} is empty and may not be mounted", "nothing is deleted")


def mounts_below(source: Source, identities: Mapping[str, Identity]) -> dict[str, Identity]:
    """The mount points below the root of a source, among the identities of a mirror's definition."""
    return {path: one for path, one in identities.items() if path != source.root and source.holds(path)}


def _is_nothing(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        return error.errno == errno.ENOENT
    return False
