"""Verifies that a target equals its source, by a scan of its own that changes nothing."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ...actor import Actor
from ...actors import actor_of
from ...compare.delete_limit import DeleteLimit
from ...compare.diff import Compare, Difference
from ...compare.scan import Comparison, Policy, ScanReport
from ...errors import AutosyncError, StartError
from ...model.keys import Keys
from ...model.mirror import Mirror
from ...source.source_file import SourceFile


class Verifier:
    """One verification of a mirror.

    Args:
        mirror: the mirror; its sources are on this host.
        checksum: compare the content if the target lists a checksum, instead of times.
        secrets: values of secret options, by name.
        spill: directory for listings that are sorted on disk.
        shared_keys: the keys that other mirrors could have made, which are no differences if the source lacks them.

    Attributes:
        report: the report of the scan, complete after the end of `differences`.
        found: number of differences.

    Raises:
        AutosyncError: the target cannot be used.
    """

    def __init__(self, mirror: Mirror, *, checksum: bool, secrets: dict[str, str], spill: Path, shared_keys: Container[str] = ()) -> None:
        self._mirror = mirror
        self._keys: Keys = mirror.keys()
        self._actor = make_actor(mirror, secrets)
        self._by = Compare.CHECKSUM if checksum else Compare.TIME
        self._spill = spill
        self._shared_keys = shared_keys
        self.report = ScanReport()
        self.found = 0

    def differences(self) -> Iterator[tuple[str, str]]:
        """The differences: "missing", "differs" or "extra", and the key.

        Raises:
            AutosyncError: the target cannot be listed, or the state of the source cannot be trusted.
        """
        with closing(self._actor):
            self._actor.check()
            policy = Policy(self._mirror.delete, DeleteLimit.parse("100%"), self._by, self._mirror.file_rules)
            comparison = Comparison(
                self._keys, self._actor, policy, spill=str(self._spill), exact=True, shared_keys=lambda: self._shared_keys
            )
            for difference in comparison.differences("", self.report):
                what = self._kind_of(difference)
                if what:
                    self.found += 1
                    yield what, difference.key

    def _kind_of(self, difference: Difference) -> str:
        if difference.found is None:
            return "extra"
        if not difference.listed:
            return "missing"
        if difference.etag is None:
            return "differs"
        return "" if self._has_content_of(difference, difference.etag) else "differs"

    def _has_content_of(self, difference: Difference, etag: str) -> bool:
        """Whether a file has the content of an object with this etag. False if the file cannot be read, or changes meanwhile."""
        path = self._keys.path(difference.key)
        if path is None:
            return False
        with suppress(OSError, AutosyncError):
            file = SourceFile(difference.key, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            try:
                return self._actor.matches(file, etag)
            finally:
                file.close()
        return False


def make_actor(mirror: Mirror, secrets: Mapping[str, Any]) -> Actor:
    """Make the actor of a mirror, as a worker does.

    Raises:
        AutosyncError: the actor cannot be made.
    """
    try:
        return actor_of(mirror, secrets, "set AUTOSYNC_{} in the environment")
    except AutosyncError:
        raise
    except Exception as error:  # a user's actor may fail in any way
        raise StartError(f"the actor {mirror.actor} cannot be made: {type(error).__name__}: {error}") from error
