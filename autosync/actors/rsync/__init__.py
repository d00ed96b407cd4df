"""A module of an rsync server, through the rsync program: one process for many files.

rsync reads what it sends by itself, and would send a file half old, half new. So it is given copies, each of one version.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import ClassVar, cast

import click

from ...actor import Actor, SecretOption
from ...errors import ConfigurationError, PermanentError, TargetError
from ...files import File, Listing, Page, PagedListing
from ...source.source_file import SourceFile
from .._names import path_segments
from .listing import LIST, only_below, only_these, pages
from .program import lines, run

_CONTAINER = re.compile(r"rsync://[^/]+/[^/]+(/.*)?|[^-/:][^/:]*::[^/]+(/.*)?")
#: Listed in place of a checksum: rsync can compare content by checksums of its own.
_COMPARABLE = "content"
#: Sent as they are, whatever size and time the other side has; with their times; modes are left to the server.
_SEND = ("-rtO", "--ignore-times")
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

    def check(self) -> None:
        """See that the module is there and may be listed. Whether it may be written shows with the first file."""
        self._run([*LIST, "--exclude=*", self._url], f"module {self.target_container}")

    def list(self, prefix: str = "") -> Listing:
        """The files in the module, in rsync's order. A file system does not tell `a//b` from `a/b`; keys come as the prefix writes them."""
        return PagedListing(self._pages(prefix), already_sorted=False)

    def _pages(self, prefix: str) -> Iterator[Page]:
        written, slash, _ = prefix.rpartition("/")
        parts = [part for part in written.split("/") if part]
        if {".", ".."} & {*parts} or "\0" in prefix:
            return
        before, cut = written + slash, len("/".join(parts)) + bool(parts)
        words = [*LIST, *only_below(parts), self._url]
        with closing(lines(words, self.rsync_password or "", f"module {self.target_container}")) as rows:
            for page in pages(rows, "", _COMPARABLE):
                yield Page([before + key[cut:] for key in page.keys], page.sizes, page.times, page.etags)

    def upload(self, file: File) -> None:
        """Send one file."""
        (answer,) = self.upload_many([file])
        if answer is not None:
            raise answer

    @property
    def sends_together(self) -> bool:
        """One process for all."""
        return True

    def upload_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Copy all, and send the copies with one process. Where that fails, each is sent by itself and says how it fares."""
        answers: dict[int, Exception | None] = {}
        with self._stage() as stage:
            for number, file in enumerate(files):
                try:
                    _copy(cast(SourceFile, file), stage)
                    answers[number] = None
                except Exception as error:
                    answers[number] = error
            sent = [number for number, error in answers.items() if error is None]
            try:
                if sent:
                    self._run([*_SEND, f"{stage}/", self._url], files[sent[0]].key)
            except TargetError as error:
                if len(sent) == 1:
                    answers[sent[0]] = error
                else:
                    answers |= {number: self._alone(files[number]) for number in sent}
        return [answers[number] for number in range(len(files))]

    def _alone(self, file: File) -> Exception | None:
        try:
            self.upload(file)
        except Exception as error:
            return error
        return None

    def delete(self, file: File) -> None:
        """Delete one file."""
        (answer,) = self.delete_many([file])
        if answer is not None:
            raise answer

    def delete_many(self, files: Sequence[File]) -> Sequence[Exception | None]:
        """Compare an empty directory with the module, of which rules leave only these keys and the directories above them: rsync deletes
        what it finds, and directories that are empty then."""
        answers: list[Exception | None] = []
        keys: list[list[str]] = []
        for file in files:
            try:
                keys.append(path_segments(file.key))
                answers.append(None)
            except PermanentError as error:
                answers.append(error)
        if keys:
            with self._stage() as empty:
                words = ["-r", "--delete", "--from0", "--include-from=-", "--exclude=*", f"{empty}/", self._url]
                run(words, self.rsync_password or "", files[0].key, only_these(keys))
        return answers

    def can_match(self, listed: File) -> bool:
        """Always: rsync compares content."""
        return listed.etag == _COMPARABLE

    def matches(self, file: File, etag: str) -> bool:
        """Have rsync compare checksums, and change nothing."""
        source = cast(SourceFile, file)
        with self._stage() as stage:
            os.symlink(f"/proc/{os.getpid()}/fd/{source.descriptor}", _place(file.key, stage))
            found = self._run(["-rnLc", "--out-format=%i", f"{stage}/", self._url], file.key)
        source.verify()
        return not any(line.startswith(b"<f") for line in found.splitlines())

    def _run(self, words: Sequence[str], about: str) -> bytes:
        return run(words, self.rsync_password or "", about)

    @contextmanager
    def _stage(self) -> Iterator[str]:
        """A directory for what is to be sent; it goes with its end."""
        try:
            stage = tempfile.mkdtemp(prefix="autosync-rsync-", dir=self.staging)
        except OSError as error:
            raise TargetError(f"staging directory {self.staging or tempfile.gettempdir()}: {error.strerror}", "see --staging") from error
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _place(key: str, stage: str) -> str:
    """The path of a key below the stage, with the directories on its way made; their modes are what the server's umask leaves of them."""
    path = os.path.join(stage, *path_segments(key))
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as error:
        raise _unplaced(key, error) from error
    return path


def _copy(file: SourceFile, stage: str) -> None:
    """Put one version of a file there, or nothing."""
    path = _place(file.key, stage)
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
        raise _unplaced(file.key, error) from error


def _unplaced(key: str, error: OSError) -> TargetError:
    kind = PermanentError if error.errno in _UNNAMABLE else TargetError
    return kind(f"{key}: cannot be copied to be sent: {error.strerror}")
