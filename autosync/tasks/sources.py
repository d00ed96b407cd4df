"""What a worker may read, and what it may take as proof that a file is gone.

The allow list is the worker's own configuration; a definition that came through Redis can only choose from it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping

from ..errors import PermanentError, SourceRefused, SourceUnsure
from ..keys import Source, is_plain, slashed
from ..mirror import Identity
from ..tree import open_beneath, open_directory_beneath, open_root

#: A file that is not there, and a way to it that is none; anything else is no proof.
_GONE = (errno.ENOENT, errno.ENOTDIR)


class Absent(Exception):  # noqa: N818 - a finding, not an error
    """The path names no file."""


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
    """

    def __init__(self, source: Source, here: str, identity: Identity | None, *, same_host: bool) -> None:
        self.source = source
        self._here = here
        self._identity = identity
        self._same_host = same_host

    def open(self, path: str) -> int:
        """Open a file of this source for reading, beneath its root.

        Returns:
            A descriptor; it may still be of something else than a regular file.

        Raises:
            Absent: the path names nothing (ENOENT, ENOTDIR), or a link or socket, which autosync does not send.
            PermanentError: it may not be read, or leads out of the source.
            SourceUnsure: the share fails.
        """
        root = self._root()
        try:
            return open_beneath(root, path[len(self.source.root) :].lstrip("/"))
        except OSError as error:
            if error.errno in (*_GONE, errno.ELOOP, errno.ENXIO):
                raise Absent from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise PermanentError(
                    f"{path} may not be read: {error.strerror}", "change its permissions, or the user of the worker"
                ) from error
            if error.errno == errno.EXDEV:
                raise PermanentError(f"{path} leads out of the source {self.source.root}") from error
            raise SourceUnsure(f"{path}: {error.strerror}") from error
        finally:
            os.close(root)

    def prove_absent(self, path: str) -> bool:
        """Whether nothing that is to be mirrored has this path, on the word of the file system, at this moment.

        Returns:
            False if there is something after all.

        Raises:
            SourceUnsure: the root is not the directory that it was, or the share does not say ENOENT or ENOTDIR.
        """
        root = self._root()
        try:
            self._trust(root)
            relative = path[len(self.source.root) :].lstrip("/")
            parent, _, name = relative.rpartition("/")
            directory = open_directory_beneath(root, parent) if parent else os.dup(root)
            try:
                seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
            finally:
                os.close(directory)
            return not _is_file(seen)
        except OSError as error:
            if error.errno in _GONE:
                return True
            if error.errno == errno.ELOOP:
                return True  # a link stands where a directory was; what was below is not in the tree
            raise SourceUnsure(f"{path} may be gone, but the source said: {error.strerror}", "nothing is deleted") from error
        finally:
            os.close(root)

    def _root(self) -> int:
        try:
            return open_root(self._here)
        except OSError as error:
            raise SourceUnsure(f"source root {self._here}: {error.strerror}", "mount it, or correct autosync_sources") from error

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


def _is_file(seen: os.stat_result) -> bool:
    return (seen.st_mode & 0o170000) == 0o100000
