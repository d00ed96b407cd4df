"""What a worker may read, and what it may take as proof that a file is gone.

The allow list is the worker's own configuration; a definition that came through Redis can only choose from it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

from ..errors import PermanentError, SourceRefused, SourceUnsure
from ..model.keys import Source, is_plain, slashed
from ..model.mirror import Identity
from ..source.beneath import FILE_FLAGS, NotMirrored, open_beneath, open_directory_beneath, open_root, resolve_beneath, root_paths

#: A file that is not there, and a way to it that is none; anything else is no proof.
_GONE = (errno.ENOENT, errno.ENOTDIR)


class Absent(Exception):  # noqa: N818 - a finding, not an error
    """The path names no file."""


class Opened(NamedTuple):
    """A file that was opened for reading: its descriptor, and what fstat(2) said of it."""

    descriptor: int
    seen: os.stat_result


class DirectoryCache:
    """The way to the directory of a path, kept open for the next path, which is most often of the same directory. That there is no such
    directory is remembered as well: with one that was removed, a thousand keys are gone.

    A directory may be moved meanwhile, so whoever asks does so within milliseconds, and looks afterwards whether the file still stands
    where it was (`MirrorSource.inodes`), as is done after every transfer.
    """

    def __init__(self) -> None:
        self._directory, self._name = -1, ""
        self._nowhere: int | None = None  # what was said of that directory, if it was not there

    def open(self, root: int, relative: str) -> int:
        """Like `open_beneath`, for a file."""
        above, _, name = relative.rpartition("/")
        directory = self._to(root, above)
        if name in ("", ".", "..") or "\0" in name:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), relative)
        return os.open(name, FILE_FLAGS, dir_fd=directory)

    def stat(self, root: int, relative: str) -> os.stat_result:
        """What lstat(2) says of it."""
        above, _, name = relative.rpartition("/")
        return os.stat(name, dir_fd=self._to(root, above), follow_symlinks=False)

    def close(self) -> None:
        """Let go of the directory."""
        if self._directory >= 0:
            os.close(self._directory)
        self._directory = -1

    def _to(self, root: int, above: str) -> int:
        if self._nowhere is not None and above == self._name:
            raise OSError(self._nowhere, os.strerror(self._nowhere), above)
        if self._directory < 0 or above != self._name:
            self.close()
            self._name, self._nowhere = above, None
            try:
                self._directory = open_directory_beneath(root, above)
            except OSError as error:
                if error.errno in _GONE:
                    self._nowhere = error.errno
                raise
        return self._directory


class AllowedSources:
    """The source roots that a worker may read, and where it mounts them.

    Args:
        allowed: paths as the file host writes them; a mapping says where each is on this host.
    """

    def __init__(self, allowed: Iterable[str] | Mapping[str, str]) -> None:
        pairs = allowed.items() if isinstance(allowed, Mapping) else ((path, path) for path in allowed)
        self._mounts = {path.rstrip("/") or "/": mount.rstrip("/") or "/" for path, mount in pairs}

    def locate(self, root: str, worker: str) -> str:
        """Where a source root is on this host.

        Raises:
            SourceRefused: this worker was not given it.
        """
        if is_plain(root):
            for path in sorted(self._mounts, key=len, reverse=True):
                if root == path or root.startswith(slashed(path)):
                    return os.path.join(self._mounts[path], root[len(path) :].lstrip("/")).rstrip("/") or "/"
        raise SourceRefused(f"worker {worker} was not given the source {root}", "add it to autosync_sources in its celeryconfig.py")


class MirrorSource:
    """One source of a mirror, as this worker sees it.

    Args:
        source: what it is on the file host.
        here: where its root is on this host.
        identity: which directory the root is, as the file host saw it; None if that is not known.
        same_host: whether this is the file host.
        follow: whether links are followed.
    """

    def __init__(self, source: Source, here: str, identity: Identity | None, *, same_host: bool, follow: bool = True) -> None:
        self.source = source
        self._here = here
        self._identity = identity
        self._same_host = same_host
        self._follow = follow

    def open_root(self) -> int:
        """Open the root; the caller closes it.

        Raises:
            SourceUnsure: it is not there.
        """
        try:
            return open_root(self._here)
        except OSError as error:
            raise SourceUnsure(f"source root {self._here}: {error.strerror}", "mount it, or correct autosync_sources") from error

    def open(self, path: str, root: int, way: DirectoryCache | None = None) -> Opened:
        """Open a file of this source for reading, beneath its root.

        Args:
            path: as the file host writes it.
            root: the root, opened lately.
            way: to the directory of the last one; for files that are opened one right after the other.

        Returns:
            A regular file.

        Raises:
            Absent: the path names nothing (ENOENT, ENOTDIR), or something that is no file; or a link, where links are not followed.
            NotMirrored: there is a link that leads out.
            PermanentError: it may not be read.
            SourceUnsure: the share fails.
        """
        try:
            descriptor = self._open(root, self._relative(path), way)
        except OSError as error:
            if error.errno in (*_GONE, errno.ENXIO):  # the last is said of a socket
                raise Absent from error
            if error.errno == errno.ELOOP:
                if self._follow:
                    raise SourceUnsure(f"{path}: its links change while they are followed") from error
                raise Absent from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise PermanentError(
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
        """Which file each path names at this moment, by its inode number: None if none, 0 if that takes a closer look.

        Raises:
            SourceUnsure: the root cannot be opened.
        """
        root = self.open_root()
        try:
            with closing(DirectoryCache()) as way:
                for path in paths:
                    try:
                        seen = way.stat(root, self._relative(path))
                    except OSError as error:
                        yield None if error.errno == errno.ENOENT else 0
                    else:
                        yield seen.st_ino if stat.S_ISREG(seen.st_mode) else 0
        finally:
            os.close(root)

    def prove_absent(self, path: str) -> bool:
        """Whether nothing that is to be mirrored has this path, on the word of the file system, at this moment.

        Returns:
            False if there is something after all.

        Raises:
            SourceUnsure: the root is not the directory that it was, or the share does not say ENOENT or ENOTDIR.
        """
        root = self.open_root()
        try:
            self._trust(root)
            relative = self._relative(path)
            real = self._real(root, relative)
            # What a link led to may be removed as soon as the link leads elsewhere, as releases are switched; then nothing is gone.
            return self._is_absent(root, real) and self._real(root, relative) == real
        except NotMirrored:
            return False
        except OSError as error:
            if error.errno == errno.ELOOP and not self._follow:
                return True  # a link stands where a directory was; what was below is not in the tree
            raise SourceUnsure(f"{path} may be gone, but the source said: {error.strerror}", "nothing is deleted") from error
        finally:
            os.close(root)

    def gone(self, paths: Iterable[str]) -> set[str]:
        """Those of the paths of which `prove_absent` is plainly true; most are found in one glance at their directory. What takes a closer
        look is not among them.

        Raises:
            SourceUnsure: the root is not the directory that it was.
        """
        by_directory: dict[str, list[tuple[str, str]]] = {}
        for path in paths:
            above, _, name = self._relative(path).rpartition("/")
            by_directory.setdefault(above, []).append((name, path))
        root = self.open_root()
        try:
            self._trust(root)
            return {path for above, found in by_directory.items() for path in self._gone_from(root, above, found)}
        finally:
            os.close(root)

    def _gone_from(self, root: int, above: str, found: list[tuple[str, str]]) -> list[str]:
        try:
            real = self._real(root, above) if above else ""
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
        except (NotMirrored, OSError):
            return []

    def _relative(self, path: str) -> str:
        return path[len(self.source.root) :].lstrip("/")

    def _open(self, root: int, relative: str, way: DirectoryCache | None) -> int:
        try:
            return way.open(root, relative) if way else open_beneath(root, relative)
        except OSError as error:
            # Without openat2, a link to a directory on the way is told as ENOTDIR.
            if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not self._follow:
                raise
            return open_beneath(root, self._resolve(root, relative))

    def _real(self, root: int, relative: str) -> str:
        return self._resolve(root, relative) if self._follow else relative

    def _is_absent(self, root: int, relative: str) -> bool:
        """Whether no file is there, nor a link that is still to be followed."""
        try:
            seen = self._lstat(root, relative)
        except OSError as error:
            if error.errno in _GONE:
                return True
            raise
        if stat.S_ISLNK(seen.st_mode):
            return not self._follow
        return not stat.S_ISREG(seen.st_mode)

    def _lstat(self, root: int, relative: str) -> os.stat_result:
        parent, _, name = relative.rpartition("/")
        directory = open_directory_beneath(root, parent) if parent else os.dup(root)
        try:
            return os.stat(name or ".", dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)

    def _resolve(self, root: int, relative: str) -> str:
        """Absolute links are written as the file host sees the source."""
        return resolve_beneath(root, (self.source.root, *root_paths(self._here)), relative).real

    def _trust(self, root: int) -> None:
        """The root must be the directory that the file host saw. Another host cannot compare devices, and some file systems show every
        client other inodes; there, a root that holds nothing proves nothing."""
        if self._identity is None:
            return
        seen = os.fstat(root)
        if self._same_host:
            if (seen.st_dev, seen.st_ino) != (self._identity.device, self._identity.inode):
                raise SourceUnsure(f"source root {self._here} is not the directory that it was", "nothing is deleted")
        elif seen.st_ino != self._identity.inode:
            with os.scandir(root) as entries:
                if next(entries, None) is None:
                    raise SourceUnsure(f"source root {self._here} is empty and may not be mounted", "nothing is deleted")


def _is_nothing(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        return error.errno == errno.ENOENT
    return False
