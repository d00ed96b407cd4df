"""A file in the state directory with what a mirror must remember although its broker may forget it: a JSON object, one field a subject."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_SUFFIX = ".mirror.json"
#: Suffix of the file with an operator's requests. It is another file, since `autosync-ctl` writes it.
_REQUESTS_SUFFIX = ".requests.json"


class StateFile:
    """The state file of one mirror. Safe to use from many threads of one process; only the watcher of the mirror writes it.

    A file that cannot be read counts as empty, and one that cannot be written is logged once: the ledger has the same fields, and if both
    are lost, the target keeps what it holds.

    Args:
        directory: the state directory.
        mirror: name of the mirror; several may share the directory.
        suffix: what the file's name ends with.
    """

    def __init__(self, directory: Path, mirror: str, suffix: str = _SUFFIX) -> None:
        self.path = directory / f"{mirror}{suffix}"
        self.mirror = mirror
        self._lock = threading.Lock()
        self._has_failed = False

    def read(self) -> dict[str, Any]:
        """All fields; none if there is no file, or if it is damaged."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("state file %s cannot be read: %s", self.path, error.strerror)
            return {}
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            log.warning("state file %s is damaged, and counts as empty", self.path)
            return {}
        return found

    def update(self, **fields: Any) -> None:
        """Replace some fields; None removes one. After a crash, the file is either the one before or the new one.

        Args:
            fields: values of JSON.
        """
        with self._lock:
            before = self.read()
            after = {name: value for name, value in {**before, **fields}.items() if value is not None}
            if after == before:
                return
            try:
                self._write(json.dumps(after, indent=1, sort_keys=True).encode())
            except OSError as error:
                if not self._has_failed:
                    log.warning("state file %s cannot be written: %s", self.path, error.strerror)
                self._has_failed = True
            else:
                self._has_failed = False

    @contextmanager
    def consume(self) -> Iterator[dict[str, Any]]:
        """All fields, which are removed at the end of the with-block, unless the file cannot be read. If the process is killed before that,
        the next call returns the same fields once more. Without a file, this costs two lstat(2)."""
        consumed = self._consumed  # later fields go to another file
        if not os.path.lexists(consumed.path):
            try:
                if not os.path.lexists(self.path) or not os.access(self.path, os.R_OK):
                    raise FileNotFoundError
                os.replace(self.path, consumed.path)
            except OSError:
                yield {}
                return
        yield consumed.read()
        with suppress(OSError):
            os.unlink(consumed.path)

    def remove(self) -> None:
        """Remove the file.

        Raises:
            OSError: it cannot be removed.
        """
        for path in (self.path, self._consumed.path):
            path.unlink(missing_ok=True)

    @property
    def _consumed(self) -> StateFile:
        """The file that `consume` reads."""
        return StateFile(self.path.parent, f"{self.path.name}.", "consumed")

    def _write(self, text: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f"{self.path.name}.")
        try:
            with open(descriptor, "wb") as file:
                if os.geteuid() == 0:  # the watcher, which owns the directory, reads what root has written by `autosync-ctl`
                    owner = os.stat(self.path.parent)
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            os.replace(name, self.path)
        except BaseException:
            os.unlink(name)
            raise
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)  # rename(2) is durable only then
        finally:
            os.close(directory)


def requests_file(directory: Path, mirror: str) -> StateFile:
    """The file with the requests of operators for a mirror whose broker they did not reach."""
    return StateFile(directory, mirror, _REQUESTS_SUFFIX)


def state_files(directory: Path) -> list[StateFile]:
    """The state files in a state directory, by the names of their mirrors; none if the directory cannot be read."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [StateFile(directory, name.removesuffix(_SUFFIX)) for name in names if name.endswith(_SUFFIX)]
