"""A module of an rsync server, through the rsync program: one process for many files.

rsync would send a file that changes meanwhile half old and half new. So it sends copies, each of one version.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import ClassVar, cast

import click

from ...actor import Actor, SecretOption
from ...errors import ConfigurationError, PermanentError, TargetError
from ...files import File, Listing, Page, PagedListing
from ...model.text import printable
from ...source.source_file import SourceFile
from .._key_checks import path_segments
from .listing import LIST, any_of, no_directories, only_below, only_these, pages
from .program import lines, run

_CONTAINER = re.compile(r"rsync://[^/]+/[^/]+(/.*)?|[^-/:][^/:]*::[^/]+(/.*)?")
#: Listed in place of an ETag: rsync can compare content by its own checksums.
_CONTENT_ETAG = "content"
#: Options for sending: every file, whatever size and time the server has; with its times; the server decides on modes.
_SEND = ("-rtO", "--ignore-times")
#: The most directories of a module that are remembered.
_MOST_DIRECTORIES = 10_000
_UNNAMABLE = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


class RsyncActor(Actor):
    """`host::module`, or `rsync://host:port/module`. Modification times are kept; modes and owners are the server's."""

    container_is: ClassVar[str] = "module, as host::module or rsync://host/module"
    options: ClassVar[Sequence[click.Option]] = (
        SecretOption(["--rsync-password"], help="Password of the user that --target-container names."),
        click.Option(
            ["--staging"], type=click.Path(), metavar="DIR", help="Where files are copied to before they are sent.  [default: the system's]"
        ),
    )

    rsync_password: str | None = None
    staging: str | None = None

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        if not _CONTAINER.fullmatch(str(self.target_container)):
            raise ConfigurationError(
                f"--target-container {self.target_container} is no module of an rsync server", "write host::module or rsync://host/module"
            )
        self.staging = os.path.abspath(self.staging) if self.staging else None
        self._url = f"{str(self.target_container).rstrip('/')}/"
        #: Directories of the module into which files were sent.
        self._directories: set[str] = set()

    def check(self) -> None:
        """Check that the module exists and may be listed. Whether it may be written is known only after the first file."""
        self._run([*LIST, "--exclude=*", self._url], f"module {self.target_container}")

    def check_key(self, key: str) -> None:
        """See `Actor.check_key`. A path has no `.` and no `..`; empty parts are left out."""
        path_segments(key)

    def list(self, prefix: str = "") -> Listing:
        """The files in the module, in rsync's order. For a file system `a//b` is `a/b`; the keys returned begin with the prefix as it is
        written."""
        return PagedListing(self._pages(prefix), already_sorted=False)

    def _pages(self, prefix: str) -> Iterator[Page]:
        parent, slash, _ = prefix.rpartition("/")
        parts = [part for part in parent.split("/") if part]
        if {".", ".."} & {*parts} or "\0" in prefix:
            return
        before, cut = parent + slash, len("/".join(parts)) + bool(parts)
        arguments = [*LIST, *only_below(parts), self._url]
        with closing(lines(arguments, self.rsync_password or "", f"module {self.target_container}")) as rows:
            for page in pages(rows, "", _CONTENT_ETAG):
                yield Page([before + key[cut:] for key in page.keys], page.sizes, page.times, page.etags)

    def upload(self, file: File) -> None:
        """Send one file."""
        (error,) = self.upload_many([file])
        if error is not None:
            raise error

    @property
    def sends_together(self) -> bool:
        """One process for all."""
        return True

    def upload_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Copy all files, and send the copies with one process. If it fails, send each file by itself, so that each has its own error.

        rsync would delete a file or a link in the place of a directory; so what is above the files is looked up before."""
        results: dict[int, Exception | None] = {}
        try:
            obstacles = self._obstacles([file.key for file in files])
        except TargetError as error:
            return [error] * len(files)
        with self._stage() as stage:
            for number, file in enumerate(files):
                try:
                    _refuse_obstacles(file.key, obstacles)
                    _copy(cast(SourceFile, file), stage)
                    results[number] = None
                except Exception as error:
                    results[number] = error
            sent = [number for number, error in results.items() if error is None]
            try:
                if sent:
                    self._run([*_SEND, f"{stage}/", self._url], files[sent[0]].key)
                    self._remember_directories(files[number].key for number in sent)
            except TargetError as error:
                if len(sent) == 1:
                    results[sent[0]] = error
                else:
                    results |= {number: self._alone(files[number]) for number in sent}
        return [results[number] for number in range(len(files))]

    def _obstacles(self, keys: Sequence[str]) -> dict[str, str]:
        """What is in the module where directories for these keys are to be, by path."""
        paths = {path: None for key in keys for path in _directories_of(key)}
        if paths.keys() <= self._directories:
            return {}
        arguments = [*LIST, "--links", "--from0", "--include-from=-", "--exclude=*", self._url]
        return no_directories(run(arguments, self.rsync_password or "", keys[0], any_of(paths)), paths.keys())

    def _remember_directories(self, keys: Iterable[str]) -> None:
        if len(self._directories) > _MOST_DIRECTORIES:
            self._directories.clear()
        self._directories.update(path for key in keys for path in _directories_of(key))

    def _alone(self, file: File) -> Exception | None:
        try:
            self.upload(file)
        except Exception as error:
            return error
        return None

    def delete(self, file: File) -> None:
        """Delete one file."""
        (error,) = self.delete_many([file])
        if error is not None:
            raise error

    def delete_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Have rsync make the module equal to an empty directory. Filter rules hide everything but these keys and the directories above
        them, so rsync deletes these files, and the directories that are empty then."""
        results: list[Exception | None] = []
        keys: list[list[str]] = []
        for file in files:
            try:
                keys.append(path_segments(file.key))
                results.append(None)
            except PermanentError as error:
                results.append(error)
        if keys:
            self._directories.difference_update(path for file in files for path in _directories_of(file.key))  # they may be removed
            with self._stage() as empty:
                arguments = ["-r", "--delete", "--from0", "--include-from=-", "--exclude=*", f"{empty}/", self._url]
                run(arguments, self.rsync_password or "", files[0].key, only_these(keys))
        return results

    def can_match(self, listed: File) -> bool:
        """See `Actor.can_match`. True, since rsync can compare content."""
        return listed.etag == _CONTENT_ETAG

    def matches(self, file: File, etag: str) -> bool:
        """Have rsync compare checksums, and change nothing."""
        source = cast(SourceFile, file)
        with self._stage() as stage:
            os.symlink(f"/proc/{os.getpid()}/fd/{source.descriptor}", _staged_path(file.key, stage))
            output = self._run(["-rnLc", "--out-format=%i", f"{stage}/", self._url], file.key)
        source.verify()
        return not any(line.startswith(b"<f") for line in output.splitlines())

    def _run(self, arguments: Sequence[str], about: str) -> bytes:
        return run(arguments, self.rsync_password or "", about)

    @contextmanager
    def _stage(self) -> Iterator[str]:
        """A temporary directory for copies, removed after the with-block."""
        try:
            stage = tempfile.mkdtemp(prefix="autosync-rsync-", dir=self.staging)
        except OSError as error:
            raise TargetError(f"staging directory {self.staging or tempfile.gettempdir()}: {error.strerror}", "see --staging") from error
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _directories_of(key: str) -> Iterator[str]:
    """The paths of the directories above a key, relative to the module. None if no file can have this key."""
    with suppress(PermanentError):
        *parents, _ = path_segments(key)
        yield from ("/".join(parents[:depth]) for depth in range(1, len(parents) + 1))


