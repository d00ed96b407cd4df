"""A directory as target. An object appears under its name only when it is complete and on the disk. No path leads out of the container."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar

from ..actor import Actor
from ..errors import PermanentError, TargetError, TargetRefused
from ..files import File, Listing
from ..model.text import printable
from ..source.beneath import open_beneath, open_directory_beneath, open_root
from ..source.walk import Walk
from ._key_checks import path_segments

#: Names of the temporary files that uploads write. The pattern is the same in all versions, because workers of several may share a target.
_TEMPORARY = re.compile(r"\.autosync-[0-9a-f]{16}")
#: Listed in place of an ETag: `matches` compares the content itself.
_CONTENT_ETAG = "content"
#: Bytes compared at once.
_BLOCK = 1 << 20
#: A temporary file older than this, in seconds, was left by a worker that was killed.
_STALE = 86_400.0
#: How often a directory is searched for such files, in seconds, and how many directories are searched within that time.
_CLEAN_UP_INTERVAL, _MOST_CLEANED = 86_400.0, 10_000
#: How often an upload is tried if another transfer removes the empty directory at the same moment.
_MAKE_TRIES = 5
#: Of a file of this size, in bytes, or a larger one, it is checked before the first byte whether a directory has its name.
_LARGE = 1 << 20
#: A directory with more levels of directories below it is not removed: each level takes a descriptor.
_DEEPEST = 64
_MOVE_IT = "move it elsewhere, or delete it"


class FileActor(Actor):
    """Copies files into `--target-container`, a directory. Modification times are kept; modes and owners are not."""

    container_is: ClassVar[str] = "directory to copy into"

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.target_container = os.path.abspath(str(self.target_container))
        self.directory = os.path.realpath(self.target_container)
        self._cleaned: set[str] = set()
        self._cleaned_since = time.monotonic()

    def check(self) -> None:
        """Check that the container exists and may be read and written."""
        container = str(self.target_container)
        if not os.path.isdir(container):
            raise TargetRefused(f"target container {container} is not a directory", "create it first, or mount it")
        if not os.access(container, os.R_OK | os.W_OK | os.X_OK):
            raise TargetRefused(f"target container {container} may not be read and written", "change its permissions or owner")

    def check_key(self, key: str) -> None:
        """See `Actor.check_key`. A path has no `.` and no `..`; empty parts are left out."""
        _path_of(key)

    def list(self, prefix: str = "") -> Listing:
        """The files in the container. For a file system `a//b` is `a/b`; the keys returned begin with the prefix as it is written."""
        return Listing(self._files(prefix), already_sorted=True)

    def _files(self, prefix: str) -> Iterator[File]:
        container = str(self.target_container)
        parent, slash, _ = prefix.rpartition("/")
        top = os.path.normpath(f"{container}/{parent}")
        try:
            os.close(open_root(container))
        except OSError as error:
            raise TargetError(f"target container {container}: {error.strerror}") from error
        walk = Walk(container, top)
        for found in walk:
            if found.skipped:
                continue
            if _is_temporary(found.path.rpartition("/")[2]):
                continue  # it may be the upload of another worker
            key = parent + slash + found.path[len(top.rstrip("/")) + 1 :]
            if key.startswith(prefix):
                yield File(key, found.size, found.changed, _CONTENT_ETAG)
        if walk.errors:
            raise TargetError(f"target {walk.errors[0].filename}: {walk.errors[0].strerror}")

    def can_match(self, listed: File) -> bool:
        """See `Actor.can_match`. True, since the content can be read."""
        return listed.etag == _CONTENT_ETAG

    def matches(self, file: File, etag: str) -> bool:
        """Compare the content byte by byte."""
        *parents, name = path_segments(file.key)
        try:
            with self._container() as container:
                descriptor = open_beneath(container, "/".join([*parents, name]))
        except OSError:
            return False
        with os.fdopen(descriptor, "rb") as copy, file.open() as source:
            while ours := source.read(_BLOCK):
                if copy.read(len(ours)) != ours:
                    return False
            return not copy.read(1)

    def upload(self, file: File) -> None:
        """Write a temporary file in the same directory, sync it to the disk, rename it. A directory in its place is removed if it holds
        nothing but empty directories and stale temporary files. A file in place of a directory stays: a task of its own deletes it, if the
        source does not have it, and this upload is tried again."""
        *parents, name = _path_of(file.key)
        for attempt in range(_MAKE_TRIES):
            with _translated(file.key), self._container() as container:
                directory = self._make_directories(file.key, container, parents)
                try:
                    _write(file, directory, name, str(self.target_container), removes_stale=self._is_clean_up_due("/".join(parents)))
                    return
                except FileNotFoundError:
                    if attempt == _MAKE_TRIES - 1:
                        raise
                finally:
                    os.close(directory)

    def delete(self, file: File) -> None:
        """Remove the file, and the directories above it that are empty then."""
        *parents, name = path_segments(file.key)
        if _is_temporary(name):
            return  # no object has such a name, and the file may be the upload of another worker
        with _translated(file.key), self._container() as container:
            try:
                directory = open_directory_beneath(container, "/".join(parents))
            except (FileNotFoundError, NotADirectoryError):
                return
            try:
                if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                    return  # a directory is no object
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                return
            finally:
                os.close(directory)
            _remove_empty(container, parents)

    def _make_directories(self, key: str, container: int, parents: Sequence[str]) -> int:
        """Open the directory of a key, and make the directories that are missing. Links are not followed."""
        here = os.dup(container)
        for depth, name in enumerate(parents, 1):
            try:
                deeper = _open_or_make(here, name)
            except NotADirectoryError as error:
                place = printable("/".join([str(self.target_container), *parents[:depth]]))
                raise TargetError(f"{key}: {place} is {_kind_of(here, name)}, and a directory is needed there", _MOVE_IT) from error
            finally:
                os.close(here)
            here = deeper
        return here

    def _is_clean_up_due(self, directory: str) -> bool:
        """Whether a directory is to be searched for stale temporary files now. True once in `_CLEAN_UP_INTERVAL` for each directory."""
        now = time.monotonic()
        if now - self._cleaned_since > _CLEAN_UP_INTERVAL:
            self._cleaned, self._cleaned_since = set(), now
        if directory in self._cleaned or len(self._cleaned) >= _MOST_CLEANED:
            return False
        self._cleaned.add(directory)
        return True

    @contextmanager
    def _container(self) -> Iterator[int]:
        container = open_root(str(self.target_container))
        try:
            yield container
        finally:
            os.close(container)


def _path_of(key: str) -> list[str]:
    """The names of the directories of a key and of its file; the last is the file's.

    Raises:
        PermanentError: no file that is sent can have this key.
    """
    segments = path_segments(key)
    if _is_temporary(segments[-1]):
        raise PermanentError(f"{key}: autosync's own temporary files have such names", "rename the file")
    return segments


def _open_or_make(parent: int, name: str) -> int:
    try:
        return open_directory_beneath(parent, name)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
        return open_directory_beneath(parent, name)


def _kind_of(parent: int, name: str) -> str:
    """What a name that is no directory is, for people."""
    with suppress(OSError):
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        return "a link, which is not followed" if stat.S_ISLNK(mode) else "a file" if stat.S_ISREG(mode) else "no directory"
    return "no directory"


def _write(file: File, directory: int, name: str, container: str, *, removes_stale: bool) -> None:
    """Write a file into a directory.

    Args:
        file: the file.
        directory: descriptor of the directory.
        name: the file's name in the directory.
        container: path of the container, for messages.
        removes_stale: whether stale temporary files of the directory are removed.
    """
    temporary = f".autosync-{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=directory)
    try:
        if removes_stale:
            _remove_stale(directory, os.fstat(descriptor).st_ctime)
        with os.fdopen(descriptor, "wb", buffering=0) as target, file.open() as source:
            if file.size >= _LARGE and _is_directory(directory, name):
                _remove_abandoned_directory(file.key, directory, name, container, os.fstat(descriptor).st_ctime)
            shutil.copyfileobj(source, target, 1 << 20)
            os.utime(descriptor, (file.mtime, file.mtime))
            os.fsync(descriptor)
        try:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except IsADirectoryError:
            now = os.stat(temporary, dir_fd=directory, follow_symlinks=False).st_ctime
            _remove_abandoned_directory(file.key, directory, name, container, now)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise


def _remove_abandoned_directory(key: str, parent: int, name: str, container: str, now: float) -> None:
    """Remove the directory in the place of a key, if it holds nothing but empty directories and stale temporary files.

    Args:
        key: the key, for messages.
        parent: descriptor of the directory that holds it.
        name: the directory's name.
        container: path of the container, for messages.
        now: see `_remove_stale`.

    Raises:
        TargetError: it holds something else, or cannot be removed. A task that deletes a key below it may be on its way.
    """
    place = printable(f"{container}/{key}")
    try:
        other = _find_other(parent, name, now)
        if other is not None:
            what = "a mount point" if other == "." else f"a directory with {printable(other)} in it"
            raise TargetError(f"{key}: {place} is {what}, and a file is to be there", _MOVE_IT)
        _remove_tree(parent, name, now)
    except FileNotFoundError:
        return  # another transfer has removed it
    except OSError as error:
        raise TargetError(f"{key}: the directory {place} is in the place of a file, and stays: {error.strerror}", _MOVE_IT) from error


def _find_other(parent: int, name: str, now: float, depth: int = 0) -> str | None:
    """The path, relative to a directory, of something in it that is neither a directory nor a stale temporary file; "." for a mount point
    or a directory that is too deep. None: there is nothing else."""
    with _opened(parent, name) as directory, os.scandir(directory) as entries:
        if depth > _DEEPEST or os.fstat(directory).st_dev != os.fstat(parent).st_dev:
            return "."
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                other = _find_other(directory, entry.name, now, depth + 1)
                if other is not None:
                    return os.path.normpath(f"{entry.name}/{other}")
            elif not _is_stale(directory, entry.name, now):
                return entry.name
    return None


def _remove_tree(parent: int, name: str, now: float) -> None:
    """Remove a directory with its stale temporary files and the directories below it.

    Raises:
        OSError: it holds something else.
    """
    with _opened(parent, name) as directory, os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(directory, entry.name, now)
            elif _is_stale(directory, entry.name, now):
                os.unlink(entry.name, dir_fd=directory)
    os.rmdir(name, dir_fd=parent)


@contextmanager
def _opened(parent: int, name: str) -> Iterator[int]:
    directory = open_directory_beneath(parent, name)
    try:
        yield directory
    finally:
        os.close(directory)


def _is_directory(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _remove_empty(container: int, parents: list[str]) -> None:
    for depth in range(len(parents), 0, -1):
        try:
            above = open_directory_beneath(container, "/".join(parents[: depth - 1]))
        except OSError:
            return
        try:
            os.rmdir(parents[depth - 1], dir_fd=above)
        except OSError:
            return  # it is not empty, or another program's
        finally:
            os.close(above)


def _is_temporary(name: str) -> bool:
    return _TEMPORARY.fullmatch(name) is not None


def _remove_stale(directory: int, now: float) -> None:
    """Remove stale temporary files of a directory. Their ctime counts, since their mtime becomes that of the file that is copied.

    Args:
        directory: descriptor of the directory.
        now: the time in seconds since the epoch, on the clock of the file system, which may be a server's.
    """
    with suppress(OSError), os.scandir(directory) as entries:
        for name in [entry.name for entry in entries if _is_temporary(entry.name)]:
            with suppress(OSError):
                if _is_stale(directory, name, now):
                    os.unlink(name, dir_fd=directory)


def _is_stale(directory: int, name: str, now: float) -> bool:
    """Whether a name in a directory is that of a stale temporary file; see `_remove_stale`."""
    if not _is_temporary(name):
        return False
    seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return stat.S_ISREG(seen.st_mode) and now - seen.st_ctime > _STALE


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{key}: {error.strerror or error}"
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EFBIG):
            raise PermanentError(message) from error
        raise TargetError(message) from error
