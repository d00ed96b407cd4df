"""Paths that a walk with errors may not have found although they exist."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from ..model.paths import itself_and_parents


class UnreadablePaths:
    """The paths that may exist although a walk did not find them: after "permission denied", those below that directory; after any other
    error, all paths, since the whole file system may be unavailable.

    Args:
        errors: the errors of the walk.
    """

    def __init__(self, errors: Sequence[OSError]) -> None:
        self._all = any(error.errno not in (errno.EACCES, errno.EPERM) for error in errors)
        self._tops = {str(error.filename).rstrip("/") or "/" for error in errors}

    def __contains__(self, path: str) -> bool:
        return self._all or not self._tops.isdisjoint(itself_and_parents(path))