def _refuse_obstacles(key: str, obstacles: dict[str, str]) -> None:
    """Raise `TargetError` if one of the obstacles is above a key. A task may delete it, so the key is tried again."""
    for path in _directories_of(key) if obstacles else ():
        if path in obstacles:
            what = f"{key}: {printable(path)} is {obstacles[path]} in the module, and a directory is needed there"
            raise TargetError(what, "move it elsewhere, or delete it")


def _staged_path(key: str, stage: str) -> str:
    """The path of a key in the staging directory. The directories above it are made; the server's umask decides on their modes there."""
    path = os.path.join(stage, *path_segments(key))
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as error:
        raise _staging_error(key, error) from error
    return path


def _copy(file: SourceFile, stage: str) -> None:
    """Copy one version of a file to the staging directory, or nothing."""
    path = _staged_path(file.key, stage)
    try:
        with open(path, "xb") as copy, file.open() as source:
            try:
                shutil.copyfileobj(source, copy, 1 << 20)
                os.fchmod(copy.fileno(), 0o666)
                copy.flush()
                os.utime(copy.fileno(), ns=(file.mtime_ns, file.mtime_ns))
            except BaseException:
                os.unlink(path)
                raise
    except OSError as error:
        raise _staging_error(file.key, error) from error


def _staging_error(key: str, error: OSError) -> TargetError:
    kind = PermanentError if error.errno in _UNNAMABLE else TargetError
    return kind(f"{key}: cannot be copied to be sent: {error.strerror}")
